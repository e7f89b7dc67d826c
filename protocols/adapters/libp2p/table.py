"""Our share of the record store: values that we keep for others, bounded and monotone.

Knows the storage interface that hivemind's DHT code calls and what a value is worth; must not know
the network. It stands in for hivemind's `DHTLocalStorage`, which loses a live record when a
shorter-lived one comes, lets a plain value replace a dictionary, and grows without end.
"""

import hashlib
from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field

from hivemind.dht.routing import DHTID
from hivemind.dht.storage import DictionaryDHTValue
from hivemind.utils.timed_storage import ValueWithExpiration

from protocols import limits
from protocols.adapters.libp2p.verdict import Judge, Verdict
from protocols.ports import Clock

_ENTRY_OVERHEAD_BYTES = 200
_NEVER_NEARER = DHTID.MAX
"""The distance of what pushes nothing out."""
_OPAQUE_SHARE = 4
"""At most one part in so many of the table is for values that are no records."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A value of the table, in hivemind's envelope. The greatest of a subkey stays."""

    is_genuine: bool
    expires_at: float
    value: bytes

    def rank(self) -> tuple[bool, float, bytes]:
        """What counts; a total order, so that the order of stores does not."""
        return (self.is_genuine, self.expires_at, self.value)


@dataclass(slots=True)
class _Amount:
    records: int = 0
    bytes: int = 0

    def add(self, records: int, size: int) -> None:
        self.records += records
        self.bytes += size


@dataclass(slots=True)
class _Shelf:
    """All that lies under one key."""

    entries: dict[str, Kept] = field(default_factory=dict)
    order: list[tuple[bool, bytes, str]] = field(default_factory=list)
    """Subkeys behind what they are worth, the least first."""
    bytes: int = 0


class RecordTable:
    """Key, then subkey, then the genuine value that lives longest of those stored.

    The outcome does not depend on the order of stores as long as nothing is full. A full table
    gives up what lies farthest from our own id for what lies nearer; under a full key each peer
    keeps another selection of publishers, so that a flood of them cannot push the same ones out
    everywhere. Publishers have a share each, and values that are no records have one together.
    """

    def __init__(
        self,
        clock: Clock,
        bytes_max: int = limits.DHT_TABLE_BYTES_MAX,
        *,
        own_id: int = 0,
        judge: Judge | None = None,
    ) -> None:
        self._clock = clock
        self._bytes_max = bytes_max
        self._own_id = own_id
        self._judge = judge or Judge()
        self._shelves: dict[DHTID, _Shelf] = {}
        self._by_distance: list[tuple[int, DHTID]] = []
        self._total = _Amount()
        self._opaque = _Amount()
        self._publishers: dict[tuple[str, bool], _Amount] = {}
        self._purge_after = float("-inf")

    def __repr__(self) -> str:
        return f"<RecordTable {self._total.records} records, {self._total.bytes} bytes>"

    def __len__(self) -> int:
        return len(self._shelves)

    def __contains__(self, key: DHTID) -> bool:
        return self.get(key) is not None

    def store_subkey(self, key: DHTID, subkey: str, value: bytes, expiration_time: float) -> bool:
        """Keep a value; whether it, or its exact like, is now kept."""
        if expiration_time <= self._clock.now():
            return False
        present = self.peek(key).get(subkey)
        if present and (present.value, present.expires_at) == (value, expiration_time):
            return True
        if present and present.is_genuine and present.expires_at > expiration_time:
            return False  # without looking at a signature
        verdict = self._judge.judge(key, subkey, value, expiration_time)
        kept = Kept(verdict is Verdict.GENUINE, expiration_time, value)
        if verdict is Verdict.FORGED or (present and present.rank() >= kept.rank()):
            return False
        self._remove(key, subkey)
        has_room = self._make_room(key, subkey, kept)
        if has_room:
            self._put(key, subkey, kept)
        elif present:
            self._put(key, subkey, present)
        return has_room

    def store(
        self, key: DHTID, value: object, expiration_time: float, subkey: str | None = None
    ) -> bool:
        """Keep a value under a subkey; values without one are refused."""
        if subkey is None or not isinstance(value, bytes):
            return False
        return self.store_subkey(key, subkey, value, expiration_time)

    def peek(self, key: DHTID) -> dict[str, Kept]:
        """What lives under `key`, by subkey. Not to be changed by the caller."""
        now = self._clock.now()
        shelf = self._shelves.get(key)
        if shelf is None:
            return {}
        for subkey in [name for name, kept in shelf.entries.items() if kept.expires_at <= now]:
            self._remove(key, subkey)
        return shelf.entries

    def get(self, key: DHTID) -> "ValueWithExpiration[DictionaryDHTValue] | None":
        """What lives under `key`, as the dictionary type that hivemind can send."""
        entries = self.peek(key)
        if not entries:
            return None
        dictionary = DictionaryDHTValue()
        for subkey, kept in entries.items():
            dictionary.store(subkey, kept.value, kept.expires_at)
        return ValueWithExpiration(dictionary, dictionary.latest_expiration_time)

    def items(self) -> Iterator[tuple[DHTID, "ValueWithExpiration[DictionaryDHTValue]"]]:
        """Nothing: hivemind asks for what it should copy to each peer that it meets.

        It would go through the whole table for every stranger who says hello, and send him what
        lies near him. Publishers renew their records several times in a lifetime instead.
        """
        return iter(())

    def _make_room(self, key: DHTID, subkey: str, kept: Kept) -> bool:
        """See to it that a value fits in, at the cost of worse ones; whether it does."""
        size = _size(subkey, kept)
        if not self._has_share(subkey, kept.is_genuine, size):
            self._purge()
            if not self._has_share(subkey, kept.is_genuine, size):
                return False
        crowded = self._crowded_out(key, subkey, kept)
        if crowded is None:
            return False
        distance = self._distance(key) if kept.is_genuine else _NEVER_NEARER
        distant = self._outlying(distance, size)
        if distant is None and self._purge():
            distant = self._outlying(distance, size)
        if distant is None:
            return False
        for name in crowded:
            self._remove(key, name)
        for far_key in distant:
            for name in tuple(self._shelves[far_key].entries):
                self._remove(far_key, name)
        return True

    def _has_share(self, subkey: str, is_genuine: bool, size: int) -> bool:
        publisher = self._publishers.get((subkey, is_genuine), _Amount())
        if publisher.records >= limits.DHT_PUBLISHER_RECORDS_MAX:
            return False
        if publisher.bytes + size > limits.DHT_PUBLISHER_BYTES_MAX:
            return False
        if is_genuine:
            return True
        is_full = self._opaque.records >= limits.DHT_RECORDS_MAX // _OPAQUE_SHARE
        return not is_full and self._opaque.bytes + size <= self._bytes_max // _OPAQUE_SHARE

    def _crowded_out(self, key: DHTID, subkey: str, kept: Kept) -> list[str] | None:
        """Subkeys to give up so that another fits under a key; None if it is worth less."""
        shelf = self._shelves.get(key, _Shelf())
        records = len(shelf.entries) + 1 - limits.DHT_SUBKEYS_MAX
        excess = shelf.bytes + _size(subkey, kept) - limits.DHT_KEY_BYTES_MAX
        if records <= 0 and excess <= 0:
            return []
        worth = self._worth(subkey, kept)
        chosen = []
        for other in shelf.order:
            if (records <= 0 and excess <= 0) or other > worth:
                break
            name = other[-1]
            chosen.append(name)
            records, excess = records - 1, excess - _size(name, shelf.entries[name])
        return chosen if records <= 0 and excess <= 0 else None

    def _outlying(self, distance: int, size: int) -> list[DHTID] | None:
        """Keys beyond `distance` to give up so that so many bytes fit in; None if too few are."""
        records = self._total.records + 1 - limits.DHT_RECORDS_MAX
        excess = self._total.bytes + size - self._bytes_max
        chosen: list[DHTID] = []
        for far, far_key in reversed(self._by_distance):
            if (records <= 0 and excess <= 0) or far <= distance:
                break
            chosen.append(far_key)
            shelf = self._shelves[far_key]
            records, excess = records - len(shelf.entries), excess - shelf.bytes
        return chosen if records <= 0 and excess <= 0 else None

    def _purge(self) -> bool:
        """Drop all that has ended, at most once a second; whether it was done."""
        now = self._clock.monotonic()
        if now < self._purge_after:
            return False
        self._purge_after = now + 1.0
        for key in tuple(self._shelves):
            self.peek(key)
        return True

    def _put(self, key: DHTID, subkey: str, kept: Kept) -> None:
        if key not in self._shelves:
            self._shelves[key] = _Shelf()
            insort(self._by_distance, (self._distance(key), key))
        self._shelves[key].entries[subkey] = kept
        insort(self._shelves[key].order, self._worth(subkey, kept))
        self._count(key, subkey, kept, 1)

    def _remove(self, key: DHTID, subkey: str) -> None:
        shelf = self._shelves.get(key)
        kept = shelf.entries.pop(subkey, None) if shelf else None
        if shelf is None or kept is None:
            return
        self._count(key, subkey, kept, -1)
        del shelf.order[bisect_left(shelf.order, self._worth(subkey, kept))]
        if not shelf.entries:
            del self._shelves[key]
            place = (self._distance(key), key)
            del self._by_distance[bisect_left(self._by_distance, place)]

    def _count(self, key: DHTID, subkey: str, kept: Kept, records: int) -> None:
        size = records * _size(subkey, kept)
        self._shelves[key].bytes += size
        self._total.add(records, size)
        if not kept.is_genuine:
            self._opaque.add(records, size)
        publisher = self._publishers.setdefault((subkey, kept.is_genuine), _Amount())
        publisher.add(records, size)
        if not publisher.records:
            del self._publishers[subkey, kept.is_genuine]

    def _distance(self, key: DHTID) -> int:
        return self._own_id ^ int(key)

    def _worth(self, subkey: str, kept: Kept) -> tuple[bool, bytes, str]:
        """Who stays under a full key: another choice for every peer."""
        text = f"{self._own_id}/{subkey}".encode()
        return (kept.is_genuine, hashlib.blake2b(text, digest_size=16).digest(), subkey)


def _size(subkey: str, kept: Kept) -> int:
    return len(kept.value) + len(subkey) + _ENTRY_OVERHEAD_BYTES
