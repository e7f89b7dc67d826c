"""The gate of a swarm: says hello to whoever we meet, and lets in whom the policy admits.

Knows the hello protocol, bans and the table of roles (`protocols.access`); what makes a member is
the policy's business. It fails closed: whatever is not settled is not allowed.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from weakref import WeakValueDictionary

from protocols import access, versions
from protocols.channel import Channel
from protocols.errors import (
    DslmError,
    NetworkError,
    NotAdmitted,
    PeerLost,
    PeerUnreachable,
    ProtocolError,
    TransportDown,
)
from protocols.gating.policies import Policy
from protocols.gating.refusals import SECONDS_FIRST, SECONDS_MAX, Refusals
from protocols.ids import PeerId
from protocols.membership.book import NotProven
from protocols.messages.hello import HELLO_BYTES_MAX, Hello, HelloMessage, Rejected
from protocols.metering import Rate, TokenBucket
from protocols.ports import Allowance, Clock, Stream, Transport

HELLO_SECONDS = 5.0
"""For a whole exchange, at either end."""
SETTLED_MAX = 4_096
CHECKS = Rate(per_second=100.0, burst=400.0)
"""Hellos of peers that are not in which are looked at; each costs two signatures at most."""
REGREETINGS_AT_ONCE = 8


def _ignore(*_: object) -> None:
    pass


@dataclass(frozen=True, slots=True)
class GateEvents:
    """What others want to hear of the gate; called in passing, so they must not take time."""

    on_hello: Callable[[PeerId, int], None] = _ignore
    """A peer that is in has the revocation list of this epoch."""
    on_rejected: Callable[[PeerId], None] = _ignore
    """A peer says that we have no place in the swarm; it may be wrong, or lie."""


class SwarmGate:
    """Implements `protocols.ports.Gate` over a policy."""

    def __init__(self, policy: Policy, clock: Clock, events: GateEvents | None = None) -> None:
        self._policy = policy
        self._clock = clock
        self._events = events or GateEvents()
        self._transport: Transport | None = None
        self._settled: OrderedDict[PeerId, Hello] = OrderedDict()
        """Who let us in, and on the strength of which hello."""
        self._failed = Refusals()
        self._turned_away = Refusals()
        self._checks = TokenBucket(clock.monotonic())
        self._turns: WeakValueDictionary[PeerId, asyncio.Lock] = WeakValueDictionary()

    def __repr__(self) -> str:
        return f"<SwarmGate {self._policy.book!r} settled={len(self._settled)}>"

    async def attach(self, transport: Transport) -> None:
        """See `protocols.ports.Gate`."""
        self._transport = transport
        await transport.serve(versions.HELLO, self._answer)

    def admits(self, peer: PeerId, protocol: str) -> bool:
        """See `protocols.ports.Gate`."""
        if protocol in access.OPEN:
            return True
        asked = access.TABLE.get(protocol)
        if asked is None:
            return False
        return not asked.callers.isdisjoint(self._policy.roles(peer, self._clock.now()))

    def allowance(self, peer: PeerId) -> Allowance:
        """See `protocols.ports.Gate`."""
        return self._policy.allowance(peer, self._clock.now())

    async def greet(self, peer: PeerId, protocol: str) -> None:
        """See `protocols.ports.Gate`. What failed is not tried again for 1 s, growing to 60 s."""
        if protocol in access.OPEN:
            return
        asked = access.TABLE.get(protocol)
        if asked is None:
            raise NotAdmitted(f"{protocol[:64]} is closed to everybody")
        if not self._is_settled(peer):
            await self._settle(peer)
        if asked.servers.isdisjoint(self._policy.roles(peer, self._clock.now())):
            raise NotAdmitted(f"{peer} has no role in the swarm that serves {protocol}")

    def forget(self, peer: PeerId) -> None:
        """See `protocols.ports.Gate`."""
        self._settled.pop(peer, None)

    def peers(self) -> tuple[PeerId, ...]:
        """Everybody who is in."""
        return self._policy.peers(self._clock.now())

    def sweep(self) -> tuple[PeerId, ...]:
        """Who has lost its place since the last call: drop them from the transport, now.

        Call it when delegations, revocations or certificates changed, and every few seconds.
        """
        gone = self._policy.expel(self._clock.now())
        for peer in gone:
            self._settled.pop(peer, None)
        return gone

    async def regreet(self) -> None:
        """Our credential is a new one: show it to all who let us in on the strength of the old.

        Whom this does not reach is greeted before the next call.
        """
        self._failed.clear_all()
        waiting = [peer for peer in self._settled if not self._is_settled(peer)]

        async def work() -> None:
            while waiting:
                with suppress(DslmError):
                    await self._settle(waiting.pop())

        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(REGREETINGS_AT_ONCE, len(waiting))):
                tasks.create_task(work())

    # Asking ---------------------------------------------------------------------------------

    def _is_settled(self, peer: PeerId) -> bool:
        """Whether `peer` has seen what we would show it now, and we know who it is."""
        now = self._clock.now()
        shown = self._settled.get(peer)
        if shown is None or not self._policy.roles(peer, now):
            return False
        try:
            ours = self._policy.hello(now)
        except NotAdmitted:
            return False
        return (shown.credential, shown.proof) == (ours.credential, ours.proof)

    async def _settle(self, peer: PeerId) -> None:
        """Exchange hellos, unless somebody else is at it or it failed just now."""
        turn = self._turns.setdefault(peer, asyncio.Lock())
        async with turn:
            if self._is_settled(peer):
                return
            failure = self._failed.standing(peer, self._clock.monotonic())
            if failure is not None:
                raise failure
            ours = self._policy.hello(self._clock.now())
            try:
                await self._exchange(peer, ours)
            except TransportDown:
                raise
            except DslmError as error:
                seconds_max = SECONDS_FIRST if isinstance(error, NetworkError) else SECONDS_MAX
                self._failed.add(peer, error, self._clock.monotonic(), seconds_max)
                raise

    async def _exchange(self, peer: PeerId, ours: Hello) -> None:
        if self._transport is None:
            raise TransportDown("the gate has no transport yet")
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                stream = await self._transport.open_stream(peer, versions.HELLO)
                try:
                    theirs = await self._show(stream, ours)
                finally:
                    stream.abort()
        except TimeoutError:
            raise PeerUnreachable(f"{peer} did not answer a hello") from None
        self._keep(peer, ours)
        self._events.on_hello(peer, theirs.epoch)

    async def _show(self, stream: Stream, ours: Hello) -> Hello:
        """Our hello for theirs; whoever they are, they were let in when this returns."""
        channel: Channel[HelloMessage] = Channel(stream, HelloMessage, header_max=HELLO_BYTES_MAX)
        await channel.send(ours)
        theirs = await channel.receive()
        if theirs is None:
            raise PeerLost(f"{stream.peer} ended the stream without a hello")
        if isinstance(theirs, Rejected):
            self._events.on_rejected(stream.peer)
            raise NotAdmitted(f"{stream.peer} does not let us in: {theirs.reason or 'no reason'}")
        try:
            self._policy.admit(stream.peer, theirs, self._clock.now())
        except NotAdmitted as error:
            await channel.send(Rejected(_told(error)))
            await stream.close()
            raise NotAdmitted(f"{stream.peer} has no place in the swarm: {error}") from error
        await stream.close()
        return theirs

    def _keep(self, peer: PeerId, ours: Hello) -> None:
        self._settled[peer] = ours
        self._settled.move_to_end(peer)
        self._failed.clear(peer)
        if len(self._settled) > SETTLED_MAX:
            self._settled.popitem(last=False)

    # Answering ------------------------------------------------------------------------------

    async def _answer(self, stream: Stream) -> None:
        channel: Channel[HelloMessage] = Channel(stream, HelloMessage, header_max=HELLO_BYTES_MAX)
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                theirs = await channel.receive()
                reply = self._judge(stream.peer, theirs)
                await channel.send(reply)
                if isinstance(reply, Hello) and isinstance(theirs, Hello):
                    self._events.on_hello(stream.peer, theirs.epoch)
                    await self._hear_out(channel, reply)
                await stream.close()
        except (TimeoutError, NetworkError, ProtocolError):
            stream.abort()

    def _judge(self, peer: PeerId, theirs: HelloMessage | None) -> Hello | Rejected:
        """Our answer to `theirs`; a hello of ours means that `peer` is in from now on."""
        if not isinstance(theirs, Hello):
            raise ProtocolError("a hello begins with a hello")
        now = self._clock.now()
        if not self._policy.roles(peer, now):
            if self._turned_away.standing(peer, self._clock.monotonic()) is not None:
                return Rejected("too soon after the last time")
            if not self._may_check():
                return Rejected("too many at the door")
        try:
            ours = self._policy.hello(now)
        except NotAdmitted:
            return Rejected(_NO_PLACE)
        try:
            self._policy.admit(peer, theirs, now)
        except NotAdmitted as error:
            self._turned_away.add(peer, error, self._clock.monotonic(), SECONDS_MAX)
            return Rejected(_told(error))
        self._turned_away.clear(peer)
        self._failed.clear(peer)
        return ours

    def _may_check(self) -> bool:
        return self._checks.take(CHECKS, self._clock.monotonic())

    async def _hear_out(self, channel: Channel[HelloMessage], ours: Hello) -> None:
        """An orderly end says that we were let in as well."""
        if await channel.receive() is None:
            self._keep(channel.stream.peer, ours)


_NO_PLACE = "no place in this swarm"


def _told(error: NotAdmitted) -> str:
    """What a peer may know of why it was turned away: a stranger, nothing."""
    return _NO_PLACE if isinstance(error, NotProven) else str(error)[:200]
