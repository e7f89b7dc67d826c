"""The `RecordStore` port over hivemind's `DHTNode`, behind the guard.

Knows the DHT node's calls and deadlines, and at which places a key lies; must not know what
records say. A value that its publisher signed for its key is preferred to all others.
"""

import asyncio
import random
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hivemind.dht.routing import DHTID
from hivemind.p2p import PeerID
from hivemind.utils import MSGPackSerializer

from protocols import limits
from protocols.adapters.libp2p.daemon import Daemon
from protocols.adapters.libp2p.guard import GuardedP2P, node_id_of
from protocols.adapters.libp2p.places import BEAM, COPIES, Choice, place_of, places_of
from protocols.adapters.libp2p.search import Around, Entry, Search, SearchNode, Wanted
from protocols.adapters.libp2p.table import RecordTable
from protocols.adapters.libp2p.verdict import Judge, publisher_of, unwrap
from protocols.errors import DeadlineExceeded, RecordError, TransportDown
from protocols.ids import PeerId, parse_peer_id
from protocols.ports import Clock, StoredValue

CALL_SECONDS = 2.0
"""One question to one peer."""
SEARCH_SECONDS = 6.0
"""After this a search goes on with what it has."""
PUT_SECONDS = 11.0
JOIN_SECONDS = 3.0
"""Looking around when we join, after greeting whom we were told of."""
WORKERS_PER_PLACE = 10
"""Questions on their way at a time; more than the attackers who could keep us waiting there."""
WORKERS_FIRST = 4
"""The same while one place alone is tried, ..."""
FIRST_SECONDS = 1.0
"""... for so long."""
TRIES_PER_COPY = 2
"""Peers asked to keep one copy, when the first refuses or does not answer."""
EXPLORED_AT_JOIN = 3
"""Random points around which a peer that joins looks for others, besides its own id."""
SUFFICIENT_SECONDS = 30.0
"""Who reads a record looks again when it has less than this to live."""
AROUND_SECONDS = 120.0
"""For so long a publisher goes back to the same peers, without asking around again ..."""
GROWTH_MAX = 1.25
"""... unless it has met so many more peers since ..."""
AROUND_KEYS_MAX = 512
"""... for so many keys."""
_ID_BITS = 160


@dataclass(frozen=True, slots=True)
class _Known:
    """Whom a search found while we knew so many `neighbours`, and until when that is good."""

    peers: Around
    neighbours: int
    until: float


class Libp2pRecords:
    """The swarm's table of records, and our share of it."""

    def __init__(
        self,
        peer_id: PeerId,
        clock: Clock,
        *,
        guard: GuardedP2P | None = None,
        table_bytes_max: int = limits.DHT_TABLE_BYTES_MAX,
        rng: random.Random | None = None,
    ) -> None:
        self._clock = clock
        self._guard = guard or GuardedP2P(PeerID.from_base58(peer_id), clock)
        self._rng = rng or random.SystemRandom()
        self._own_id = DHTID.from_bytes(node_id_of(self._guard.peer_id))
        self._judge = Judge()
        self._table = RecordTable(clock, table_bytes_max, own_id=self._own_id, judge=self._judge)
        self._choice = Choice(self._rng)
        self._known_around: OrderedDict[str, _Known] = OrderedDict()
        self._node: SearchNode | None = None

    def __repr__(self) -> str:
        return f"<Libp2pRecords {self._table}>"

    async def put(self, key: str, subkey: str, value: bytes, expires_at: float) -> bool:
        """Store with some of the peers around each place of `key`; whether any took it.

        `RecordError` for a value that no peer would take: too large, or living for over an hour.
        """
        self._check(subkey, value, expires_at)
        node = self._ready_node()
        if expires_at <= self._clock.now():
            return False
        stored: bytes = MSGPackSerializer.dumps(value)
        is_ours = self._table.store_subkey(place_of(key, 0), subkey, stored, expires_at)
        try:
            async with asyncio.timeout(PUT_SECONDS):
                around = await self._around(node, key)
                if not any(around.values()):
                    return is_ours
                started: set[asyncio.Task[bool]] = set()
                taken = await asyncio.gather(
                    *(
                        self._store(node, place, (subkey, stored, expires_at), candidates, started)
                        for place, peers in around.items()
                        for candidates in [self._candidates(place, peers)]
                        for _ in range(min(COPIES // len(around), len(peers)))
                    )
                )
                is_taken = any(taken) or await _first_true(started)
        except TimeoutError:
            self._known_around.pop(key, None)
            raise DeadlineExceeded(f"storing took over {PUT_SECONDS:.0f} s") from None
        if not all(taken):
            self._known_around.pop(key, None)
        return is_taken

    async def get(self, key: str) -> Mapping[str, StoredValue]:
        """All values found around the places of `key`, the best of each subkey.

        Best is what its publisher signed for this key, then what lives longest. Under a key that
        names its publisher, a genuine record that lives for `SUFFICIENT_SECONDS` more ends the
        search. When time runs out, what was found until then; `DeadlineExceeded` if nothing was.
        """
        node = self._ready_node()
        places = places_of(key, self.neighbours())
        search = Search(self._judge, self._wanted(key))
        for place in places:
            for subkey, kept in self._table.peek(place).items():
                search.offer(subkey, kept)
        if publisher_of(key) is not None and not search.is_over:
            search = await self._try_one(node, search, places)
        if not search.is_over:
            await self._look(node, search, places, WORKERS_PER_PLACE * len(places))
            await search.wait_for_late()
        if search.is_cut_short and not search.best:
            raise DeadlineExceeded(f"the search took over {SEARCH_SECONDS:.0f} s")
        return dict(_alive(search, self._clock.now()))

    async def attach(self, daemon: Daemon) -> None:
        """Take part in the DHT through `daemon`; records and neighbours are kept from before."""
        await self._guard.attach(daemon.p2p._client.control)
        if self._node is None:
            self._node = await SearchNode.create(
                p2p=self._guard,
                node_id=self._own_id,
                bucket_size=limits.DHT_NEIGHBOURS_MAX,
                wait_timeout=CALL_SECONDS,
                cache_locally=False,
                cache_nearest=0,
                cache_on_store=False,
                cache_refresh_before_expiry=0,
                reuse_get_requests=False,
            )
            self._node.prepare(self._clock)
            self._node.protocol.storage = self._table

    def detach(self) -> None:
        """The daemon is gone: refuse calls until the next one is attached."""
        self._guard.detach()

    async def close(self) -> None:
        """Leave the DHT."""
        self._guard.detach()
        if self._node is not None:
            node, self._node = self._node, None
            await node.close()

    async def meet(self, peers: Iterable[PeerId]) -> None:
        """Exchange neighbours with peers that are connected already.

        We look around our own id and around random points, so that no one peer, and none that
        made itself our neighbour, decides whom we know.
        """
        node = self._ready_node()
        remotes = [PeerID.from_base58(peer) for peer in peers]
        points = [self._own_id]
        points += [DHTID(self._rng.getrandbits(_ID_BITS)) for _ in range(EXPLORED_AT_JOIN)]
        await asyncio.gather(*(node.ping(remote) for remote in remotes))
        await self._look(node, Search(self._judge), points, WORKERS_PER_PLACE, JOIN_SECONDS)

    def neighbours(self) -> int:
        """How many other peers of the table we know."""
        return len(self._node.protocol.routing_table.peer_id_to_uid) if self._node else 0

    def _wanted(self, key: str) -> Wanted | None:
        publisher = publisher_of(key)
        return Wanted(publisher, self._clock.now() + SUFFICIENT_SECONDS) if publisher else None

    async def _around(self, node: SearchNode, key: str) -> Around:
        """The peers around each place of `key`; remembered, because records are renewed often."""
        now, neighbours = self._clock.monotonic(), self.neighbours()
        known = self._known_around.get(key)
        if known and now < known.until and neighbours <= GROWTH_MAX * known.neighbours:
            return known.peers
        places = places_of(key, neighbours)
        peers = await self._look(node, Search(self._judge), places, WORKERS_PER_PLACE * len(places))
        self._known_around[key] = _Known(peers, self.neighbours(), now + AROUND_SECONDS)
        self._known_around.move_to_end(key)
        if len(self._known_around) > AROUND_KEYS_MAX:
            self._known_around.popitem(last=False)
        return peers

    async def _try_one(self, node: SearchNode, search: Search, places: Sequence[DHTID]) -> Search:
        """Look around one of the places, with few questions at a time: mostly that is enough.

        The search with which to go on; it is over when no other place is worth a look.
        """
        place = self._rng.choice(places)
        await self._look(node, search, [place], WORKERS_FIRST, FIRST_SECONDS)
        if len(places) == 1:
            await search.wait_for_late()
        if search.is_enough or (len(places) == 1 and not search.is_cut_short):
            search.stop()
            return search
        return search.resumed()

    async def _look(
        self,
        node: SearchNode,
        search: Search,
        places: Sequence[DHTID],
        workers: int,
        seconds: float = SEARCH_SECONDS,
    ) -> Around:
        """Search, and when time is up go on with what was found until then."""
        deadline = asyncio.get_running_loop().call_later(seconds, search.cut_short)
        try:
            return await node.look(search, places, BEAM, workers)
        finally:
            deadline.cancel()

    def _candidates(self, place: DHTID, peers: Sequence[PeerID]) -> Iterator[PeerID]:
        """The peers to be asked to keep a record, first choice first."""
        ids = [peer.to_bytes() for peer in peers]
        order = self._choice.order(place, ids, self._clock.monotonic())
        return iter([peers[index] for index in order])

    async def _store(
        self,
        node: SearchNode,
        place: DHTID,
        entry: Entry,
        candidates: Iterator[PeerID],
        started: "set[asyncio.Task[bool]]",
    ) -> bool:
        """Place one copy with the next of the candidates that takes it; whether one has.

        Who takes too long is left to it, and the next is asked besides.
        """
        for _ in range(TRIES_PER_COPY):
            peer = next((peer for peer in candidates if peer not in node.responses), None)
            if peer is None:
                return False
            call = node.start(node.store_with(place, entry, peer))
            started.add(call)
            done, _ = await asyncio.wait([call], timeout=node.responses.patience(peer))
            if done and not call.cancelled() and call.result():
                return True
        return False

    def _ready_node(self) -> SearchNode:
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


async def _first_true(calls: "set[asyncio.Task[bool]]") -> bool:
    """Whether one of `calls` ends well, as soon as one does."""
    while calls:
        done, calls = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        if any(not call.cancelled() and call.result() for call in done):
            return True
    return False


def _alive(search: Search, now: float) -> Iterator[tuple[str, StoredValue]]:
    for subkey, kept in search.best.items():
        value = unwrap(kept.value)
        if value is not None and kept.expires_at > now:
            yield subkey, StoredValue(value, kept.expires_at)
