"""Attackers of the record store: identities ground to lie next to a key, and what they do there.

They know the design and each other, and answer in the protocol's own shapes, past the guard.
"""

import asyncio
import functools
import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hivemind.dht.routing import DHTID
from hivemind.p2p import PeerID
from hivemind.proto import dht_pb2

from protocols.adapters.libp2p.guard import Entry, node_id_of, pack_dictionary
from protocols.ids import PeerId
from protocols.signing import Identity
from tests.simulation.dht_world import DhtWorld

POOL = 20_000
"""Identities that the attackers ground; they use those nearest to their aims."""
NEIGHBOURS = 20
_PEER_PREFIX = bytes.fromhex("002408011220")
encode = msgspec.msgpack.encode


@functools.lru_cache(maxsize=4)
def grind(seed: int, size: int) -> tuple[tuple[int, bytes], ...]:
    """Ed25519 keys in numbers: the DHT id that each would have, and its seed."""
    rng, found = random.Random(seed), []
    for _ in range(size):
        private = rng.randbytes(32)
        public = Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
        digest = hashlib.sha1(_PEER_PREFIX + public, usedforsecurity=False).digest()
        found.append((int.from_bytes(digest, "big"), private))
    return tuple(found)


def nearest_identities(
    places: Sequence[DHTID], count: int, seed: int, pool: int = POOL
) -> list[Identity]:
    """`count` identities, spread over the places, as near to them as grinding got."""
    chosen: dict[bytes, None] = {}
    stocks = [iter(sorted(grind(seed, pool), key=lambda pair: pair[0] ^ place)) for place in places]
    turn = 0
    while len(chosen) < count:
        chosen[next(stocks[turn % len(stocks)])[1]] = None
        turn += 1
    return [Identity(private) for private in chosen]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What Sybils do besides taking records and dropping them, and naming only each other."""

    name: str
    forges: bool = False
    """Answer with, and store with honest peers, garbage and altered, stolen, misplaced records."""
    replays: bool = False
    """Answer with the oldest records they were given, and claim that these live longest."""
    stalls: bool = False
    """Do not answer lookups at all."""


SILENT = Behaviour("silent")
FORGING = Behaviour("forging", forges=True)
REPLAYING = Behaviour("replaying", replays=True)
STALLING = Behaviour("stalling", stalls=True)
BEHAVIOURS = (SILENT, FORGING, REPLAYING, STALLING)


@dataclass(slots=True)
class Loot:
    """Values that honest peers gave the Sybils to keep, the first of each place and publisher."""

    first: dict[tuple[bytes, str], Entry] = field(default_factory=dict)

    def take(self, request: dht_pb2.StoreRequest) -> None:
        columns = (request.keys, request.subkeys, request.values, request.expiration_time)
        for place, subkey, value, expires_at in zip(*columns, strict=True):
            name = msgspec.msgpack.decode(subkey, type=str)
            self.first.setdefault((place, name), Entry(name, value, expires_at))


class Sybils:
    """All attackers of a world, acting as one."""

    def __init__(
        self, world: DhtWorld, identities: Sequence[Identity], behaviour: Behaviour
    ) -> None:
        self._world = world
        self.behaviour = behaviour
        self._loot = Loot()
        self._ids: dict[int, PeerID] = {}
        self.identities = tuple(identities)
        for identity in identities:
            self._serve(identity)

    @property
    def peer_ids(self) -> tuple[PeerId, ...]:
        return tuple(identity.peer_id for identity in self.identities)

    async def greet(self, peers: Sequence[PeerId]) -> None:
        """Get into the routing tables of `peers`."""
        calls = [
            self._call(sybil, peer, "rpc_ping", dht_pb2.PingRequest(peer=_info(sybil)))
            for sybil in self._ids.values()
            for peer in peers
        ]
        await asyncio.gather(*calls)

    async def poison(self, peers: Sequence[PeerId], place: DHTID) -> None:
        """Store made-up values at `place` with honest peers, over those of honest publishers."""
        if not self.behaviour.forges or not self._ids:
            return
        sybil = next(iter(self._ids.values()))
        entries = self._made_up()
        request = dht_pb2.StoreRequest(
            keys=[place.to_bytes()] * len(entries),
            subkeys=[encode(entry.subkey) for entry in entries],
            values=[entry.value for entry in entries],
            expiration_time=[entry.expires_at for entry in entries],
            in_cache=[False] * len(entries),
            peer=_info(sybil),
        )
        await asyncio.gather(*(self._call(sybil, peer, "rpc_store", request) for peer in peers))

    def _serve(self, identity: Identity) -> None:
        me = PeerID.from_base58(identity.peer_id)
        self._ids[int.from_bytes(node_id_of(me), "big")] = me
        wire = self._world.wire

        async def ping(_data: bytes, _caller: PeerID) -> bytes:
            response = dht_pb2.PingResponse(peer=_info(me), available=True)
            return bytes(response.SerializeToString())

        async def store(data: bytes, _caller: PeerID) -> bytes:
            request = dht_pb2.StoreRequest.FromString(data)
            self._loot.take(request)
            response = dht_pb2.StoreResponse(store_ok=[True] * len(request.keys), peer=_info(me))
            return bytes(response.SerializeToString())

        async def find(data: bytes, _caller: PeerID) -> bytes:
            if self.behaviour.stalls:
                await asyncio.sleep(60.0)
            request = dht_pb2.FindRequest.FromString(data)
            response = dht_pb2.FindResponse(peer=_info(me))
            response.results.extend(self._answer(place) for place in request.keys)
            return bytes(response.SerializeToString())

        for name, handler in (("rpc_ping", ping), ("rpc_store", store), ("rpc_find", find)):
            wire.serve(me, f"DHTProtocol.{name}", handler)

    async def _call(
        self, sybil: PeerID, peer: PeerId, name: str, request: dht_pb2.PingRequest
    ) -> None:
        data, remote = request.SerializeToString(), PeerID.from_base58(peer)
        await self._world.wire.call(sybil, remote, f"DHTProtocol.{name}", data)

    def _answer(self, place: bytes) -> dht_pb2.FindResult:
        aim = int.from_bytes(place, "big")
        nearest = sorted(self._ids, key=lambda node_id: node_id ^ aim)[:NEIGHBOURS]
        result = dht_pb2.FindResult(
            type=dht_pb2.NOT_FOUND,
            nearest_node_ids=[node_id.to_bytes(20, "big") for node_id in nearest],
            nearest_peer_ids=[self._ids[node_id].to_bytes() for node_id in nearest],
        )
        entries: list[Entry] = []
        if self.behaviour.forges:
            entries = self._made_up()
        elif self.behaviour.replays:
            entries = self._old(place)
        if entries:
            result.type = dht_pb2.FOUND_DICTIONARY
            result.value = pack_dictionary(entries)
            result.expiration_time = max(entry.expires_at for entry in entries)
        return result

    def _old(self, place: bytes) -> list[Entry]:
        """The oldest of each publisher, as it was or with a longer life claimed for it."""
        entries = [entry for (at, _), entry in self._loot.first.items() if at == place]
        if self._world.rng.random() < 0.5:
            return entries
        return [Entry(entry.subkey, entry.value, self._late()) for entry in entries]

    def _made_up(self) -> list[Entry]:
        """For each publisher that they know, a lie of one kind or another."""
        rng, entries = self._world.rng, []
        for name in sorted({subkey for _, subkey in self._loot.first}):
            own = [entry for (at, at_name), entry in self._loot.first.items() if at_name == name]
            stolen = rng.choice(own)
            altered = bytearray(stolen.value)
            altered[rng.randrange(3, len(altered))] ^= 1 << rng.randrange(8)
            lie = rng.choice([encode(rng.randbytes(60)), bytes(altered), stolen.value])
            entries.append(Entry(name, lie, self._late()))
        return entries

    def _late(self) -> float:
        return self._world.clock.now() + 3_500.0


def _info(peer: PeerID) -> dht_pb2.NodeInfo:
    return dht_pb2.NodeInfo(node_id=node_id_of(peer))
