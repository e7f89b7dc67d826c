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
        self._is_refused = False

    def announce_soon(self) -> None:
        """Do not wait for the period's end."""
        self._changed.set()

    def changed(self) -> None:
        """What there is to announce has changed: we know it at once, others soon.

        Who has never announced, as a member that may only ask, does not begin to.
        """
        if self._sequence:
            self._know_ourselves(self._clock.now())
        self.announce_soon()

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
        known = self._know_ourselves(now)
        taken = [
            await self._put_all([one for one in known if is_index(one.record) == second])
            for second in (False, True)
        ]
        self._taken = all(taken) and not self._is_refused
        return self._taken

    def _know_ourselves(self, now: float) -> list["_Sealed"]:
        """Put what there is to announce in our own directory, in place of all that was there.

        Those that the directory, and so everybody's, refuses are left out.
        """
        self._sequence = max(self._sequence + 1, int(now * 1000))
        expires_at = now + LIFETIME_SECONDS
        records = list(records_of(self._current(), self._sequence, expires_at))
        self._directory.withdraw(
            self._identity.peer_id, frozenset(key for key, _ in records), now, expires_at
        )
        known = []
        for key, record in records:
            try:
                sealed = seal(record, self._identity)
                self._directory.offer(sealed, key, record.peer, now)
                known.append(_Sealed(key, record, sealed))
            except ProtocolError as error:  # too large a card, say: the others shall not suffer
                _log.warning("cannot announce %s: %s", key, error)
        self._is_refused = len(known) < len(records)
        return known

    async def _put_all(self, records: Sequence["_Sealed"]) -> bool:
        slots = asyncio.Semaphore(PUTS_AT_ONCE)

        async def put(one: _Sealed) -> bool:
            async with slots:
                return await self._put(one)

        async with asyncio.TaskGroup() as group:
            puts = [group.create_task(put(one)) for one in records]
        return all(one.result() for one in puts)

    async def _put(self, one: "_Sealed") -> bool:
        record = one.record
        try:
            return await self._store.put(one.key, record.peer, one.data, record.expires_at)
        except ProtocolError as error:
            _log.warning("cannot announce %s: %s", one.key, error)
        except DslmError as error:
            _log.info("could not announce %s: %s", one.key, error)
        return False


@dataclass(frozen=True, slots=True)
class _Sealed:
    """A record with the key it goes under; `data` is its signed form."""

    key: str
    record: Record
    data: bytes


def is_index(record: Record) -> bool:
    """Whether a record only leads to others."""
    return isinstance(record, IndexRecord)


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
