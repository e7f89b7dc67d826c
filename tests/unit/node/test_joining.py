"""The checks of a join: their order, what ends them, and what they advise."""

from dataclasses import dataclass, field

import pytest

from coordinator.pinging import Pong
from node.joining import Reached, join
from node.state import Check, JoinReport
from protocols import versions
from protocols.errors import DslmError, NotAdmitted, PeerLost, PeerUnreachable
from protocols.ids import PeerId
from protocols.membership.charter import Charter, open_charter
from protocols.membership.invite import Invite
from protocols.messages.info import InfoReply, Load
from protocols.signing import Identity

ISSUER = Identity(bytes(32)).peer_id
LAB = Charter("lab", Identity(bytes([1]) * 32).peer_id, is_private=True)
REACHED = Reached(2, ("/ip4/192.0.2.9/tcp/1",))
INVITE = Invite(LAB, ("/ip4/192.0.2.1/tcp/1/p2p/" + ISSUER,), 100.0, bytes(32))


@dataclass
class FakeEntrance:
    charter: Charter = LAB
    failing: dict[str, DslmError] = field(default_factory=dict)
    swarm: str = LAB.swarm
    skew: float = 0.0
    protocols: tuple[str, ...] = versions.ALL
    reached: Reached = REACHED
    steps: list[str] = field(default_factory=list)

    def _step(self, name: str) -> None:
        self.steps.append(name)
        if name in self.failing:
            raise self.failing[name]

    async def dial(self, address: str) -> PeerId:
        self._step("dial")
        if "192.0.2.66" in address:
            raise PeerUnreachable("nobody there")
        return ISSUER

    async def enrol(self, issuer: PeerId, invite: Invite) -> str:
        assert (issuer, invite) == (ISSUER, INVITE)
        self._step("enrol")
        return "node, user"

    async def greet(self, peer: PeerId) -> None:
        self._step(f"greet {peer == ISSUER}")

    async def meet(self, address: str) -> None:
        assert ISSUER in address
        self._step("meet")

    async def ping(self, peer: PeerId) -> Pong:
        self._step("ping")
        reply = InfoReply(1, "0.1.0", self.swarm, self.protocols, (), Load(), 1.0)
        return Pong(peer, 0.001, self.skew, reply)

    async def reach_back(self) -> Reached:
        self._step("reach")
        return self.reached

    async def discover(self) -> int:
        self._step("discover")
        return 3


async def run(
    entrance: FakeEntrance, invite: Invite | None = INVITE, now: float = 50.0
) -> tuple[JoinReport, dict[str, Check]]:
    addresses = invite.addresses if invite else ("/ip4/192.0.2.1/tcp/1/p2p/" + ISSUER,)
    values = [value async for value in join(entrance, addresses, invite, now)]
    report = values[-1]
    assert isinstance(report, JoinReport)
    assert tuple(values[:-1]) == report.checks
    return report, {check.name: check for check in report.checks}


async def test_a_join_that_works_says_each_step() -> None:
    entrance = FakeEntrance()
    report, checks = await run(entrance)
    assert report.joined
    assert report.peer == ISSUER
    assert list(checks) == [
        *("invite", "dial", "membership", "admission", "answer"),
        *("swarm", "versions", "clock", "reachability", "discover"),
    ]
    assert entrance.steps == ["dial", "enrol", "greet True", "ping", "meet", "discover", "reach"]


async def test_an_expired_invite_is_not_even_dialled() -> None:
    entrance = FakeEntrance()
    report, checks = await run(entrance, now=3700.0)
    assert not report.joined
    assert entrance.steps == []
    assert "expired 1.0 hours ago" in checks["invite"].detail
    assert "dslm invite" in checks["invite"].fix


@pytest.mark.parametrize(
    ("step", "error", "check"),
    [
        ("dial", PeerUnreachable("silence"), "dial"),
        ("enrol", NotAdmitted("used up"), "membership"),
        ("greet True", NotAdmitted("who?"), "membership"),
        ("ping", PeerLost("gone"), "answer"),
        ("meet", PeerLost("gone"), "answer"),
    ],
)
async def test_the_first_step_that_fails_is_the_last(
    step: str, error: DslmError, check: str
) -> None:
    entrance = FakeEntrance(failing={step: error})
    report, checks = await run(entrance)
    assert not report.joined
    assert report.checks[-1].name == check
    assert str(error) in checks[check].detail
    assert checks[check].fix
    assert entrance.steps[-1] == step


@pytest.mark.parametrize(
    ("entrance", "check"),
    [
        (FakeEntrance(swarm="f" * 64), "swarm"),
        (FakeEntrance(protocols=(versions.INFO,)), "versions"),
        (FakeEntrance(skew=-90.0), "clock"),
    ],
)
async def test_what_must_agree_is_compared(entrance: FakeEntrance, check: str) -> None:
    report, checks = await run(entrance)
    assert not report.joined
    assert not checks[check].ok
    assert checks[check].fix
    assert "discover" not in entrance.steps


async def test_a_node_that_nobody_can_reach_joins_all_the_same() -> None:
    entrance = FakeEntrance(reached=Reached(2, (), ("timed out",)))
    report, checks = await run(entrance)
    assert report.joined
    assert not checks["reachability"].ok
    assert "timed out" in checks["reachability"].detail
    assert "relay" in checks["reachability"].fix


async def test_the_second_address_is_tried_when_the_first_is_silent() -> None:
    invite = Invite(LAB, ("/ip4/192.0.2.66/tcp/1/p2p/" + ISSUER, INVITE.addresses[0]), 100.0, b"")
    entrance = FakeEntrance()
    values = [value async for value in join(entrance, invite.addresses, None, 0.0)]
    assert isinstance(values[-1], JoinReport)
    assert values[-1].joined
    assert entrance.steps.count("dial") == 2


async def test_an_open_swarm_is_joined_by_an_address_alone() -> None:
    charter = open_charter("public")
    entrance = FakeEntrance(charter=charter, swarm=charter.swarm)
    report, checks = await run(entrance, None)
    assert report.joined
    assert "membership" not in checks
    assert "enrol" not in entrance.steps
