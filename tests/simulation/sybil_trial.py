"""One world under attack: honest peers publish under a key that Sybils surround, others look it up.

Everything is drawn from one seed. The attackers take all that their share allows against one key,
know the places of it, are in every routing table from the start, and one of each newcomer's three
bootstrap peers is theirs.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hivemind.p2p import PeerID

from coordinator.directory import Directory
from coordinator.verify import Verifier
from protocols.adapters.libp2p.places import PLACES, place_of
from protocols.adapters.virtual import run_virtual
from protocols.errors import ProtocolError
from protocols.ids import PeerId, SpecialistId, SwarmId
from protocols.ports import StoredValue
from protocols.records import CapabilityCard, IndexRecord, Record, card_key, seal, swarm_key
from protocols.signing import Identity
from tests.simulation.dht_world import BOOTSTRAPS, DhtWorld, Honest, simulated_hivemind
from tests.simulation.sybils import POOL, SILENT, Behaviour, Sybils, nearest_identities

LIFETIME = 75.0
PERIOD = 20.0
LAW = SpecialistId("law")


@dataclass(frozen=True, slots=True)
class Setting:
    """How big and how bad. `share` is the Sybils' part of all peers."""

    peers: int = 100
    share: float = 0.33
    target: str = "index"
    """Under the attacked key: `index` entries of several peers, or one peer's `card`."""
    publishers: int = 4
    readers: int = 12
    is_plain: bool = False
    lying_bootstraps: int = 1
    pool: int = POOL

    @property
    def sybils(self) -> int:
        """How many peers are not what they seem."""
        return round(self.peers * self.share)


@dataclass(slots=True)
class Tally:
    """What came of the lookups. A lookup that returns with a part of the records has failed."""

    lookups: int = 0
    succeeded: int = 0
    forged: int = 0
    get_calls: list[int] = field(default_factory=list)
    put_calls: list[int] = field(default_factory=list)
    renewal_calls: list[int] = field(default_factory=list)
    get_seconds: list[float] = field(default_factory=list)
    """Of virtual time."""

    def add(self, other: "Tally") -> None:
        self.lookups += other.lookups
        self.succeeded += other.succeeded
        self.forged += other.forged
        for name in ("get_calls", "put_calls", "renewal_calls", "get_seconds"):
            getattr(self, name).extend(getattr(other, name))


class Trial:
    """Make it inside a virtual loop; `attack` as often as there are ways to."""

    def __init__(self, seed: int, setting: Setting) -> None:
        self.world = DhtWorld(seed, is_plain=setting.is_plain)
        self._setting = setting
        self._sequence = 0
        self._verifier = Verifier()
        self.swarm = SwarmId(f"sybil-trial-{seed}")
        self.published: set[bytes] = set()
        self._versions = 2 if setting.target == "card" else 1
        """How many of a publisher's latest records will do; a card is not searched for to the end
        when one that lives long enough was found."""

    async def gather_peers(self) -> None:
        """Bring all peers together, the Sybils first."""
        setting, rng = self._setting, self.world.rng
        identities = [Identity(rng.randbytes(32)) for _ in range(setting.peers - setting.sybils)]
        self.publishers = identities[: setting.publishers if setting.target == "index" else 1]
        rng.shuffle(identities)
        owner = self.publishers[0].peer_id
        self.key = swarm_key(self.swarm)
        if setting.target == "card":
            self.key = card_key(self.swarm, owner, LAW)
        self.places = [place_of(self.key, n) for n in range(1 if setting.is_plain else PLACES)]
        ground = nearest_identities(self.places, setting.sybils, 7, setting.pool)
        self.sybils = Sybils(self.world, ground, SILENT)
        for identity in identities:
            await self._join(identity)

    def publishing(self) -> list[Honest]:
        """The peers that publish under the key."""
        return [peer for peer in self.world.honest if peer.identity in self.publishers]

    def start_round(self) -> None:
        """Records made from now on are newer than those before."""
        self._sequence += 1
        self._round_began = self.world.clock.now()

    def record(self, peer: Honest) -> tuple[bytes, float]:
        """What `peer` publishes under the key in this round, and when it ends."""
        expires_at = self._round_began + LIFETIME
        return seal(self._statement(peer.peer_id, expires_at), peer.identity), expires_at

    async def attack(self, behaviour: Behaviour, deaths: int = 0) -> Tally:
        """Publish twice, let the Sybils loose, look up. So many honest peers die before that."""
        self.sybils.behaviour = behaviour
        tally, wire, rng = Tally(), self.world.wire, self.world.rng
        published: dict[PeerId, list[bytes]] = {}
        for calls in (tally.put_calls, tally.renewal_calls):
            self.start_round()
            for peer in self.publishing():
                before, (value, expires_at) = wire.calls, self.record(peer)
                await peer.records.put(self.key, peer.peer_id, value, expires_at)
                published.setdefault(peer.peer_id, []).append(value)
                calls.append(wire.calls - before)
            await asyncio.sleep(PERIOD)
        for place in self.places:
            await self.sybils.poison([peer.peer_id for peer in self.world.honest], place)
        for peer in rng.sample(self.world.honest, deaths):
            self.world.wire.kill(PeerID.from_base58(peer.peer_id))
            self.world.honest.remove(peer)
        others = [peer for peer in self.world.honest if peer.identity not in self.publishers]
        self.published |= {value for values in published.values() for value in values}
        for reader in rng.sample(others, min(self._setting.readers, len(others))):
            await self._look_up(reader, published, tally)
        await asyncio.sleep(2 * LIFETIME)
        return tally

    async def _look_up(
        self, reader: Honest, published: dict[PeerId, list[bytes]], tally: Tally
    ) -> None:
        calls, began = self.world.wire.calls, self.world.clock.monotonic()
        found = await reader.records.get(self.key)
        tally.lookups += 1
        tally.get_calls.append(self.world.wire.calls - calls)
        tally.get_seconds.append(self.world.clock.monotonic() - began)
        tally.forged += self._believed_lies(reader, found)
        good = {peer: values[-self._versions :] for peer, values in published.items()}
        tally.succeeded += all(
            peer in found and found[peer].value in values for peer, values in good.items()
        )

    def _believed_lies(self, reader: Honest, found: Mapping[str, StoredValue]) -> int:
        """How many values the reader's directory would take that nobody published."""
        directory, lies = Directory(self.swarm, reader.peer_id, self._verifier), 0
        for subkey, item in found.items():
            try:
                directory.offer(item.value, self.key, subkey, self.world.clock.now())
            except ProtocolError:
                continue
            lies += item.value not in self.published
        return lies

    def _statement(self, peer: PeerId, expires_at: float) -> Record:
        if self._setting.target == "index":
            return IndexRecord(peer, self.key, self._sequence, expires_at, (LAW,))
        return CapabilityCard(
            peer, self.swarm, self._sequence, expires_at, LAW, "d", "b", "int8", 2_048
        )

    async def _join(self, identity: Identity) -> None:
        rng, lying = self.world.rng, self._setting.lying_bootstraps
        known = [peer.peer_id for peer in self.world.honest]
        liars = rng.sample(self.sybils.peer_ids, min(lying, len(self.sybils.peer_ids)))
        friends = rng.sample(known, min(BOOTSTRAPS - lying, len(known)))
        await self.world.join(identity, [*liars, *friends])
        await self.sybils.greet([identity.peer_id])


def run_trial(seed: int, setting: Setting, behaviours: Sequence[Behaviour]) -> dict[str, Tally]:
    """A world from its first peer to its end; what came of each behaviour, in this order."""

    async def live() -> dict[str, Tally]:
        trial = Trial(seed, setting)
        with simulated_hivemind(trial.world.clock):
            await trial.gather_peers()
            tallies = {behaviour.name: await trial.attack(behaviour) for behaviour in behaviours}
            await trial.world.close()
        return tallies

    return run_virtual(live(), limit_seconds=100_000.0)
