"""Which cards a peer keeps when it knows of more than it has room for.

Knows places, sizes and domains of cards; must not know their prototypes, or when they expire.

Cards that were wanted lately stay. Of the others each domain may keep equally many, so that none is
forgotten because another is popular; within a domain a hash of the owner and the card decides,
which is another at every peer and not known to strangers. What is kept of cards that nobody
wanted does not depend on the order in which they came.
"""

import hashlib
from bisect import insort
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from protocols.domains import domain_prefixes
from protocols.ids import PeerId
from protocols.records import CapabilityCard

CARDS_MAX = 2_000
CARD_BYTES_MAX = 16 * 1024 * 1024
WANTED_MAX = 500
"""Cards that stay because they were wanted; of more, those that were wanted last."""
PASSED_OVER_MAX = 20_000
"""Cards of which it is remembered that there was no room for them."""

Place = tuple[str, str]
"""Peer and store key of a card."""


@dataclass(frozen=True, slots=True)
class _Entry:
    size: int
    group: str
    chance: bytes

    def rank(self, place: Place) -> tuple[bytes, Place]:
        return (self.chance, place)


class CardShelf:
    """Keeps the account; the directory keeps the cards. `me`'s own cards are never given up."""

    def __init__(
        self, me: PeerId, cards_max: int = CARDS_MAX, bytes_max: int = CARD_BYTES_MAX
    ) -> None:
        self._me = me
        self._cards_max = cards_max
        self._bytes_max = bytes_max
        self._entries: dict[Place, _Entry] = {}
        self._groups: dict[str, list[tuple[bytes, Place]]] = {}
        """Of each domain the cards that may go, the least chance to stay last."""
        self._wanted: OrderedDict[Place, None] = OrderedDict()
        self._passed_over: OrderedDict[Place, float] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, place: Place, card: CapabilityCard, size: int, *, is_wanted: bool) -> None:
        """A card is kept under `place` now, or another version of it."""
        self.remove(place)
        self._passed_over.pop(place, None)
        chance = hashlib.sha256(f"{self._me}/{place[0]}/{place[1]}".encode()).digest()
        entry = self._entries[place] = _Entry(size, _group(card), chance)
        self._bytes += size
        if is_wanted:
            self.want(place)
        elif place not in self._wanted:
            self._release(place, entry)

    def remove(self, place: Place) -> None:
        """The card under `place` is gone."""
        entry = self._entries.pop(place, None)
        if entry is None:
            return
        self._bytes -= entry.size
        self._hold(place, entry)

    def want(self, place: Place) -> None:
        """The card under `place` is of use: it stays longer than others."""
        entry = self._entries.get(place)
        if entry is None:
            return
        self._hold(place, entry)
        self._wanted[place] = None
        self._wanted.move_to_end(place)
        while len(self._wanted) > WANTED_MAX:
            least, _ = self._wanted.popitem(last=False)
            if least in self._entries:
                self._release(least, self._entries[least])

    def overflow(self, expires_at: float) -> Iterator[Place]:
        """Cards that have to go, until what is left fits; each is off the shelf when it comes.

        It is remembered until `expires_at` that there was no room for them.
        """
        while len(self._entries) > self._cards_max or self._bytes > self._bytes_max:
            place = self._least()
            if place is None:
                return
            self.remove(place)
            self._wanted.pop(place, None)
            self._passed_over[place] = expires_at
            if len(self._passed_over) > PASSED_OVER_MAX:
                self._passed_over.popitem(last=False)
            yield place

    def is_passed_over(self, place: Place, now: float) -> bool:
        """Whether there was no room for the card under `place` lately: it need not be read."""
        return self._passed_over.get(place, 0.0) > now

    def is_partial(self, now: float) -> bool:
        """Whether there are cards that are not kept."""
        while self._passed_over:
            place, expires_at = next(iter(self._passed_over.items()))
            if expires_at > now:
                return True
            del self._passed_over[place]
        return False

    def _least(self) -> Place | None:
        """Of the domain with most cards the one with the least chance; wanted ones at the end."""
        if self._groups:
            most = max(map(len, self._groups.values()))
            last = max(group[-1] for group in self._groups.values() if len(group) == most)
            return last[1]
        others = (place for place in self._wanted if place[0] != self._me)
        return next((place for place in others if place in self._entries), None)

    def _release(self, place: Place, entry: _Entry) -> None:
        """Let the card go if there is no room."""
        if place[0] != self._me:
            insort(self._groups.setdefault(entry.group, []), entry.rank(place))

    def _hold(self, place: Place, entry: _Entry) -> None:
        """The card is none that may go, or is gone."""
        group = self._groups.get(entry.group, [])
        rank = entry.rank(place)
        if rank in group:
            group.remove(rank)
            if not group:
                del self._groups[entry.group]


def _group(card: CapabilityCard) -> str:
    """The first domain; plain bases are a domain of their own."""
    prefixes = domain_prefixes(card.domains[0]) if card.domains else ()
    return prefixes[-1] if prefixes else ""
