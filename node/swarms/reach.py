"""`/dslm/reach/1` on streams: dialling peers back that ask for it, and asking others to dial us.

Knows the protocol, its limits and who is asked when; what the answers mean is decided in
`node.swarms.reachability`, and dialling is a callable that the network adapter gives.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random

from node.swarms.reachability import Reachability
from node.swarms.scopes import reason_not_to_dial, without_peer
from protocols import limits, versions
from protocols.channel import Channel
from protocols.errors import (
    DslmError,
    NetworkError,
    PeerLost,
    ProtocolError,
    Refused,
    TransportDown,
)
from protocols.ids import PeerId
from protocols.messages.reach import REACH_BYTES_MAX, ReachReply, ReachRequest
from protocols.metering import Rate, TokenBucket
from protocols.ports import Clock, Stream, Transport

Probe = Callable[[str, PeerId], Awaitable[object]]
"""Dials an address without `/p2p/` over a new connection; raises a `DslmError` unless the peer
answers there."""
Observed = Callable[[PeerId], Awaitable[Sequence[str]]]
"""The remote addresses of the connections with a peer now; none when there is no connection."""

PROBE_SECONDS = 5.0
SEND_SECONDS = 10.0
ANSWER_SECONDS = 15.0
"""Longer than all dials of a request, which go on at the same time, and the sending."""
RUNNING_MAX = 8
"""Requests of all peers served at once."""
BURST = 3.0
SECONDS_PER_REQUEST = 20.0
"""Of one peer, after a burst."""
RATE = Rate(1 / SECONDS_PER_REQUEST, BURST)
VISITORS_MAX = 1_024

ASKED_AT_ONCE = 4
UNSETTLED_SECONDS = 10.0
SETTLED_SECONDS = 60.0


@dataclass(slots=True)
class _Visitor:
    """A peer's account of requests."""

    requests: TokenBucket
    is_running: bool = False


class ReachService:
    """The stream handler: dials back, only where the asking peer's connection comes from."""

    def __init__(self, probe: Probe, observed: Observed, clock: Clock) -> None:
        self._probe = probe
        self._observed = observed
        self._clock = clock
        self._visitors: OrderedDict[PeerId, _Visitor] = OrderedDict()
        self._running = 0

    async def __call__(self, stream: Stream) -> None:
        """Serve one request; all of a peer's misbehaviour ends in closing the stream."""
        channel: Channel[ReachRequest] = Channel(stream, ReachRequest, header_max=REACH_BYTES_MAX)
        try:
            async with asyncio.timeout(limits.FIRST_MESSAGE_SECONDS):
                request = await channel.receive()
            if request is None:
                return
            reply = await self._answer(stream.peer, request)
            async with asyncio.timeout(SEND_SECONDS):
                await channel.send(reply)
        except (TimeoutError, PeerLost, ProtocolError, TransportDown):
            stream.abort()

    async def _answer(self, peer: PeerId, request: ReachRequest) -> ReachReply:
        visitor = self._visitor(peer)
        if refusal := self._refusal(visitor):
            return ReachReply(refused=refusal)
        visitor.requests.add(1)
        visitor.is_running = True
        self._running += 1
        try:
            return await self._dial_all(peer, tuple(dict.fromkeys(request.addresses)))
        finally:
            visitor.is_running = False
            self._running -= 1

    def _visitor(self, peer: PeerId) -> _Visitor:
        visitor = self._visitors.pop(peer, None)
        if visitor is None:
            visitor = _Visitor(TokenBucket(self._clock.monotonic()))
        self._visitors[peer] = visitor
        if len(self._visitors) > VISITORS_MAX:
            idle = next((one for one, it in self._visitors.items() if not it.is_running), peer)
            del self._visitors[idle]
        return visitor

    def _refusal(self, visitor: _Visitor) -> str:
        if visitor.is_running:
            return "one request at a time"
        if visitor.requests.room(RATE, self._clock.monotonic()) < 1:
            return f"one request in {SECONDS_PER_REQUEST:g} seconds"
        if self._running >= RUNNING_MAX:
            return "too many peers ask at once"
        return ""

    async def _dial_all(self, peer: PeerId, addresses: tuple[str, ...]) -> ReachReply:
        observed = tuple(await self._observed(peer))[: limits.ADDRESSES_MAX]
        async with asyncio.TaskGroup() as tasks:
            dials = [tasks.create_task(self._dial(one, peer, observed)) for one in addresses]
        reasons = dict(zip(addresses, (dial.result() for dial in dials), strict=True))
        return ReachReply(
            reached=tuple(one for one in addresses if not reasons[one]),
            observed=observed,
            failed=tuple(f"{one}: {reason}" for one, reason in reasons.items() if reason),
        )

    async def _dial(self, address: str, peer: PeerId, observed: Sequence[str]) -> str:
        """Why the peer was not reached there; empty if it was."""
        if reason := reason_not_to_dial(address, observed):
            return reason
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await self._probe(without_peer(address), peer)
        except TimeoutError:
            return f"no answer within {PROBE_SECONDS:g} s"
        except DslmError as error:
            return str(error)[: limits.TEXT_BYTES_MAX // 2] or error.code
        return ""


@dataclass(frozen=True, slots=True)
class ReachRound:
    """What came of asking once. `errors` are of peers that gave no answer, `peer: reason`."""

    asked: int
    answered: int
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReachPorts:
    """What the asking side needs. `peers` names those that are connected and may be asked."""

    transport: Transport
    peers: Callable[[], Sequence[PeerId]]
    observed: Observed
    clock: Clock
    rng: Random


class ReachAsker:
    """Has other peers dial us, often enough to know at which addresses we can be reached."""

    def __init__(self, ports: ReachPorts, reachability: Reachability) -> None:
        self._ports = ports
        self.reachability = reachability

    def announced(self) -> tuple[str, ...]:
        """The addresses to tell others now, each ending in `/p2p/<our peer id>`."""
        self.reachability.set_addresses(self._ports.transport.addresses())
        return self._with_peer(self.reachability.announced(*self._there()))

    def reached(self) -> tuple[str, ...]:
        """Those at which others have reached us, in the same form."""
        return self._with_peer(self.reachability.reached(*self._there()))

    async def run(self, on_change: Callable[[], None]) -> None:
        """Ask for as long as the node lives; `on_change` when other addresses are to be told."""
        while True:
            before = self.announced()
            if not self._is_settled():
                await self.check()
            if self.announced() != before:
                on_change()
            wait = SETTLED_SECONDS if self._is_settled() else UNSETTLED_SECONDS
            await asyncio.sleep(wait * self._ports.rng.uniform(0.8, 1.2))

    async def check(self) -> ReachRound:
        """Ask up to four peers that have something to find out, at the same time."""
        self.reachability.set_addresses(self._ports.transport.addresses())
        peers = list(self._ports.peers())
        self._ports.rng.shuffle(peers)
        now = self._ports.clock.monotonic()
        due = [peer for peer in peers if self.reachability.to_ask(peer, (), now)]
        chosen = due[:ASKED_AT_ONCE]
        async with asyncio.TaskGroup() as tasks:
            questions = [tasks.create_task(self._ask_and_record(peer)) for peer in chosen]
        errors = tuple(error for question in questions if (error := question.result()))
        return ReachRound(len(chosen), len(chosen) - len(errors), errors)

    # ----------------------------------------------------------------------------------------

    def _there(self) -> tuple[Sequence[PeerId], float]:
        return self._ports.peers(), self._ports.clock.monotonic()

    def _is_settled(self) -> bool:
        return self.reachability.is_settled(*self._there())

    def _with_peer(self, addresses: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"{one}/p2p/{self._ports.transport.peer_id}" for one in addresses)

    async def _ask_and_record(self, peer: PeerId) -> str:
        """Why there is no answer; empty when there is one."""
        clock = self._ports.clock
        addresses: tuple[str, ...] = ()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                seen_at = await self._ports.observed(peer)
                addresses = self.reachability.to_ask(peer, seen_at, clock.monotonic())
                if not addresses:
                    return ""
                reply = await self._ask(peer, addresses)
        except TransportDown as error:
            return f"{peer}: {error}"
        except TimeoutError:
            self.reachability.record_silence(peer, addresses, clock.monotonic())
            return f"{peer}: no answer within {ANSWER_SECONDS:g} s"
        except (NetworkError, ProtocolError, Refused) as error:
            self.reachability.record_silence(peer, addresses, clock.monotonic())
            return f"{peer}: {error}"
        self.reachability.record(peer, addresses, reply, clock.monotonic())
        return f"{peer}: {reply.refused}" if reply.refused else ""

    async def _ask(self, peer: PeerId, addresses: tuple[str, ...]) -> ReachReply:
        stream = await self._ports.transport.open_stream(peer, versions.REACH)
        try:
            channel: Channel[ReachReply] = Channel(stream, ReachReply, header_max=REACH_BYTES_MAX)
            await channel.send(ReachRequest(addresses))
            reply = await channel.receive()
            await stream.close()
        finally:
            stream.abort()
        if reply is None:
            raise PeerLost("the peer ended the stream without an answer")
        return reply
