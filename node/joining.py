"""Joining a swarm, step by step: each check as it is done, and what to do when one fails.

Knows the order of the checks and their words; the steps themselves are an `Entrance`'s, and who
asked for it is not known here.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from coordinator.pinging import Pong
from node.state import SCHEMA_VERSION, Check, JoinReport
from protocols import limits, versions
from protocols.errors import DslmError, PeerUnreachable
from protocols.ids import PeerId
from protocols.membership.charter import Charter
from protocols.membership.invite import Invite


@dataclass(frozen=True, slots=True)
class Reached:
    """What a dial-back found: how many peers tried, and the addresses at which they got through."""

    asked: int
    addresses: tuple[str, ...]
    reasons: tuple[str, ...] = ()


class Entrance(Protocol):
    """A swarm that this node is about to enter. All steps raise a `DslmError` when they fail."""

    @property
    def charter(self) -> Charter:
        """Of the swarm."""
        ...

    async def dial(self, address: str) -> PeerId:
        """Who answers at `address`."""
        ...

    async def enrol(self, issuer: PeerId, invite: Invite) -> str:
        """Get a certificate for an invite; what it allows, in words."""
        ...

    async def greet(self, peer: PeerId) -> None:
        """Be admitted by `peer`, and admit it."""
        ...

    async def meet(self, address: str) -> None:
        """Enter the record store through the peer at `address`."""
        ...

    async def ping(self, peer: PeerId) -> Pong:
        """One round trip, with what the peer says of itself."""
        ...

    async def reach_back(self) -> Reached:
        """Have up to two peers dial us back over new connections."""
        ...

    async def discover(self) -> int:
        """Look for the others; how many there are."""
        ...


async def join(
    entrance: Entrance, addresses: Sequence[str], invite: Invite | None, now: float
) -> AsyncGenerator[Check | JoinReport, None]:
    """Enter through the first of `addresses` that answers; the last value is the report.

    The first check that fails is the last, but for reachability: a node that nobody can reach can
    still ask. In a private swarm `invite` is needed.
    """
    done: list[Check] = []
    peer = ""
    async with aclosing(_steps(entrance, addresses, invite, now)) as steps:
        async for step in steps:
            if isinstance(step, str):
                peer = step
                continue
            done.append(step)
            yield step
    joined = all(check.ok or check.name == "reachability" for check in done)
    yield JoinReport(SCHEMA_VERSION, joined, peer, tuple(done))


async def _steps(
    entrance: Entrance, addresses: Sequence[str], invite: Invite | None, now: float
) -> AsyncGenerator[Check | str, None]:
    charter = entrance.charter
    if invite is not None:
        check = check_invite(invite, now)
        yield check
        if not check.ok:
            return
    try:
        peer, address = await _dial_any(entrance, addresses)
    except DslmError as error:
        yield Check("dial", ok=False, detail=str(error), fix=_DIAL_FIX)
        return
    yield peer
    yield Check("dial", ok=True, detail=f"reached {peer} at {address.partition('/p2p/')[0]}")
    try:
        if charter.is_private and invite is not None:
            yield Check("membership", ok=True, detail=await entrance.enrol(peer, invite))
        await entrance.greet(peer)
        yield Check("admission", ok=True, detail=f"{peer[-6:]} and this node admit each other")
    except DslmError as error:
        yield Check("membership", ok=False, detail=str(error), fix=_MEMBER_FIX)
        return
    try:
        pong = await entrance.ping(peer)
        await entrance.meet(address)
    except DslmError as error:
        yield Check("answer", ok=False, detail=str(error), fix=_ANSWER_FIX)
        return
    checks = compare(pong, charter)
    for check in checks:
        yield check
    if all(check.ok for check in checks):
        peers = await entrance.discover()
        yield check_reached(await entrance.reach_back(), charter)
        yield Check(
            "discover", ok=True, detail="1 other known" if peers == 1 else f"{peers} others known"
        )


_DIAL_FIX = (
    "check that the node there runs (`dslm status` on it) and that its port can be reached from "
    "here: a firewall or router may have to let it through"
)
_MEMBER_FIX = "ask whoever invited you for a new invite: `dslm invite` prints one"
_ANSWER_FIX = "the peer is there but does not speak dslm: check the address and its version"


def check_invite(invite: Invite, now: float) -> Check:
    """Whether an invite can be used at `now`."""
    charter = invite.charter
    kind = "private" if charter.is_private else "public"
    detail = f"{kind} swarm {charter.name}, id {charter.swarm[:16]}"
    if invite.expires_at and invite.expires_at <= now:
        hours = (now - invite.expires_at) / 3600
        detail += f"; it expired {hours:.1f} hours ago, by this machine's clock"
        return Check("invite", ok=False, detail=detail, fix=_MEMBER_FIX)
    return Check("invite", ok=True, detail=detail)


def compare(pong: Pong, charter: Charter) -> list[Check]:
    """The peer's answer against what we are; a check for each thing that must agree."""
    reply = pong.reply
    skew = abs(pong.clock_skew)
    is_ours = reply.swarm == charter.swarm
    missing = [one for one in versions.ALL if one not in reply.protocols]
    speaks_ours = not missing
    is_in_time = skew <= limits.CLOCK_SKEW_SECONDS_MAX
    return [
        Check("answer", ok=True, detail=f"round trip {pong.rtt * 1000:.1f} ms"),
        Check(
            "swarm",
            ok=is_ours,
            detail=f"theirs {reply.swarm[:16]!r}, ours {charter.swarm[:16]!r} ({charter.name})",
            fix="" if is_ours else "use an invite of their swarm: `dslm invite` prints it there",
        ),
        Check(
            "versions",
            ok=speaks_ours,
            detail=f"theirs {reply.software}, ours {versions.SOFTWARE}"
            + ("" if speaks_ours else f"; it does not speak {', '.join(missing)}"),
            fix="" if speaks_ours else "upgrade the older side",
        ),
        Check(
            "clock",
            ok=is_in_time,
            detail=f"{skew:.1f} s apart",
            fix=""
            if is_in_time
            else "set the clock of the wrong machine, for example with `timedatectl set-ntp true`",
        ),
    ]


def check_reached(reached: Reached, charter: Charter) -> Check:
    """What the dial-back means for the person who joins."""
    if not reached.asked:
        detail = "no peer could be asked to dial back yet; it is tried again in the background"
        return Check("reachability", ok=True, detail=detail)
    if reached.addresses:
        where = ", ".join(one.partition("/p2p/")[0] for one in reached.addresses)
        count = "1 peer" if reached.asked == 1 else f"{reached.asked} peers"
        return Check("reachability", ok=True, detail=f"{count} dialled back to {where}")
    reasons = f" ({'; '.join(reached.reasons[:2])})" if reached.reasons else ""
    return Check(
        "reachability",
        ok=False,
        detail=f"none of {reached.asked} peers could dial this node{reasons}",
        fix="this node can ask, but others cannot ask it: forward its port in the router (`dslm "
        f"swarm info {charter.name}` shows it), or name a relay in [network] relays",
    )


async def _dial_any(entrance: Entrance, addresses: Sequence[str]) -> tuple[PeerId, str]:
    reasons = []
    for address in addresses:
        try:
            return await entrance.dial(address), address
        except DslmError as error:
            reasons.append(str(error))
    raise PeerUnreachable("; ".join(reasons) or "no address to dial")
