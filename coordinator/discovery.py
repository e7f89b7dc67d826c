"""Finding peers and specialists: index records lead to node records and cards, into the directory.

Knows the record store and its keys; must not know what the records are used for. Nothing found is
believed before the directory has checked it, and no failing lookup stops the others.
"""

import asyncio
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from coordinator.directory import Directory
from protocols.errors import DslmError, ProtocolError
from protocols.ids import PeerId, SpecialistId
from protocols.ports import Clock, RecordStore
from protocols.records import (
    CapabilityCard,
    IndexRecord,
    NodeRecord,
    card_key,
    domain_key,
    node_key,
    specialist_key,
    swarm_key,
)


@dataclass(frozen=True, slots=True)
class DiscoverySettings:
    """Times are in seconds."""

    first_pause: float = 0.3
    """Pause after the first round; doubled after each further one, up to `period`."""
    period: float = 15.0
    """Pause between rounds once the swarm is found."""
    jitter: float = 0.25
    """Each pause is longer or shorter by up to this share."""
    renew_before: float = 25.0
    """A record that lives no longer than this is looked up again."""
    lookup_timeout: float = 10.0
    lookups_at_once: int = 16
    """Of one round or one targeted lookup."""
    peers_per_lookup: int = 512
    """Of a longer index, a random selection is followed."""
    targeted_pause: float = 3.0
    """How soon the same targeted lookup may go to the network again."""
    targeted_memory: int = 256
    """How many targeted lookups are remembered."""


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What one round did."""

    peers: int
    """Others that are alive in the directory now."""
    lookups: int
    failed: int


@dataclass(slots=True)
class _Tally:
    lookups: int = 0
    failed: int = 0
    cards_left: int | None = None
    """How many cards may still be read; None: all."""
    is_wanted: bool = False
    """Whether what is read shall be kept before others."""
    is_partial: bool = False


class Discovery:
    """`run` belongs into a task group of the caller; everything else may be called beside it."""

    def __init__(
        self,
        directory: Directory,
        records: RecordStore,
        clock: Clock,
        rng: random.Random,
        settings: DiscoverySettings | None = None,
    ) -> None:
        self._directory = directory
        self._records = records
        self._clock = clock
        self._rng = rng
        self._settings = settings or DiscoverySettings()
        self._asked: dict[str, float] = {}
        self._running: dict[str, asyncio.Event] = {}
        self._is_partial = False

    async def run(self) -> None:
        """Refresh for ever: in quick succession while the swarm is being found, then at leisure.

        It counts as found when a round leads to somebody, and to nobody new.
        """
        pause, known = self._settings.first_pause, 0
        while True:
            peers = (await self.refresh()).peers
            if peers and peers <= known:
                pause = self._settings.period
            known = peers
            share = self._rng.uniform(-self._settings.jitter, self._settings.jitter)
            await asyncio.sleep(pause * (1 + share))
            pause = min(2 * pause, self._settings.period)

    async def refresh(self) -> Refreshed:
        """Look once for everybody in the swarm, and forget the dead."""
        tally = _Tally()
        await self._follow(swarm_key(self._directory.swarm), tally)
        self._is_partial = tally.is_partial
        now = self._clock.now()
        self._directory.prune(now)
        others = [n for n in self._directory.nodes(now) if n.peer != self._directory.me]
        return Refreshed(len(others), tally.lookups, tally.failed)

    async def find_specialist(self, specialist: SpecialistId) -> None:
        """Look for the peers that host `specialist`; what is found is in the directory then."""
        await self._find(specialist_key(self._directory.swarm, specialist))

    async def find_domain(self, domain: str) -> None:
        """Look for the peers that host any specialist of `domain`."""
        await self._find(domain_key(self._directory.swarm, domain))

    async def find_prefix(self, prefix: str, cards: int) -> None:
        """Look for specialists of `prefix` and what lies below: `cards` of them, by chance."""
        await self._find(domain_key(self._directory.swarm, prefix), cards)

    @property
    def is_partial(self) -> bool:
        """Whether the last round followed a part of the swarm's index only."""
        return self._is_partial

    async def _find(self, key: str, cards: int = 0) -> None:
        """A targeted lookup; callers that want the same one at the same time share it."""
        while key in self._running:  # again, if who looked was cancelled before the end
            await self._running[key].wait()
        now = self._clock.monotonic()
        if now - self._asked.get(key, float("-inf")) < self._settings.targeted_pause:
            return
        done = self._running[key] = asyncio.Event()
        try:
            await self._follow(key, _Tally(cards_left=cards or None, is_wanted=True))
            self._remember(key)
        finally:
            del self._running[key]
            done.set()

    def _remember(self, key: str) -> None:
        self._asked.pop(key, None)
        self._asked[key] = self._clock.monotonic()
        if len(self._asked) > self._settings.targeted_memory:
            del self._asked[next(iter(self._asked))]

    async def _follow(self, index_key: str, tally: _Tally) -> None:
        """Read an index, then what its entries lead to."""
        entries = await self._read(index_key, tally)
        indexes = [entry for entry in entries if isinstance(entry, IndexRecord)]
        if len(indexes) > self._settings.peers_per_lookup:
            tally.is_partial = True
            indexes = self._rng.sample(indexes, self._settings.peers_per_lookup)
        elif tally.cards_left is not None:
            self._rng.shuffle(indexes)
        found = (key for index in indexes for key in self._keys_to_read(index, tally))
        keys = _each_once(found)
        async with asyncio.TaskGroup() as group:
            for _ in range(self._settings.lookups_at_once):
                group.create_task(self._read_all(keys, tally))

    async def _read_all(self, keys: Iterator[str], tally: _Tally) -> None:
        """One of several workers that share `keys`."""
        for key in keys:
            await self._read(key, tally)

    def _keys_to_read(self, index: IndexRecord, tally: _Tally) -> Iterator[str]:
        """The node record and the cards of an entry, but for those that we hold and that live, and
        those for which there was no room.
        """
        now = self._clock.now()
        fresh = now + self._settings.renew_before
        swarm, peer = self._directory.swarm, PeerId(index.peer)
        names = [SpecialistId(name) for name in index.specialists]
        due = [name for name in names if self._directory.card(peer, name, fresh) is None]
        if not tally.is_wanted:
            due = [name for name in due if not self._directory.is_passed_over(peer, name, now)]
        if tally.cards_left is not None:
            due = due[: tally.cards_left]
            tally.cards_left -= len(due)
            if not due:
                return
        if self._directory.node(peer, fresh) is None:
            yield node_key(swarm, peer)
        for name in due:
            yield card_key(swarm, peer, name)

    async def _read(
        self, key: str, tally: _Tally
    ) -> list[NodeRecord | CapabilityCard | IndexRecord]:
        """The believable records under `key`; a store that fails counts as one that is empty."""
        tally.lookups += 1
        try:
            async with asyncio.timeout(self._settings.lookup_timeout):
                found = await self._records.get(key)
        except (DslmError, TimeoutError):
            tally.failed += 1
            return []
        records = []
        now = self._clock.now()
        for subkey in sorted(found):
            try:
                value, wanted = found[subkey].value, tally.is_wanted
                offered = self._directory.offer(value, key, subkey, now, is_wanted=wanted)
                records.append(offered)
            except ProtocolError:
                continue  # counted by the directory; whoever wrote it harms only itself
        return records


def _each_once(keys: Iterable[str]) -> Iterator[str]:
    seen: set[str] = set()
    for key in keys:
        if key not in seen:
            seen.add(key)
            yield key
