"""The memory network itself: who is there, who reaches whom, and what befalls them.

Knows peers, connections and faults; must not know what the streams carry. Everything it draws
comes from one generator, so one seed on a virtual loop gives one history.
"""

import asyncio
import random
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from types import TracebackType

from protocols import access, admission
from protocols.adapters.memory.conditions import Conditions
from protocols.adapters.memory.pipe import Pipe
from protocols.adapters.memory.records import MemoryRecords, RecordTable, place_of
from protocols.adapters.memory.signal import Signal
from protocols.adapters.memory.stream import MemoryStream
from protocols.adapters.memory.transport import MemoryTransport
from protocols.errors import (
    DslmError,
    NetworkError,
    PeerLost,
    PeerUnreachable,
    Refused,
    TransportDown,
)
from protocols.ids import PeerId
from protocols.ports import Clock, Gate
from protocols.signing import Identity


@dataclass(frozen=True, slots=True)
class MemoryPeer:
    """What a node gets by joining: its two ports."""

    peer_id: PeerId
    transport: MemoryTransport
    records: MemoryRecords


@dataclass(frozen=True, slots=True)
class _Link:
    network: "MemoryNetwork"
    source: PeerId
    target: PeerId

    def latency(self) -> float:
        return self.network.latency(self.source, self.target)

    def is_flowing(self) -> bool:
        return self.network.is_flowing(self.source, self.target)


class MemoryNetwork:
    """Use it as an async context manager: it owns the tasks of all stream handlers.

    `defects` holds what handlers raised that was no `DslmError`: a test should find it empty.
    """

    def __init__(self, seed: int, clock: Clock, conditions: Conditions | None = None) -> None:
        self._rng = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._clock = clock
        self._conditions = conditions or Conditions()
        self._peers: dict[PeerId, MemoryTransport] = {}
        self._tables: dict[PeerId, RecordTable] = {}
        self._islands: dict[PeerId, int] = {}
        self._partitions = 0
        self._base_delays: dict[tuple[PeerId, PeerId], float] = {}
        self._connections: dict[tuple[PeerId, PeerId], None] = {}
        self._streams: dict[MemoryStream, PeerId] = {}
        self._places: dict[PeerId, int] = {}
        self._nearest: dict[str, list[PeerId]] = {}
        self._flow_changed = Signal()
        self._group = asyncio.TaskGroup()
        self.defects: list[Exception] = []

    async def __aenter__(self) -> "MemoryNetwork":
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for transport in list(self._peers.values()):
            self.leave(transport)
        # The body's error is its own: passed on here, the group would wrap it.
        await self._group.__aexit__(None, None, None)

    # Membership -----------------------------------------------------------------------------

    def join(self, identity: Identity, gate: Gate | None = None) -> MemoryPeer:
        """A new peer, or a dead one started again with nothing remembered.

        `gate` is attached before the first use of the peer's transport.
        """
        me = identity.peer_id
        if me in self._peers:
            raise ValueError(f"{me} is in the network already")
        transport = MemoryTransport(me, self, gate)
        self._peers[me] = transport
        self._tables[me] = RecordTable()
        self._places[me] = place_of(me)
        self._nearest.clear()
        return MemoryPeer(me, transport, MemoryRecords(me, self, self._clock))

    def peers(self) -> tuple[PeerId, ...]:
        """Who is alive, frozen ones included."""
        return tuple(self._peers)

    def kill(self, peer: PeerId) -> None:
        """The process of `peer` ends at once: streams break, handlers are cancelled."""
        self.leave(self._peers[peer])

    def leave(self, transport: MemoryTransport) -> None:
        """Take a peer out; harmless when it is out already."""
        if not transport.is_open:
            return
        me = transport.peer_id
        transport.is_open = False
        del self._peers[me], self._tables[me], self._places[me]
        self._nearest.clear()
        for stream in [stream for stream, owner in self._streams.items() if owner == me]:
            stream.reset(TransportDown("this peer's transport is closed"))
        for pair in [pair for pair in self._connections if me in pair]:
            del self._connections[pair]
        for task in transport.tasks:
            task.cancel()
        transport.freezer.thaw()
        self._flow_changed.fire()

    def drop(self, me: PeerId, peer: PeerId) -> None:
        """End what there is between two peers, as `me` wants it."""
        for stream, owner in list(self._streams.items()):
            if owner == me and stream.peer == peer:
                stream.reset(PeerLost("the peer was dropped at this end"))
        self._connections.pop(_pair(me, peer), None)

    # Faults ---------------------------------------------------------------------------------

    def freeze(self, peer: PeerId) -> None:
        """`peer` stands still as after SIGSTOP: its connections live, nothing moves."""
        self._peers[peer].freezer.is_frozen = True

    def thaw(self, peer: PeerId) -> None:
        """`peer` goes on, with all that was sent to it in the meantime."""
        self._peers[peer].freezer.thaw()
        self._let_flow()

    def partition(self, *groups: Iterable[PeerId]) -> None:
        """Nothing passes between the groups, nor between them and everybody else."""
        self._islands = {peer: n for n, group in enumerate(groups, start=1) for peer in group}
        self._partitions += 1
        asyncio.get_running_loop().call_later(
            self._conditions.dead_after, self._give_up_connections, self._partitions
        )
        self._let_flow()

    def heal(self) -> None:
        """Everybody reaches everybody again; what was held back arrives."""
        self._islands = {}
        self._partitions += 1
        self._let_flow()

    # Ways between peers ---------------------------------------------------------------------

    def latency(self, source: PeerId, target: PeerId) -> float:
        """Seconds for the next delivery from `source` to `target`."""
        pair = _pair(source, target)
        base = self._base_delays.get(pair)
        if base is None:
            base = self._rng.uniform(self._conditions.delay_min, self._conditions.delay_max)
            self._base_delays[pair] = base
        return base * (1 + self._conditions.jitter * self._rng.random())

    def is_flowing(self, source: PeerId, target: PeerId) -> bool:
        """Whether what `source` has sent reaches `target` now."""
        transport = self._peers.get(target)
        is_frozen = transport is not None and transport.freezer.is_frozen
        return not is_frozen and not self._are_apart(source, target)

    def are_connected(self, one: PeerId, other: PeerId) -> bool:
        """Whether a connection stands, in either direction."""
        return _pair(one, other) in self._connections

    async def dial(self, caller: MemoryTransport, peer: PeerId) -> None:
        """Make a connection, or keep the one there is."""
        me = caller.peer_id
        if peer == me:
            raise PeerUnreachable("that address is this peer itself")
        if self.are_connected(me, peer):
            return
        if self._rng.random() < self._conditions.dial_loss:
            await asyncio.sleep(self._conditions.dial_timeout)
            raise PeerUnreachable(f"no answer from {peer}")
        await self._round_trip(caller, peer)
        self._connections[_pair(me, peer)] = None

    async def open_stream(
        self, caller: MemoryTransport, peer: PeerId, protocol: str
    ) -> MemoryStream:
        """Open a stream on a connection and start the handler at the other end."""
        target = await self._round_trip(caller, peer)
        if protocol not in target.handlers:
            raise PeerUnreachable(f"{peer} does not speak {protocol}")
        near, far = self._make_streams(caller, target)
        if protocol not in access.OPEN:
            near.on_silence = partial(admission.forget, caller.gate, peer)
        task = self._group.create_task(self._handle(target, protocol, far))
        target.tasks[task] = None
        task.add_done_callback(lambda done: target.tasks.pop(done, None))
        return near

    async def reach(self, me: PeerId, key: str, protocol: str) -> list[RecordTable]:
        """See `protocols.adapters.memory.records.Replicas`; a table may be our own."""
        caller = self._transport_of(me)
        await caller.freezer.wait_thawed()
        await caller.wait_attached()
        found = self._reachable(me, self._by_distance(key))
        others = [peer for peer in found if peer != me]
        await asyncio.sleep(2 * self.latency(me, others[-1]) if others else 0.0)
        welcome = [me, *[peer for peer in others if await self._meet(caller, peer, protocol)]]
        self._transport_of(me)
        return [self._tables[peer] for peer in found if peer in welcome and peer in self._tables]

    # ----------------------------------------------------------------------------------------

    async def _meet(self, caller: MemoryTransport, peer: PeerId, protocol: str) -> bool:
        """Whether `peer` answers a record store call of ours; one that forgot us is greeted."""
        try:
            for _ in range(2):
                if caller.gate is not None and not self.are_connected(caller.peer_id, peer):
                    await self.dial(caller, peer)
                await admission.greet(caller.gate, peer, protocol)
                target = self._peers.get(peer)
                if target is None:
                    return False
                if admission.is_admitted(target.gate, caller.peer_id, protocol):
                    return True
                admission.forget(caller.gate, peer)
        except (NetworkError, Refused):
            return False
        return False

    def _reachable(self, me: PeerId, nearest: list[PeerId]) -> list[PeerId]:
        """The first few of `nearest` that `me` reaches."""
        count = self._conditions.replicas
        if not self._islands and not any(self._peers[p].freezer.is_frozen for p in nearest[:count]):
            return nearest[:count]
        found = (p for p in nearest if p == me or self.is_flowing(me, p))
        return list(islice(found, count))

    def _by_distance(self, key: str) -> list[PeerId]:
        nearest = self._nearest.get(key)
        if nearest is None:
            place = place_of(key)  # distance is XOR, as in Kademlia
            nearest = sorted(self._peers, key=lambda peer: self._places[peer] ^ place)
            self._nearest[key] = nearest
        return nearest

    def _transport_of(self, me: PeerId) -> MemoryTransport:
        if me not in self._peers:
            raise TransportDown("this peer's transport is closed")
        return self._peers[me]

    async def _round_trip(self, caller: MemoryTransport, peer: PeerId) -> MemoryTransport:
        """Ask and hear back; whom we reached."""
        me = caller.peer_id
        try:
            async with asyncio.timeout(self._conditions.dial_timeout):
                await asyncio.sleep(self.latency(me, peer))
                await self._flow_changed.wait_until(lambda: self.is_flowing(me, peer))
                await asyncio.sleep(self.latency(peer, me))
                await self._flow_changed.wait_until(lambda: self.is_flowing(peer, me))
        except TimeoutError as error:
            raise PeerUnreachable(f"no answer from {peer}") from error
        caller.check_open()
        if peer not in self._peers:
            raise PeerUnreachable(f"{peer} refuses the connection")
        return self._peers[peer]

    def _make_streams(
        self, caller: MemoryTransport, target: MemoryTransport
    ) -> tuple[MemoryStream, MemoryStream]:
        here, there = caller.peer_id, target.peer_id
        near, far = MemoryStream(there, caller.freezer), MemoryStream(here, target.freezer)
        lost = PeerLost("the other end broke the stream off")
        window = self._conditions.window
        out = Pipe(_Link(self, here, there), window, lambda: far.fail(lost))
        back = Pipe(_Link(self, there, here), window, lambda: near.fail(lost))
        near.attach(out, back, lambda: self._forget(near, far))
        far.attach(back, out, lambda: self._forget(near, far))
        self._streams[near], self._streams[far] = here, there
        if self._rng.random() < self._conditions.stream_loss:
            life = self._rng.uniform(0, self._conditions.stream_life_max)
            asyncio.get_running_loop().call_later(life, _break, near, far)
        return near, far

    def _forget(self, near: MemoryStream, far: MemoryStream) -> None:
        if near.is_over and far.is_over:
            self._streams.pop(near, None)
            self._streams.pop(far, None)

    async def _handle(self, target: MemoryTransport, protocol: str, stream: MemoryStream) -> None:
        try:
            if not admission.is_admitted(target.gate, stream.peer, protocol):
                return
            await target.handlers[protocol](stream)
            await stream.close()
        except DslmError:
            stream.abort()
        except Exception as error:  # noqa: BLE001 - a handler's defect ends its stream, no more
            self.defects.append(error)
            stream.abort()
        finally:
            stream.abort()

    def _are_apart(self, one: PeerId, other: PeerId) -> bool:
        islands = self._islands
        return bool(islands) and islands.get(one, 0) != islands.get(other, 0)

    def _let_flow(self) -> None:
        self._flow_changed.fire()
        for stream in list(self._streams):
            stream.release()

    def _give_up_connections(self, partition: int) -> None:
        if partition != self._partitions:
            return
        for pair in [pair for pair in self._connections if self._are_apart(*pair)]:
            del self._connections[pair]
        for stream, owner in list(self._streams.items()):
            if self._are_apart(owner, stream.peer):
                stream.fail(PeerLost("the connection timed out"))


def _pair(one: PeerId, other: PeerId) -> tuple[PeerId, PeerId]:
    return (one, other) if one < other else (other, one)


def _break(near: MemoryStream, far: MemoryStream) -> None:
    for stream in (near, far):
        stream.fail(PeerLost("the connection was reset"))
