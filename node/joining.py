"""Joining a swarm through one address: dial, compare swarm, versions and clocks, meet the others.

Knows the checks and what to do when one fails; must not know who asked for it.
"""

from collections.abc import Awaitable, Callable

from coordinator.coordinator import Coordinator
from coordinator.discovery import Discovery
from coordinator.pinging import Pong
from node.state import SCHEMA_VERSION, Check, JoinReport
from protocols import limits, versions
from protocols.errors import DslmError
from protocols.ids import PeerId, SwarmId

Meet = Callable[[str], Awaitable[PeerId]]
"""Dials an address, and enters the record store through the peer there; raises a `DslmError`."""


class Joiner:
    """Joins one swarm. `announce` is called when there is somebody to tell about us."""

    def __init__(
        self,
        swarm: SwarmId,
        meet: Meet,
        coordinator: Coordinator,
        discovery: Discovery,
        announce: Callable[[], None],
    ) -> None:
        self._swarm = swarm
        self._meet = meet
        self._coordinator = coordinator
        self._discovery = discovery
        self._announce = announce

    async def join(self, address: str) -> JoinReport:
        """What was checked, in order; the first check that fails is the last."""
        checks: list[Check] = []
        peer = ""
        try:
            peer = await self._meet(address)
            checks.append(Check("dial", ok=True, detail=f"reached {peer} at {address}"))
            pong = await self._coordinator.ping(PeerId(peer))
            checks += compare(pong, self._swarm)
        except DslmError as error:
            checks.append(_failed(error, reached=bool(checks)))
        joined = all(check.ok for check in checks)
        if joined:
            self._announce()
            found = await self._discovery.refresh()
            checks.append(Check("discover", ok=True, detail=f"{found.peers} peers known"))
        return JoinReport(SCHEMA_VERSION, joined, peer, tuple(checks))


def compare(pong: Pong, swarm: SwarmId) -> list[Check]:
    """The peer's answer against what we are; a check for each thing that must agree."""
    reply = pong.reply
    skew = abs(pong.clock_skew)
    return [
        Check("answer", ok=True, detail=f"round trip {pong.rtt * 1000:.1f} ms"),
        Check(
            "swarm",
            ok=reply.swarm == swarm,
            detail=f"theirs {reply.swarm!r}, ours {swarm!r}",
            fix=""
            if reply.swarm == swarm
            else f"start the node with DSLM_SWARM_NAME={reply.swarm}, or use another address",
        ),
        Check(
            "protocols",
            ok=set(versions.ALL) <= set(reply.protocols),
            detail=f"theirs {reply.software} ({', '.join(reply.protocols)}), "
            f"ours {versions.SOFTWARE} ({', '.join(versions.ALL)})",
            fix="" if set(versions.ALL) <= set(reply.protocols) else "upgrade the older side",
        ),
        Check(
            "clock",
            ok=skew <= limits.CLOCK_SKEW_SECONDS_MAX,
            detail=f"{skew:.1f} s apart",
            fix=""
            if skew <= limits.CLOCK_SKEW_SECONDS_MAX
            else "set the clock of the wrong machine, for example with `timedatectl set-ntp true`",
        ),
    ]


def _failed(error: DslmError, *, reached: bool) -> Check:
    if reached:
        fix = "the peer is there but does not speak dslm: check the address and its version"
        return Check("answer", ok=False, detail=str(error), fix=fix)
    fix = (
        "check that the node there runs (`dslm status`) and that its port can be reached from here"
    )
    return Check("dial", ok=False, detail=str(error), fix=fix)
