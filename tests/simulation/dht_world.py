"""Real record stores (guard, hivemind's DHT node, table) in one process and in virtual time.

Only the daemon is a stand-in: `Wire` carries the bytes of unary calls from peer to peer, with a
delay each way. hivemind's own clock is set to the virtual one as well.
"""

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Protocol, cast
from unittest import mock

import base58
from hivemind.dht.node import DHTNode
from hivemind.dht.routing import DHTID
from hivemind.p2p import PeerID
from hivemind.p2p.p2p_daemon_bindings.utils import P2PDaemonError, P2PHandlerError

from protocols.adapters.libp2p.daemon import Daemon
from protocols.adapters.libp2p.guard import GuardedP2P, node_id_of
from protocols.adapters.libp2p.records import Libp2pRecords
from protocols.adapters.libp2p.table import RecordTable
from protocols.adapters.virtual import LoopClock
from protocols.ids import PeerId
from protocols.ports import RecordStore, StoredValue
from protocols.signing import Identity

UnaryHandler = Callable[[bytes, PeerID], Awaitable[bytes]]
DELAY_SECONDS = (0.005, 0.04)
BOOTSTRAPS = 3


class Wire:
    """Who serves what, and how many calls were made."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._handlers: dict[bytes, dict[str, UnaryHandler]] = {}
        self.calls = 0
        self.bytes = 0

    def serve(self, peer: PeerID, name: str, handler: UnaryHandler) -> None:
        self._handlers.setdefault(peer.to_bytes(), {})[name] = handler

    def remove(self, peer: PeerID, name: str) -> None:
        del self._handlers[peer.to_bytes()][name]

    def kill(self, peer: PeerID) -> None:
        del self._handlers[peer.to_bytes()]

    async def call(self, caller: PeerID, peer: PeerID, name: str, data: bytes) -> bytes:
        self.calls += 1
        await asyncio.sleep(self._rng.uniform(*DELAY_SECONDS))
        handler = self._handlers.get(peer.to_bytes(), {}).get(name)
        if handler is None:
            raise P2PDaemonError("nobody there")
        try:
            answer = await handler(data, caller)
        except Exception as error:  # what the daemon does with a handler that fails
            raise P2PHandlerError(repr(error)) from error
        self.bytes += len(data) + len(answer)
        await asyncio.sleep(self._rng.uniform(*DELAY_SECONDS))
        return answer


class Control:
    """hivemind's control client, as far as the guard uses it."""

    def __init__(self, wire: Wire, me: PeerID) -> None:
        self._wire = wire
        self._me = me

    async def add_unary_handler(self, name: str, handler: UnaryHandler) -> None:
        self._wire.serve(self._me, name, handler)

    async def remove_unary_handler(self, name: str) -> None:
        self._wire.remove(self._me, name)

    async def call_unary_handler(self, peer: PeerID, name: str, data: bytes) -> bytes:
        return await self._wire.call(self._me, peer, name, data)

    def as_daemon(self) -> Daemon:
        """What `Libp2pRecords.attach` wants."""
        return cast(
            "Daemon", SimpleNamespace(p2p=SimpleNamespace(_client=SimpleNamespace(control=self)))
        )


class Records(RecordStore, Protocol):
    """A record store that can be brought together with others."""

    async def attach(self, daemon: Daemon) -> None: ...

    async def meet(self, peers: Sequence[PeerId]) -> None: ...

    def neighbours(self) -> int: ...

    async def close(self) -> None: ...


class PlainRecords:
    """hivemind's settings as they are, with the guard on: one place, the nearest five keep."""

    def __init__(self, peer_id: PeerId, clock: LoopClock) -> None:
        self._clock = clock
        self._guard = GuardedP2P(PeerID.from_base58(peer_id), clock)

    async def attach(self, daemon: Daemon) -> None:
        await self._guard.attach(daemon.p2p._client.control)
        own_id = DHTID.from_bytes(node_id_of(self._guard.peer_id))
        self._node = await DHTNode.create(
            p2p=self._guard,
            node_id=own_id,
            wait_timeout=2.0,
            cache_locally=False,
            cache_nearest=0,
            cache_on_store=False,
            cache_refresh_before_expiry=0,
            reuse_get_requests=False,
            blacklist_time=1.0,
        )
        self._node.protocol.storage = RecordTable(self._clock)

    async def meet(self, peers: Sequence[PeerId]) -> None:
        remotes = [PeerID.from_base58(peer) for peer in peers]
        await asyncio.gather(*(self._node.protocol.call_ping(remote) for remote in remotes))
        await self._node.find_nearest_nodes([self._node.node_id])

    def neighbours(self) -> int:
        return len(self._node.protocol.routing_table.peer_id_to_uid)

    async def put(self, key: str, subkey: str, value: bytes, expires_at: float) -> bool:
        return bool(await self._node.store(key, value, expires_at, subkey=subkey))

    async def get(self, key: str) -> dict[str, StoredValue]:
        found = await self._node.get(key, latest=True)
        values = found.value if found is not None and isinstance(found.value, dict) else {}
        return {
            name: StoredValue(item.value, item.expiration_time) for name, item in values.items()
        }

    async def close(self) -> None:
        self._guard.detach()


@dataclass(frozen=True, slots=True)
class Honest:
    """A peer as dslm runs it, from its identity down to the wire."""

    identity: Identity
    records: Records

    @property
    def peer_id(self) -> PeerId:
        return self.identity.peer_id


class DhtWorld:
    """Make it inside a virtual loop, let peers join one after the other."""

    def __init__(self, seed: int, *, is_plain: bool = False) -> None:
        self.rng = random.Random(seed)
        self.clock = LoopClock()
        self.wire = Wire(self.rng)
        self.honest: list[Honest] = []
        self._is_plain = is_plain

    async def join(self, identity: Identity, bootstraps: Sequence[PeerId]) -> Honest:
        """One more honest peer, which knows `bootstraps` to begin with."""
        me = identity.peer_id
        records: Records
        if self._is_plain:
            records = PlainRecords(me, self.clock)
        else:
            records = Libp2pRecords(me, self.clock, rng=random.Random(self.rng.random()))
        await records.attach(Control(self.wire, PeerID.from_base58(me)).as_daemon())
        peer = Honest(identity, records)
        if bootstraps:
            await records.meet(bootstraps)
        self.honest.append(peer)
        return peer

    async def close(self) -> None:
        """Let what is under way end."""
        for peer in self.honest:
            await peer.records.close()
        await asyncio.sleep(5.0)


@contextmanager
def simulated_hivemind(clock: LoopClock) -> Iterator[None]:
    """hivemind goes by `clock` within, and remembers how it spelled the few peer ids there are."""
    with ExitStack() as stack:
        for name in ("b58encode", "b58decode"):
            remembered = functools.lru_cache(100_000)(getattr(base58, name))
            stack.enter_context(mock.patch.object(base58, name, remembered))
        for module in ("utils.timed_storage", "dht.node", "dht.protocol", "dht.routing"):
            stack.enter_context(mock.patch(f"hivemind.{module}.get_dht_time", clock.now))
        yield
