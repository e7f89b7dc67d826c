"""Publishes what this node is: node record, cards, and the index records that lead to them.

Knows records, the record store and our own directory; must not know how others find them again.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

from msgspec.structs import replace

from coordinator.directory import Directory
from protocols import limits
from protocols.domains import domain_prefixes
from protocols.errors import DslmError, ProtocolError
from protocols.ids import PeerId, SpecialistId, SwarmId
from protocols.ports import Clock, RecordStore
from protocols.records import (
    CapabilityCard,
    IndexRecord,
    NodeRecord,
    Record,
    card_key,
    domain_key,
    node_key,
    seal,
    specialist_key,
    swarm_key,
)
from protocols.signing import Identity

PERIOD_SECONDS = 20.0
LIFETIME_SECONDS = 75.0
"""Three periods and some: one lost announcement hides nobody, a dead peer is gone in a minute."""
RETRY_SECONDS = 1.0
PUTS_AT_ONCE = 8
DOMAIN_KEYS_MAX = 64
"""Domains and prefixes under which a peer is indexed; of more, the first."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Offer:
    """What there is to announce now; sequence and expiry are filled in by the announcer."""

    node: NodeRecord
    cards: Sequence[CapabilityCard]


class Announcer:
    """Keeps our records alive in the store, and in our own directory, so that we know ourselves."""

    def __init__(
        self,
        identity: Identity,
        store: RecordStore,
        directory: Directory,
        clock: Clock,
        rng: Random,
        current: Callable[[], Offer],
    ) -> None:
        """`current` tells what there is to announce."""
        self._identity = identity
        self._store = store
        self._directory = directory
        self._clock = clock
        self._rng = rng
        self._current = current
        self._sequence = 0
        self._changed = asyncio.Event()
        self._taken = True

    def announce_soon(self) -> None:
        """Do not wait for the period's end."""
        self._changed.set()

    async def run(self) -> None:
        """Announce again and again; a failed announcement is repeated soon."""
        while True:
            wait = PERIOD_SECONDS * self._rng.uniform(0.8, 1.2) if self._taken else RETRY_SECONDS
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()
            await self.announce()

    async def announce(self) -> bool:
        """Publish everything once; whether somebody took all of it.

        What leads to the records goes out after them, so that an index never leads to nothing.
        """
        now = self._clock.now()
        self._sequence = max(self._sequence + 1, int(now * 1000))
        records = list(records_of(self._current(), self._sequence, now + LIFETIME_SECONDS))
        taken = [
            await self._put_all([one for one in records if is_index(one) == second], now)
            for second in (False, True)
        ]
        self._taken = all(taken)
        return self._taken

    async def _put_all(self, records: Sequence[tuple[str, Record]], now: float) -> bool:
        slots = asyncio.Semaphore(PUTS_AT_ONCE)

        async def put(key: str, record: Record) -> bool:
            async with slots:
                return await self._put(key, record, now)

        async with asyncio.TaskGroup() as group:
            puts = [group.create_task(put(key, record)) for key, record in records]
        return all(one.result() for one in puts)

    async def _put(self, key: str, record: Record, now: float) -> bool:
        try:
            sealed = seal(record, self._identity)
            self._directory.offer(sealed, key, record.peer, now)
            return await self._store.put(key, record.peer, sealed, record.expires_at)
        except ProtocolError as error:  # too large a card, say: the others shall not suffer
            _log.warning("cannot announce %s: %s", key, error)
        except DslmError as error:
            _log.info("could not announce %s: %s", key, error)
        return False


def is_index(entry: tuple[str, Record]) -> bool:
    """Whether an entry of `records_of` only leads to others."""
    return isinstance(entry[1], IndexRecord)


def records_of(offer: Offer, sequence: int, expires_at: float) -> Iterator[tuple[str, Record]]:
    """Every record that makes `offer` known, with the key it goes under.

    The full records come first, so that an index never leads to nothing.
    """
    node = replace(offer.node, sequence=sequence, expires_at=expires_at)
    swarm, peer = SwarmId(node.swarm), PeerId(node.peer)
    yield node_key(swarm, peer), node
    keys: dict[str, _Entry] = {swarm_key(swarm): _Entry(list(node.specialists))}
    for unsequenced in offer.cards:
        card = replace(unsequenced, sequence=sequence, expires_at=expires_at)
        specialist = SpecialistId(card.specialist)
        yield card_key(swarm, peer, specialist), card
        keys[specialist_key(swarm, specialist)] = _Entry([specialist])
    for prefix, entry in _by_domain(offer.cards).items():
        key = domain_key(swarm, prefix) if prefix else swarm_key(swarm)
        keys.setdefault(key, entry).domains = entry.domains
    for key, entry in keys.items():
        yield (
            key,
            IndexRecord(
                node.peer,
                key,
                sequence,
                expires_at,
                tuple(entry.specialists),
                tuple(entry.domains)[: limits.DOMAINS_MAX],
            ),
        )


@dataclass(slots=True)
class _Entry:
    """What an index record says besides its key."""

    specialists: list[str] = field(default_factory=list)
    domains: dict[str, None] = field(default_factory=dict)
    """In the order in which the cards name them."""


def _by_domain(cards: Sequence[CapabilityCard]) -> dict[str, _Entry]:
    """By domain and prefix, at most `DOMAIN_KEYS_MAX`; the empty prefix has no specialists."""
    found: dict[str, _Entry] = {}
    for card in cards:
        for domain in card.domains:
            above = ""
            for prefix in domain_prefixes(domain):
                if prefix not in found and len(found) > DOMAIN_KEYS_MAX:
                    break
                found.setdefault(above, _Entry()).domains[prefix] = None
                specialists = found.setdefault(prefix, _Entry()).specialists
                if card.specialist not in specialists:
                    specialists.append(card.specialist)
                above = prefix
    return found
