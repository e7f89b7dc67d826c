"""The record store of the memory network: copies at the peers nearest to a key, merged on reading.

Knows expiry and replication; must not know what a record says. Of two values under one subkey the
one that lives longer stays, so stores that arrive in another order end the same.
"""

import hashlib
from collections.abc import Mapping
from typing import Protocol

from protocols import access
from protocols.ids import PeerId
from protocols.ports import Clock, StoredValue


class RecordTable:
    """One peer's share of the table."""

    def __init__(self) -> None:
        self._keys: dict[str, dict[str, StoredValue]] = {}

    def store(self, key: str, subkey: str, value: StoredValue, now: float) -> bool:
        """Whether `value` lives and is not older than what lies there."""
        held = self._keys.setdefault(key, {}).get(subkey)
        if value.expires_at <= now or (held and held.expires_at > value.expires_at):
            return False
        self._keys[key][subkey] = value
        return True

    def find(self, key: str, now: float) -> Mapping[str, StoredValue]:
        """What lives under `key`; the rest is dropped."""
        found = self._keys.get(key, {})
        for subkey in [subkey for subkey, held in found.items() if held.expires_at <= now]:
            del found[subkey]
        return found


class Replicas(Protocol):
    """The network as a record store needs it."""

    async def reach(self, me: PeerId, key: str, protocol: str) -> list[RecordTable]:
        """The tables of the peers nearest to `key` that answer `me`, after the time it takes.

        `protocol` is what the gates are asked for.
        """
        ...


class MemoryRecords:
    """The `RecordStore` port, as seen by one peer."""

    def __init__(self, me: PeerId, replicas: Replicas, clock: Clock) -> None:
        self._me = me
        self._replicas = replicas
        self._clock = clock

    async def put(self, key: str, subkey: str, value: bytes, expires_at: float) -> bool:
        """See `protocols.ports.RecordStore`."""
        tables = await self._replicas.reach(self._me, key, access.DHT_STORE)
        stored = StoredValue(value, expires_at)
        now = self._clock.now()
        taken = [table.store(key, subkey, stored, now) for table in tables]
        return any(taken)

    async def get(self, key: str) -> Mapping[str, StoredValue]:
        """See `protocols.ports.RecordStore`."""
        merged: dict[str, StoredValue] = {}
        now = self._clock.now()
        for table in await self._replicas.reach(self._me, key, access.DHT_FIND):
            for subkey, found in table.find(key, now).items():
                held = merged.get(subkey)
                if held is None or held.expires_at < found.expires_at:
                    merged[subkey] = found
        return merged


def place_of(text: str) -> int:
    """Where a key or a peer lies in the table's space (128 bits of its SHA-256)."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")
