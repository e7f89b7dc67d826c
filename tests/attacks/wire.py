"""The attackers' messages, byte for byte: what hivemind's own client would never send.

Knows protobuf, msgpack and the frames of our codec; sends nothing.
"""

import struct
from collections.abc import Iterator, Sequence

import msgspec
from hivemind.proto import dht_pb2, runtime_pb2

encode = msgspec.msgpack.encode
Ext = msgspec.msgpack.Ext

TUPLE_EXT, DICTIONARY_EXT = 0x40, 0x50
"""hivemind's msgpack extensions: its decoder calls itself for each of them."""
PLAIN_SUBKEY = encode(None)
DICTIONARY_TAG = b""
ID_BYTES = 20
FOREVER = float("inf")


def id_bytes(number: int) -> bytes:
    """A node id, or a key's."""
    return number.to_bytes(ID_BYTES, "big")


def nested_extensions(depth: int, innermost: bytes = b"\x01") -> bytes:
    """Tuples in tuples; plain hivemind's decoder overruns the C stack at some 200."""
    data = innermost
    for _ in range(depth):
        data = encode(Ext(TUPLE_EXT, data))
    return data


def nested_arrays(depth: int) -> bytes:
    """A dictionary of records whose third part is arrays in arrays."""
    return encode(Ext(DICTIONARY_EXT, b"\x93\x01\x01\x91" + b"\x91" * depth + b"\x01"))


def store(keys: Sequence[bytes], subkey: bytes, value: bytes, expires_at: float) -> bytes:
    """The same value under all `keys` in one request."""
    count = len(keys)
    request = dht_pb2.StoreRequest(
        keys=keys,
        subkeys=[subkey] * count,
        values=[value] * count,
        expiration_time=[expires_at] * count,
        in_cache=[False] * count,
    )
    return bytes(request.SerializeToString())


def find(count: int, node_id: bytes = b"") -> bytes:
    """A search for `count` different keys; 150,000 are 3.3 MB."""
    keys = [id_bytes(number * 0x9E3779B97F4A7C15) for number in range(count)]
    request = dht_pb2.FindRequest(keys=keys, peer=dht_pb2.NodeInfo(node_id=node_id))
    return bytes(request.SerializeToString())


def ping(node_id: bytes) -> bytes:
    """A peer says under which id it takes part in the DHT."""
    request = dht_pb2.PingRequest(peer=dht_pb2.NodeInfo(node_id=node_id))
    return bytes(request.SerializeToString())


def wide_tensor(dtype: str, count: int) -> bytes:
    """`count` half floats that claim to have been strings of some 100,000 characters."""
    tensor = runtime_pb2.Tensor(
        compression=runtime_pb2.CompressionType.FLOAT16,
        dtype=dtype,
        buffer=bytes(2 * count),
        size=[count],
    )
    request = runtime_pb2.ExpertRequest(uid="any", tensors=[tensor])
    return bytes(request.SerializeToString())


def stream_claim(size: int) -> bytes:
    """How hivemind's stream of messages begins: a marker and the message's length."""
    return b"\x00" + size.to_bytes(8, "big")


def frame_claim(header: int, payload: int) -> bytes:
    """How a frame of ours begins."""
    return struct.pack(">II", header, payload)


def frame(header: object, payload: bytes = b"") -> bytes:
    """A frame around any header, however wrong."""
    data = header if isinstance(header, bytes) else encode(header)
    return frame_claim(len(data), len(payload)) + data + payload


def garbage() -> Iterator[tuple[str, bytes]]:
    """Calls of the DHT that are no messages, or messages of the wrong shape."""
    for method in ("rpc_ping", "rpc_store", "rpc_find"):
        for data in (b"", b"\xff" * 100, b"\x0a\xff\xff\xff\xff\x7f", bytes(range(256))):
            yield method, data
    for columns in ({"keys": [b"x"]}, {"keys": [b"x" * 20], "values": [b"1", b"2"]}):
        yield "rpc_store", dht_pb2.StoreRequest(**columns).SerializeToString()
    yield "rpc_find", dht_pb2.FindRequest(keys=[b"short"]).SerializeToString()
    yield "rpc_ping", ping(b"short")


def bad_frames() -> Iterator[bytes]:
    """Frames on an ask stream that are not, or not quite, a question."""
    yield frame(b"\xc1")
    yield frame(b"\x91" * 100_000 + b"\x01")
    yield frame({"type": "ask"})
    yield frame({"type": "cancel"})
    yield frame({"type": "no such thing"})
    yield frame([1, 2, 3], b"payload")
    yield frame_claim(2**32 - 1, 2**32 - 1)
    yield frame_claim(0, 1)
    yield frame(nested_extensions(400))


def bad_tensors() -> Iterator[bytes]:
    """Frames of arrays whose type, shape or size is a lie."""
    large = 8 * 1024 * 1024
    yield frame({"type": "tensors", "arrays": [{"dtype": "U500000", "shape": [1009]}]}, bytes(2018))
    yield frame({"type": "tensors", "arrays": [{"dtype": "f32", "shape": [large] * 4}]}, bytes(4))
    yield frame({"type": "tensors", "arrays": [{"dtype": "f32", "shape": [0, large]}]}, bytes(4))
    yield frame({"type": "tensors", "arrays": [{"dtype": "i8", "shape": [-1, -4]}]}, bytes(4))
    yield frame({"type": "tensors", "arrays": [{"dtype": "i8", "shape": [1] * 9}]}, bytes(1))
    yield frame({"type": "tensors", "arrays": [{"dtype": "i8", "shape": [0]}] * 50_000})
    yield frame_claim(100, 2**32 - 1)


def inner_provider(number: int, peer: bytes, where: bytes) -> bytes:
    """An ADD_PROVIDER message of IPFS's DHT, which p2pd speaks: `peer` has what `number` names."""
    key = b"\x12\x20" + number.to_bytes(32, "big")
    provider = _field(1, peer) + _field(2, where) + b"\x18\x01"
    body = b"\x08\x02" + _field(2, key) + _field(9, provider) + b"\x50\x00"
    return _varint(len(body)) + body


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(encoded) + bytes([number])
