"""The `RecordStore` port over hivemind's `DHTNode`, behind the guard.

Knows the DHT node's calls and deadlines; must not know what records say or whether they are true.
"""

import asyncio
from collections.abc import Iterable, Mapping

from hivemind.dht.node import DHTNode
from hivemind.dht.routing import DHTID
from hivemind.p2p import PeerID

from protocols import limits
from protocols.adapters.libp2p.daemon import Daemon
from protocols.adapters.libp2p.guard import GuardedP2P, node_id_of
from protocols.adapters.libp2p.table import RecordTable
from protocols.errors import DeadlineExceeded, RecordError, TransportDown
from protocols.ids import PeerId, parse_peer_id
from protocols.ports import Clock, StoredValue

CALL_SECONDS = 2.0
"""One question to one peer."""
GET_SECONDS = 10.0
PUT_SECONDS = 10.0
JOIN_SECONDS = 5.0
REPLICAS = 5
NEAREST = limits.DHT_NEIGHBOURS_MAX


class Libp2pRecords:
    """The swarm's table of records, and our share of it."""

    def __init__(self, peer_id: PeerId, clock: Clock) -> None:
        self._clock = clock
        self._guard = GuardedP2P(PeerID.from_base58(peer_id), clock)
        self._table = RecordTable(clock)
        self._node: DHTNode | None = None

    def __repr__(self) -> str:
        return f"<Libp2pRecords {self._table}>"

    async def put(self, key: str, subkey: str, value: bytes, expires_at: float) -> bool:
        """Store on the peers nearest to `key`; whether any took it.

        `RecordError` for a value that no peer would take: too large, or living for over an hour.
        """
        self._check(subkey, value, expires_at)
        node = self._ready_node()
        if expires_at <= self._clock.now():
            return False
        try:
            async with asyncio.timeout(PUT_SECONDS):
                return bool(await node.store(key, value, expires_at, subkey=subkey))
        except TimeoutError:
            raise DeadlineExceeded(f"storing took over {PUT_SECONDS:.0f} s") from None

    async def get(self, key: str) -> Mapping[str, StoredValue]:
        """All values that the peers nearest to `key` hold, the longest-lived of each subkey."""
        node = self._ready_node()
        try:
            async with asyncio.timeout(GET_SECONDS):
                found = await node.get(key, latest=True)
        except TimeoutError:
            raise DeadlineExceeded(f"the search took over {GET_SECONDS:.0f} s") from None
        if found is None or not isinstance(found.value, dict):
            return {}
        now = self._clock.now()
        return {
            subkey: StoredValue(item.value, item.expiration_time)
            for subkey, item in found.value.items()
            if item.expiration_time > now and isinstance(item.value, bytes)
        }

    async def attach(self, daemon: Daemon) -> None:
        """Take part in the DHT through `daemon`; records and neighbours are kept from before."""
        await self._guard.attach(daemon.p2p._client.control)
        if self._node is None:
            self._node = await DHTNode.create(
                p2p=self._guard,
                node_id=DHTID.from_bytes(node_id_of(self._guard.peer_id)),
                bucket_size=NEAREST,
                num_replicas=REPLICAS,
                wait_timeout=CALL_SECONDS,
                cache_locally=False,
                cache_nearest=0,
                cache_on_store=False,
                cache_refresh_before_expiry=0,
                reuse_get_requests=False,
                blacklist_time=1.0,
            )
            self._node.protocol.storage = self._table

    def detach(self) -> None:
        """The daemon is gone: refuse calls until the next one is attached."""
        self._guard.detach()

    async def close(self) -> None:
        """Leave the DHT."""
        self._guard.detach()
        if self._node is not None:
            self._node.is_alive = False
            self._node = None

    async def meet(self, peers: Iterable[PeerId]) -> None:
        """Exchange neighbours with peers that are connected already."""
        node = self._ready_node()
        remotes = [PeerID.from_base58(peer) for peer in peers]
        try:
            async with asyncio.timeout(JOIN_SECONDS):
                await asyncio.gather(*(node.protocol.call_ping(remote) for remote in remotes))
                await node.find_nearest_nodes([node.node_id])
        except TimeoutError:
            return  # whoever answered is known by now

    def neighbours(self) -> int:
        """How many other peers of the table we know."""
        return len(self._node.protocol.routing_table.peer_id_to_uid) if self._node else 0

    def _ready_node(self) -> DHTNode:
        if self._node is None or not self._guard.is_attached:
            raise TransportDown("the network daemon is down; it is being restarted")
        return self._node

    def _check(self, subkey: str, value: bytes, expires_at: float) -> None:
        parse_peer_id(subkey)
        if len(value) > limits.RECORD_BYTES_MAX:
            raise RecordError(f"a record has at most {limits.RECORD_BYTES_MAX} bytes")
        latest = self._clock.now() + limits.RECORD_LIFETIME_SECONDS_MAX
        if not expires_at <= latest + limits.CLOCK_SKEW_SECONDS_MAX:
            raise RecordError("a record lives for an hour at most")
