"""A node in several swarms, on real networks: joining, leaving, coming back, interrupted."""

import asyncio
import dataclasses
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest
from msgspec.structs import replace

from coordinator.answer import AnswerRequest, Route
from coordinator.reputation import Outcome
from node.presence import Presence
from node.state import JoinReport
from node.swarms.enrolment import Enrolment, enrol
from node.swarms.folder import SwarmFolder
from protocols import versions
from protocols.adapters.clock import SystemClock
from protocols.adapters.libp2p.network import Libp2pConfig, Libp2pNetwork
from protocols.codec import FrameDecoder, encode
from protocols.errors import DslmError, PeerLost, UnknownModel, UserError
from protocols.ids import PeerId, RequestId, SpecialistId
from protocols.membership.charter import open_charter
from protocols.membership.documents import Role
from protocols.membership.invite import Invite, format_invite, parse_invite
from protocols.messages.ask import Sampling, Text
from protocols.messages.hello import Hello, HelloMessage, Rejected
from protocols.ports import Clock, Transport
from protocols.records import node_key
from protocols.signing import Identity
from tests.integration.small_nodes import ANY_PORT, SmallNode, make, settings, small_node
from tests.integration.test_gate_matrix import said
from tests.simulation.intruders import SAMPLES
from tests.simulation.members import identity_of

pytestmark = pytest.mark.integration

STEPS_OF_A_JOIN = 11
GoAway = Callable[[SmallNode, str, int], Awaitable[None]]
OPEN = "public"


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[SmallNode]:
    """A node that has founded the swarm `lab`."""
    config = settings(tmp_path / "host")
    make(config, "lab")
    async with small_node(config) as node:
        yield node


def check_is_where_it_was(node: SmallNode) -> None:
    assert node.names == (OPEN,)
    assert node.folders == ()
    assert node.presences.named(None).name == OPEN


def with_other_secret(text: str) -> str:
    return format_invite(replace(parse_invite(text), seed=bytes(32)))


def with_dead_address(text: str) -> str:
    invite = parse_invite(text)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    return format_invite(
        replace(invite, addresses=(f"/ip4/127.0.0.1/tcp/{port}/p2p/{invite.issuer}",))
    )


async def test_a_join_that_fails_leaves_nothing_and_a_good_one_works(
    host: SmallNode, tmp_path: Path
) -> None:
    good = await host.invite("lab")
    async with small_node(settings(tmp_path / "guest")) as guest:
        before = guest[OPEN].me
        failed = await guest.join(with_other_secret(good))
        assert (failed.joined, failed.checks[-1].name) == (False, "membership")
        check_is_where_it_was(guest)
        assert guest[OPEN].me == before
        joined = await guest.join(good)
        assert joined.joined
        assert guest.names == guest.folders == ("lab",)
        assert guest["lab"].me in host["lab"].others()
        with pytest.raises(UserError, match="already"):
            await guest.join(good)


@pytest.mark.slow
async def test_a_join_whose_stream_breaks_asks_the_issuer_again(
    host: SmallNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[Invite] = []

    async def breaking(
        transport: Transport, invite: Invite, identity: Identity, clock: Clock
    ) -> Enrolment:
        tries.append(invite)
        if len(tries) < 3:
            raise PeerLost("the stream broke")
        return await enrol(transport, invite, identity, clock)

    monkeypatch.setattr("node.presence.enrol", breaking)
    async with small_node(settings(tmp_path / "guest")) as guest:
        assert (await guest.join(await host.invite("lab"))).joined
    assert len(tries) == 3


@pytest.mark.slow
async def test_nobody_at_the_address(host: SmallNode, tmp_path: Path) -> None:
    good = await host.invite("lab")
    async with small_node(settings(tmp_path / "guest")) as guest:
        failed = await guest.join(with_dead_address(good))
        assert (failed.joined, failed.checks[-1].name) == (False, "dial")
        check_is_where_it_was(guest)
        assert (await guest.join(good)).joined


async def test_the_papers_are_gone_with_the_swarm(host: SmallNode) -> None:
    secret = host["lab"].folder.path / "identity.key"
    assert secret.exists()
    with pytest.raises(UserError, match="in no swarm 'art'"):
        await host.view.leave("art")
    await host.view.leave("lab")
    assert not secret.exists()
    check_is_where_it_was(host)
    with pytest.raises(UserError, match="dslm down"):
        await host.view.leave(OPEN)
    assert host.names == (OPEN,)


async def test_what_is_not_there_is_not_loaded_and_what_cannot_begin_is_no_loss(
    tmp_path: Path,
) -> None:
    config = settings(tmp_path / "host")
    async with small_node(config) as host:
        with pytest.raises(UserError, match="no folder"):
            await host.view.load("lab")
        make(config, "lab")
        charter = config.paths.swarms / "lab" / "charter.json"
        described = charter.read_bytes()
        charter.write_bytes(b"damaged")
        with pytest.raises(UserError, match="damaged"):
            await host.view.load("lab")
        assert host.names == (OPEN,)
        charter.write_bytes(described)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            folder = SwarmFolder.load(config.paths.swarms / "lab")
            folder.save_listen_addresses((f"/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}",))
            with pytest.raises(UserError):
                await host.view.load("lab")
        assert host.names == (OPEN,)
        await host.view.load("lab")
        await host.view.load("lab")
        assert host.names == ("lab",)


# Interrupted ----------------------------------------------------------------------------------


async def leave_after(node: SmallNode, target: str, steps: int) -> None:
    """The client goes away between two steps."""
    async with aclosing(node.view.join(target)) as joining:
        for _ in range(steps):
            await anext(joining)


async def cancel_after(node: SmallNode, target: str, steps: int) -> None:
    """The client goes away while the step after `steps` is under way."""
    done = asyncio.Event()

    async def work() -> None:
        async with aclosing(node.view.join(target)) as joining:
            count = 0
            while True:
                if count == steps:
                    done.set()
                await anext(joining)
                count += 1

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(work())
        await done.wait()
        for _ in range(3):
            await asyncio.sleep(0)
        task.cancel()


async def test_a_client_that_goes_away_in_the_middle_leaves_nothing(
    host: SmallNode, tmp_path: Path
) -> None:
    target = await host.invite("lab", uses=2)
    async with small_node(settings(tmp_path / "guest")) as guest:
        await leave_after(guest, target, 4)
        check_is_where_it_was(guest)  # at once: not when somebody collects the rubbish
        assert (await guest.join(target)).joined


@pytest.mark.slow
@pytest.mark.parametrize(
    ("leave", "last"), [(leave_after, STEPS_OF_A_JOIN - 1), (cancel_after, STEPS_OF_A_JOIN - 3)]
)
async def test_a_client_may_go_away_at_any_step(
    host: SmallNode, tmp_path: Path, leave: GoAway, last: int
) -> None:
    """The last two steps take no time, so nobody can go away while they are under way."""
    target = await host.invite("lab", uses=STEPS_OF_A_JOIN + 1)
    async with small_node(settings(tmp_path / "guest")) as guest:
        for steps in range(last + 1):
            await leave(guest, target, steps)
            check_is_where_it_was(guest)
        steps_taken = [step async for step in guest.view.join(target)]
        assert isinstance(steps_taken[-1], JoinReport)
        assert steps_taken[-1].joined
        assert len(steps_taken) == STEPS_OF_A_JOIN, "a step that the loop has left out"


@pytest.mark.slow
async def test_a_client_may_go_away_while_a_bad_join_is_undone(
    host: SmallNode, tmp_path: Path
) -> None:
    target = with_other_secret(await host.invite("lab"))
    async with small_node(settings(tmp_path / "guest")) as guest:
        for steps in range(4):  # the last one is under way until all is undone
            await cancel_after(guest, target, steps)
            check_is_where_it_was(guest)


# Several --------------------------------------------------------------------------------------


async def test_an_open_swarm_is_for_nodes_in_no_other(host: SmallNode) -> None:
    address = host["lab"].reach.announced()[0]
    for name in ("lab", "elsewhere"):
        with pytest.raises(UserError, match="in no other"):
            await host.join(format_invite(Invite(open_charter(name), (address,))))
    assert host.names == host.folders == ("lab",)
    assert host["lab"].charter.is_private


def port_of(node: SmallNode, name: str) -> str:
    (address,) = node[name].network.listening
    return address.rpartition("/")[2]


@pytest.mark.slow
async def test_each_swarm_keeps_its_place_over_restarts(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        fixed = probe.getsockname()[1]
    config = settings(tmp_path / "hub", (f"/ip4/127.0.0.1/tcp/{fixed}",))
    async with small_node(config) as hub:
        await hub.found("zoo")
        await hub.found("art")
        await hub.found("map", is_private=False)
        ports = {name: port_of(hub, name) for name in hub.names}
        ids = {name: hub[name].me for name in hub.names}
        await hub.view.use("map")
        assert ports["zoo"] == str(fixed)
        assert len(set(ports.values())) == len(set(ids.values())) == 3
    async with small_node(config) as hub:
        assert hub.presences.named(None).name == "map"
        assert ports == {name: port_of(hub, name) for name in hub.names}
        assert ids == {name: hub[name].me for name in hub.names}
        await hub.view.leave("zoo")
        assert hub.names == hub.folders == ("art", "map")
        await hub.view.leave("map")
        assert hub.presences.named(None).name == "art"
    async with small_node(config) as hub:
        assert port_of(hub, "art") == ports["art"]
        await hub.found("new")
        assert port_of(hub, "new") == str(fixed)


async def hello_of(network: Libp2pNetwork, peer: PeerId, swarm: str, papers: bytes) -> HelloMessage:
    answer = await said(network, peer, versions.HELLO, encode(Hello(swarm, 0, papers)))
    decoder: FrameDecoder[HelloMessage] = FrameDecoder(HelloMessage)
    (frame,) = decoder.feed(answer)
    return frame.message


@pytest.mark.slow
async def test_what_belongs_to_one_swarm_does_not_get_into_another(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        hub, anna, ben, carl = [
            await stack.enter_async_context(small_node(settings(tmp_path / name)))
            for name in ("hub", "anna", "ben", "carl")
        ]
        await hub.found("art")
        await hub.found("lab")
        await hub.found("map", is_private=False)
        guests = {"lab": anna, "art": ben, "map": carl}
        for name, guest in guests.items():
            assert (await guest.join(await hub.invite(name))).joined
        await check_peers_do_not_cross(hub, guests)
        await check_papers_do_not_cross(hub)


async def check_peers_do_not_cross(hub: SmallNode, guests: dict[str, SmallNode]) -> None:
    for name, guest in guests.items():
        there = guest[name].me
        assert (await hub[name].ping(there)).reply.swarm == hub[name].charter.swarm
        assert hub[name].others() == (there,)
        assert await hub[name].company.refresh() == (there,)
        await hub[name].announcer.announce()
        for other in set(guests) - {name}:
            wrong = hub[other]
            address = guest[name].network.transport.addresses()[0]
            await wrong.network.transport.connect(address)  # a connection is no membership
            for protocol in (versions.INFO, versions.ASK, versions.REACH, versions.SWARM):
                with pytest.raises(DslmError):
                    await wrong.network.transport.open_stream(there, protocol)
            assert there not in wrong.others()
            assert wrong.directory.node(there, SystemClock().now()) is None
            assert not await wrong.network.records.get(node_key(hub[name].charter.swarm, there))
            with pytest.raises(DslmError) as refused:
                await ask(wrong, there)
            assert isinstance(refused.value, UnknownModel)


async def ask(presence: Presence, peer: PeerId) -> None:
    request = AnswerRequest(
        *(RequestId("r"), "smollm2", Text("why?"), Sampling(), 4, 5.0),
        route=Route.ANY,
        node=peer,
    )
    async for _ in presence.answer(request):
        pass


async def check_papers_do_not_cross(hub: SmallNode) -> None:
    identity = identity_of("a member of lab")
    papers = hub["lab"].desk.issue(identity.peer_id, frozenset({Role.NODE, Role.USER}))
    lab, art, public = (hub[name] for name in ("lab", "art", "map"))
    with tempfile.TemporaryDirectory(prefix="p-") as folder:  # sockets need a short path
        config = Libp2pConfig(identity, ANY_PORT, Path(folder))
        async with Libp2pNetwork(config, SystemClock()) as network:
            for presence in (lab, art, public):
                await network.transport.connect(presence.network.transport.addresses()[0])
            for other in (art, public):
                for swarm in (other.charter.swarm, lab.charter.swarm):
                    assert isinstance(await hello_of(network, other.me, swarm, papers), Rejected)
                for protocol in (versions.INFO, versions.ASK):
                    assert await said(network, other.me, protocol, encode(SAMPLES[protocol])) == b""
                assert identity.peer_id not in other.others()
            assert isinstance(await hello_of(network, lab.me, lab.charter.swarm, papers), Hello)
            info = encode(SAMPLES[versions.INFO])
            assert await said(network, lab.me, versions.INFO, info) != b""


@pytest.mark.parametrize("remember", [True, False])
async def test_what_cards_did_is_written_down_where_it_may_be(
    tmp_path: Path, *, remember: bool
) -> None:
    config = settings(tmp_path / "a-node-of-one")
    network = dataclasses.replace(config.network, remember=remember)
    async with small_node(dataclasses.replace(config, network=network)) as node:
        presence = node[OPEN]
        presence.coordinator.reputation.report(SpecialistId("law"), presence.me, Outcome.DIED)
    assert (config.paths.open_swarms / OPEN / "outcomes").exists() is remember
