"""Our share of the record store: values that we keep for others, bounded and monotone.

Knows the storage interface that hivemind's DHT code calls; must not know the network. It stands in
for hivemind's `DHTLocalStorage`, which loses a live record when a shorter-lived one comes, lets a
plain value replace a dictionary, and grows without end.
"""

from collections.abc import Iterator

from hivemind.dht.routing import DHTID
from hivemind.dht.storage import DictionaryDHTValue
from hivemind.utils.timed_storage import ValueWithExpiration

from protocols import limits
from protocols.ports import Clock, StoredValue

_ENTRY_OVERHEAD_BYTES = 200


class RecordTable:
    """Key, then subkey, then the value that lives longest of those stored.

    The outcome does not depend on the order of stores as long as the table is not full; a full
    table refuses new subkeys and keeps what it has.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: dict[DHTID, dict[str, StoredValue]] = {}
        self._key_bytes: dict[DHTID, int] = {}
        self._records = 0
        self._bytes = 0

    def __repr__(self) -> str:
        return f"<RecordTable {self._records} records, {self._bytes} bytes>"

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: DHTID) -> bool:
        return self.get(key) is not None

    def store_subkey(self, key: DHTID, subkey: str, value: bytes, expiration_time: float) -> bool:
        """Keep a value; whether it, or its exact like, is now kept."""
        if expiration_time <= self._clock.now():
            return False
        present = self._entries.get(key, {}).get(subkey)
        if present is not None and present.expires_at >= expiration_time:
            return present == StoredValue(value, expiration_time)
        size = len(value) + len(subkey) + _ENTRY_OVERHEAD_BYTES
        if not self._has_room(key, size, is_new=present is None):
            self._purge()
            if not self._has_room(key, size, is_new=present is None):
                return False
        self._remove(key, subkey)
        self._entries.setdefault(key, {})[subkey] = StoredValue(value, expiration_time)
        self._count(key, size, 1)
        return True

    def store(
        self, key: DHTID, value: object, expiration_time: float, subkey: str | None = None
    ) -> bool:
        """Keep a value under a subkey; values without one are refused."""
        if subkey is None or not isinstance(value, bytes):
            return False
        return self.store_subkey(key, subkey, value, expiration_time)

    def get(self, key: DHTID) -> "ValueWithExpiration[DictionaryDHTValue] | None":
        """What lives under `key`, as the dictionary type that hivemind can send."""
        now = self._clock.now()
        for subkey, stored in tuple(self._entries.get(key, {}).items()):
            if stored.expires_at <= now:
                self._remove(key, subkey)
        entries = self._entries.get(key)
        if not entries:
            return None
        dictionary = DictionaryDHTValue()
        for subkey, stored in entries.items():
            dictionary.store(subkey, stored.value, stored.expires_at)
        return ValueWithExpiration(dictionary, dictionary.latest_expiration_time)

    def items(self) -> Iterator[tuple[DHTID, "ValueWithExpiration[DictionaryDHTValue]"]]:
        """All keys with what lives under them."""
        for key in tuple(self._entries):
            found = self.get(key)
            if found is not None:
                yield key, found

    def _has_room(self, key: DHTID, size: int, is_new: bool) -> bool:
        if self._key_bytes.get(key, 0) + size > limits.DHT_KEY_BYTES_MAX:
            return False
        if self._bytes + size > limits.DHT_TABLE_BYTES_MAX:
            return False
        if not is_new:
            return True
        is_key_full = len(self._entries.get(key, {})) >= limits.DHT_SUBKEYS_MAX
        return not is_key_full and self._records < limits.DHT_RECORDS_MAX

    def _purge(self) -> None:
        now = self._clock.now()
        for key, entries in tuple(self._entries.items()):
            for subkey, stored in tuple(entries.items()):
                if stored.expires_at <= now:
                    self._remove(key, subkey)

    def _remove(self, key: DHTID, subkey: str) -> None:
        entries = self._entries.get(key, {})
        stored = entries.pop(subkey, None)
        if stored is None:
            return
        self._count(key, -(len(stored.value) + len(subkey) + _ENTRY_OVERHEAD_BYTES), -1)
        if not entries:
            del self._entries[key], self._key_bytes[key]

    def _count(self, key: DHTID, size: int, records: int) -> None:
        self._key_bytes[key] = self._key_bytes.get(key, 0) + size
        self._bytes += size
        self._records += records
