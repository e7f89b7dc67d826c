"""What a stored value is worth: a record that its publisher signed for this place, or not.

Knows the seal of records and the places of their keys; must not know who stored a value. A value
that is no record at all is kept as long as nothing better comes; a forged one never is.
"""

import enum
import hashlib
from collections import OrderedDict
from dataclasses import dataclass

import msgspec
from hivemind.dht.routing import DHTID

from protocols.adapters.libp2p.places import PLACES, place_of
from protocols.errors import ProtocolError
from protocols.records import CapabilityCard, IndexRecord, NodeRecord, keys_of, open_sealed

_KINDS = frozenset(kind.kind for kind in (NodeRecord, CapabilityCard, IndexRecord))
_DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_envelope_decoder = msgspec.msgpack.Decoder(bytes)


class _Peek(msgspec.Struct, frozen=True):
    """Enough of a seal to see that a value claims to be a record."""

    kind: str


_peek_decoder = msgspec.msgpack.Decoder(_Peek)


class Verdict(enum.IntEnum):
    """Ordered by worth."""

    FORGED = 0
    """Looks like a record, but is not genuine, not for this place or not for this long."""
    OPAQUE = 1
    """No record that we know; nobody can say whose it is."""
    GENUINE = 2


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the bytes alone tell; a publisher of None for a forgery."""

    publisher: str | None = None
    expires_at: float = 0.0
    places: frozenset[DHTID] = frozenset()


def publisher_of(key: str) -> str | None:
    """The one peer whose records lie under `key`, where the key names it; no index does."""
    match key.split("/", 5):
        case ["dslm", "1", _, "node", peer] | ["dslm", "1", _, "card", peer, _]:
            return peer
        case _:
            return None


def unwrap(stored: bytes) -> bytes | None:
    """The value inside hivemind's envelope, None if there is none."""
    try:
        return _envelope_decoder.decode(stored)
    except _DECODE_ERRORS:
        return None


class Judge:
    """Judges values; verdicts on the same bytes are remembered, for a signature costs 150 us."""

    def __init__(self, capacity: int = 10_000) -> None:
        self._capacity = capacity
        self._seen: OrderedDict[bytes, _Seen] = OrderedDict()

    def judge(self, place: DHTID, subkey: str, stored: bytes, expires_at: float) -> Verdict:
        """What a value, still in hivemind's envelope, is worth at `place` under `subkey`."""
        value = unwrap(stored)
        if value is None or not _claims_to_be_a_record(value):
            return Verdict.OPAQUE
        seen = self._open(value)
        is_right = seen.publisher == subkey and seen.expires_at == expires_at
        return Verdict.GENUINE if is_right and place in seen.places else Verdict.FORGED

    def _open(self, value: bytes) -> _Seen:
        digest = hashlib.sha256(value).digest()
        seen = self._seen.get(digest)
        if seen is None:
            seen = self._seen[digest] = _look(value)
            if len(self._seen) > self._capacity:
                self._seen.popitem(last=False)
        else:
            self._seen.move_to_end(digest)
        return seen


def _claims_to_be_a_record(value: bytes) -> bool:
    try:
        return _peek_decoder.decode(value).kind in _KINDS
    except _DECODE_ERRORS:
        return False


def _look(value: bytes) -> _Seen:
    try:
        record = open_sealed(value)
    except ProtocolError:
        return _Seen()
    places = frozenset(place_of(key, number) for key in keys_of(record) for number in range(PLACES))
    return _Seen(record.peer, record.expires_at, places)
