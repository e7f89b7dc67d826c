"""`/dslm/swarm/1`: members tell each other who may issue certificates and who was revoked.

Knows the exchange, when it is due and what follows from news; what counts as later is the book's
business, who is let in the gate's.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random

from protocols import limits, versions
from protocols.channel import Channel
from protocols.errors import DslmError, NetworkError, PeerLost, ProtocolError
from protocols.gate import SwarmGate
from protocols.ids import PeerId
from protocols.membership.book import MemberBook
from protocols.messages.swarm import SwarmMessage, SwarmState
from protocols.ports import Clock, Stream, Transport

ROUND_SECONDS = 15.0
ROUND_PEERS = 3
SWEEP_SECONDS = 10.0
PUSH_PEERS = 32
"""Of larger swarms not everybody is told at once: those who are told tell others."""
EXCHANGE_SECONDS = 10.0
EXCHANGES_AT_ONCE = 16
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Savers:
    """Where what was learned is kept, so that a restart does not forget a revocation.

    Both raise a `DslmError` or `OSError` if it cannot be saved.
    """

    save_delegations: Callable[[tuple[bytes, ...]], None]
    save_revocations: Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class GossipParts:
    """What gossip stands on. `rng` picks whom to tell."""

    book: MemberBook
    transport: Transport
    gate: SwarmGate
    clock: Clock
    rng: Random
    savers: Savers


class Gossip:
    """Spreads the owner's words among members, and cuts off whom they name."""

    def __init__(self, parts: GossipParts) -> None:
        self._book = parts.book
        self._transport = parts.transport
        self._gate = parts.gate
        self._clock = parts.clock
        self._rng = parts.rng
        self._savers = parts.savers
        self._kept = (self._book.delegations(), self._book.revocations_bytes)
        self._wanted: dict[PeerId, None] = {}
        self._is_wanted = asyncio.Event()

    async def serve(self) -> None:
        """Answer the protocol from now on."""
        await self._transport.serve(versions.SWARM, self._answer)

    async def run(self) -> None:
        """Sweep every 10 s, tell three random members every 15 s, and whoever is to be told now."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._sweep_for_ever())
            if not self._book.charter.owner:
                return  # nobody can say anything that would have to be spread
            tasks.create_task(self._tell_some_for_ever())
            for _ in range(EXCHANGES_AT_ONCE):
                tasks.create_task(self._work())

    def heard(self, peer: PeerId, epoch: int) -> None:
        """`peer` has said in its hello which revocation list it has."""
        if epoch != self._book.epoch and self._book.charter.owner:
            self._want((peer,))

    async def settle(self) -> None:
        """Act on whatever the book has learned: cut off, save, tell. Call it after a change."""
        await self._cut_off(self._gate.sweep())
        delegations, revocations = self._book.delegations(), self._book.revocations_bytes
        before, self._kept = self._kept, (delegations, revocations)
        if before == self._kept:
            return
        try:
            if before[1] != revocations:
                self._savers.save_revocations(revocations)
            if before[0] != delegations:
                self._savers.save_delegations(delegations)
        except (OSError, DslmError) as error:
            _log.error("what the swarm's owner said cannot be saved: %s", error)
            self._kept = before  # the next sweep tries again
        self._want(self._some(PUSH_PEERS))

    async def exchange(self, peer: PeerId) -> None:
        """Bring `peer` and us to the same state. The transport's errors, `ProtocolError`, or
        `TimeoutError` after 10 s."""
        async with asyncio.timeout(EXCHANGE_SECONDS):
            stream = await self._transport.open_stream(peer, versions.SWARM)
            try:
                await self._tell(Channel(stream, SwarmMessage))
                await stream.close()
            finally:
                stream.abort()

    # ----------------------------------------------------------------------------------------

    async def _tell(self, channel: Channel[SwarmState]) -> None:
        await channel.send(SwarmState(self._book.epoch, self._book.delegations()))
        theirs = await channel.receive()
        if theirs is None:
            raise PeerLost(f"{channel.stream.peer} ended the stream without its state")
        if theirs.epoch < self._book.epoch:
            list_ = self._book.revocations_bytes
            await channel.send(SwarmState(self._book.epoch, revocations=list_))
        await self._take(theirs)

    async def _answer(self, stream: Stream) -> None:
        channel: Channel[SwarmState] = Channel(stream, SwarmMessage)
        try:
            async with asyncio.timeout(limits.FIRST_MESSAGE_SECONDS):
                theirs = await channel.receive()
            if theirs is None:
                return
            async with asyncio.timeout(EXCHANGE_SECONDS):
                await self._reply(channel, theirs)
                await stream.close()
        except (TimeoutError, NetworkError, ProtocolError):
            stream.abort()

    async def _reply(self, channel: Channel[SwarmState], theirs: SwarmState) -> None:
        ours, is_later = self._book.epoch, theirs.epoch > self._book.epoch
        list_ = self._book.revocations_bytes if ours > theirs.epoch else b""
        await channel.send(SwarmState(ours, self._book.delegations(), list_))
        await self._take(theirs)
        if is_later:
            last = await channel.receive()
            if last is not None:
                await self._take(last)

    async def _take(self, state: SwarmState) -> None:
        """Learn from `state`; `RecordError` if anything in it is not the owner's word."""
        now = self._clock.now()
        is_news = False
        try:
            if state.revocations:
                is_news = self._book.offer_revocations(state.revocations)
            for delegation in state.delegations:
                is_news = self._book.offer_delegation(delegation, now) or is_news
        finally:
            if is_news:
                await self.settle()

    def _some(self, count: int) -> list[PeerId]:
        me = self._transport.peer_id
        others = [peer for peer in self._gate.peers() if peer != me]
        return self._rng.sample(others, min(count, len(others)))

    def _want(self, peers: tuple[PeerId, ...] | list[PeerId]) -> None:
        self._wanted.update(dict.fromkeys(peers))
        self._is_wanted.set()

    async def _work(self) -> None:
        while True:
            if not self._wanted:
                self._is_wanted.clear()
                await self._is_wanted.wait()
                continue
            peer = next(iter(self._wanted))
            del self._wanted[peer]
            try:
                await self.exchange(peer)
            except (DslmError, TimeoutError) as error:
                _log.debug("no exchange with %s: %s", peer, error)

    async def _tell_some_for_ever(self) -> None:
        while True:
            await asyncio.sleep(ROUND_SECONDS * self._rng.uniform(0.8, 1.0))
            self._want(self._some(ROUND_PEERS))

    async def _sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            await self.settle()

    async def _cut_off(self, peers: tuple[PeerId, ...]) -> None:
        async def cut(peer: PeerId) -> None:
            with suppress(DslmError):
                await self._transport.drop(peer)

        async with asyncio.TaskGroup() as tasks:
            for peer in peers:
                _log.info("%s has no place in the swarm any more and is cut off", peer)
                tasks.create_task(cut(peer))
