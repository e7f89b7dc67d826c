"""The messages of hivemind's DHT: which shapes of them are harmless, and how to strip the others.

Knows the three messages and their bounds; must not know what records say, nor who sent a message.
One unchecked message can crash, hang or fill a node that runs hivemind's DHT alone.

What passes: ids bound to the sender (`SHA1(peer id)`), at most so many keys, values of the one
shape that our record store writes (a msgpack `bin` under a peer id), with an end in the next hour.
Everything is decoded against that exact shape, so nothing nests and nothing recurses.
"""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import msgspec
from google.protobuf.message import DecodeError  # type: ignore[import-untyped,unused-ignore]
from hivemind.p2p import PeerID
from hivemind.proto import dht_pb2

from protocols import limits
from protocols.errors import ProtocolError
from protocols.ids import parse_peer_id

NODE_ID_BYTES = hashlib.sha1(usedforsecurity=False).digest_size
_DICTIONARY_EXT = 0x50
"""hivemind's msgpack extension code of a dictionary of subkeys."""
_DICTIONARY_TAG = b""
"""What stands in a store request's subkey when its value is a whole dictionary."""
_PEER_PREFIX = bytes.fromhex("002408011220")
"""What the bytes of an Ed25519 peer id begin with; to spell it takes a hundred times as long."""
_PEER_BYTES = len(_PEER_PREFIX) + 32

_KEYS_PER_REQUEST = 16
"""So many keys that are looked for cost as much as a request."""
_ENTRY_BYTES = 256
"""No record is shorter; a dictionary may hold as many as fit."""
_ENTRIES_OF_A_RECORD = 40
"""A single record of the greatest length, in those."""
_PART_WEIGHT_MAX = 8.0
"""What one STORE of ours may be worth, so that a newcomer's share has room for several."""

_encoder = msgspec.msgpack.Encoder()
_subkey_decoder = msgspec.msgpack.Decoder(str)
_value_decoder = msgspec.msgpack.Decoder(bytes)
_ext_decoder = msgspec.msgpack.Decoder(msgspec.msgpack.Ext)
_dictionary_decoder = msgspec.msgpack.Decoder(tuple[float, float, list[msgspec.Raw]])
_entry_decoder = msgspec.msgpack.Decoder(tuple[str, bytes, float])
_DECODE_ERRORS = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)


class Message(Protocol):
    """A protobuf message."""

    @classmethod
    def FromString(cls, data: bytes) -> Self:  # noqa: N802 - protobuf's name
        """Parse."""
        ...

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """Encode."""
        ...


MessageT = TypeVar("MessageT", bound=Message)


@dataclass(frozen=True, slots=True)
class Entry:
    """One value of a dictionary, as found in a message: `value` still in its msgpack envelope."""

    subkey: str
    value: bytes
    expires_at: float


def node_id_of(peer: PeerID) -> bytes:
    """The one id under which `peer` may take part in the DHT."""
    return hashlib.sha1(peer.to_bytes(), usedforsecurity=False).digest()


def parse(kind: type[MessageT], data: bytes) -> MessageT:
    """`data` as a protobuf message, if it is not too large."""
    if len(data) > limits.DHT_MESSAGE_BYTES_MAX:
        raise ProtocolError(f"record store message of {len(data)} bytes")
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise ProtocolError("malformed record store message") from error


def is_entry_sound(entry: Entry, now: float) -> bool:
    """Whether an entry has our record store's shape and a believable end."""
    latest = now + limits.RECORD_LIFETIME_SECONDS_MAX + limits.CLOCK_SKEW_SECONDS_MAX
    if not math.isfinite(entry.expires_at) or not now < entry.expires_at <= latest:
        return False
    if len(entry.value) > limits.DHT_VALUE_BYTES_MAX:
        return False
    try:
        parse_peer_id(entry.subkey)
        record = _value_decoder.decode(entry.value)
    except (ProtocolError, *_DECODE_ERRORS):
        return False
    return len(record) <= limits.RECORD_BYTES_MAX


def unpack_dictionary(data: bytes, now: float) -> list[Entry]:
    """The sound entries of a packed dictionary; the others are left out, one by one."""
    try:
        ext = _ext_decoder.decode(data)
        if ext.code != _DICTIONARY_EXT:
            raise ProtocolError("not a dictionary of records")
        _, _, raw_entries = _dictionary_decoder.decode(ext.data)
    except _DECODE_ERRORS as error:
        raise ProtocolError("malformed dictionary of records") from error
    entries = []
    for raw in raw_entries[: limits.DHT_SUBKEYS_MAX]:
        try:
            entry = Entry(*_entry_decoder.decode(raw))
        except _DECODE_ERRORS:
            continue
        if is_entry_sound(entry, now):
            entries.append(entry)
    return entries


def pack_dictionary(entries: Sequence[Entry]) -> bytes:
    """The bytes that hivemind decodes into a dictionary of these entries."""
    latest = max(entry.expires_at for entry in entries)
    items = [(entry.subkey, entry.value, entry.expires_at) for entry in entries]
    body = _encoder.encode((math.inf, latest, items))
    return _encoder.encode(msgspec.msgpack.Ext(_DICTIONARY_EXT, body))


def check_sender(node: dht_pb2.NodeInfo, remote: PeerID) -> None:
    """`ProtocolError` unless the id that `remote` gives itself is its own, or none."""
    parse_peer_id(remote.to_base58())
    if node.node_id and node.node_id != node_id_of(remote):
        raise ProtocolError("a node id that does not belong to its peer")


def weight(request: Message) -> float:
    """How many requests a request is worth, besides itself: each value may cost a signature."""
    if isinstance(request, dht_pb2.FindRequest):
        return len(request.keys) / _KEYS_PER_REQUEST
    if not isinstance(request, dht_pb2.StoreRequest):
        return 0.0
    return _store_weight(len(request.values), sum(len(value) for value in request.values))


def _store_weight(values: int, size: int) -> float:
    return max(0.0, values - 1, size / _ENTRY_BYTES - _ENTRIES_OF_A_RECORD)


def check_find(request: dht_pb2.FindRequest) -> None:
    """`ProtocolError` unless a FIND request is of bearable size."""
    if not 0 < len(request.keys) <= limits.DHT_KEYS_MAX:
        raise ProtocolError(f"{len(request.keys)} keys in one request")
    _check_keys(request.keys)


def clean_store(
    request: dht_pb2.StoreRequest, now: float
) -> tuple[dht_pb2.StoreRequest, list[bool]]:
    """A STORE request with only its sound entries, and for each original entry whether it stayed.

    Plain values (without a subkey) and values for the cache are never kept: our record store
    writes neither.
    """
    columns = (request.subkeys, request.values, request.expiration_time, request.in_cache)
    if len(request.keys) > limits.DHT_KEYS_MAX or any(
        len(column) != len(request.keys) for column in columns
    ):
        raise ProtocolError("a store request with too many or unequal columns")
    _check_keys(request.keys)
    cleaned = dht_pb2.StoreRequest(peer=request.peer)
    kept = []
    for key, subkey, value, expires_at, in_cache in zip(request.keys, *columns, strict=True):
        sound = None if in_cache else _sound_value(subkey, value, expires_at, now)
        kept.append(sound is not None)
        if sound is not None:
            cleaned.keys.append(key)
            cleaned.subkeys.append(subkey)
            cleaned.values.append(sound)
            cleaned.expiration_time.append(expires_at)
            cleaned.in_cache.append(False)
    return cleaned, kept


def clean_find_response(
    response: dht_pb2.FindResponse, remote: PeerID, keys: int, now: float
) -> None:
    """Strip a FIND answer, in place, of all that is not sound; `ProtocolError` if misshapen."""
    clean_node_info(response, remote)
    if len(response.results) != keys:
        raise ProtocolError("an answer with more or fewer results than questions")
    for result in response.results:
        _clean_neighbours(result)
        entries = []
        if result.type == dht_pb2.FOUND_DICTIONARY:
            entries = unpack_dictionary(result.value, now)
        if entries:
            result.value = pack_dictionary(entries)
            result.expiration_time = max(entry.expires_at for entry in entries)
        else:
            result.type, result.value, result.expiration_time = dht_pb2.NOT_FOUND, b"", 0.0


def split_store(request: dht_pb2.StoreRequest) -> Iterable[dht_pb2.StoreRequest]:
    """A STORE request as a row of requests that each fit the limits and weigh little."""
    part, size, packed = dht_pb2.StoreRequest(peer=request.peer), 0, 0
    columns = (request.keys, request.subkeys, request.values, request.expiration_time)
    for key, subkey, value, expires_at, in_cache in zip(*columns, request.in_cache, strict=True):
        cost = len(value) + len(subkey) + NODE_ID_BYTES + 64
        is_full = size + cost > limits.DHT_MESSAGE_BYTES_MAX // 2
        weighs = _store_weight(len(part.keys) + 1, packed + len(value))
        if part.keys and (is_full or weighs > _PART_WEIGHT_MAX):
            yield part
            part, size, packed = dht_pb2.StoreRequest(peer=request.peer), 0, 0
        part.keys.append(key)
        part.subkeys.append(subkey)
        part.values.append(value)
        part.expiration_time.append(expires_at)
        part.in_cache.append(in_cache)
        size, packed = size + cost, packed + len(value)
    if part.keys:
        yield part


def trim_find_response(response: dht_pb2.FindResponse) -> dht_pb2.FindResponse:
    """Our own answer, with the values left out that would make it too large to send."""
    excess = response.ByteSize() - limits.DHT_MESSAGE_BYTES_MAX
    for result in reversed(response.results):
        if excess <= 0:
            break
        excess -= len(result.value)
        result.type, result.value, result.expiration_time = dht_pb2.NOT_FOUND, b"", 0.0
    return response


def _check_keys(keys: Iterable[bytes]) -> None:
    if any(len(key) != NODE_ID_BYTES for key in keys):
        raise ProtocolError("a key of the wrong length")


def _sound_value(subkey: bytes, value: bytes, expires_at: float, now: float) -> bytes | None:
    """The value that may be handed to hivemind, or None."""
    try:
        if subkey == _DICTIONARY_TAG:
            entries = unpack_dictionary(value, now)
            return pack_dictionary(entries) if entries else None
        entry = Entry(_subkey_decoder.decode(subkey), value, expires_at)
    except (ProtocolError, *_DECODE_ERRORS):
        return None
    return value if is_entry_sound(entry, now) else None


def clean_node_info(response: dht_pb2.FindResponse, remote: PeerID) -> None:
    if response.peer.node_id != node_id_of(remote):
        response.peer.node_id = b""  # hivemind takes this for a peer that serves nothing


def _clean_neighbours(result: dht_pb2.FindResult) -> None:
    if len(result.nearest_node_ids) != len(result.nearest_peer_ids):
        raise ProtocolError("an answer with more node ids than peers")
    pairs = list(zip(result.nearest_node_ids, result.nearest_peer_ids, strict=True))
    del result.nearest_node_ids[:], result.nearest_peer_ids[:]
    for node_id, peer_bytes in pairs[: limits.DHT_NEIGHBOURS_MAX]:
        if len(peer_bytes) != _PEER_BYTES or not peer_bytes.startswith(_PEER_PREFIX):
            continue
        if node_id == hashlib.sha1(peer_bytes, usedforsecurity=False).digest():
            result.nearest_node_ids.append(node_id)
            result.nearest_peer_ids.append(peer_bytes)
