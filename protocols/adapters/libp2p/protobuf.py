"""Protobuf messages of others, taken apart without a schema and without recursion.

Knows numbers and length-delimited fields, which is all that libp2p's own protocols use; must not
know what they mean.
"""

from collections.abc import Iterator

from protocols.errors import ProtocolError

VARINT, LENGTH_DELIMITED = 0, 2
"""Wire types."""
_VARINT_BYTES_MAX = 10


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and content of each field; `ProtocolError` for any other kind of field."""
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        value, at = varint(data, at)
        if tag & 7 == VARINT:
            yield tag >> 3, value
            continue
        if tag & 7 != LENGTH_DELIMITED or value > len(data) - at:
            raise ProtocolError("a malformed message")
        yield tag >> 3, data[at : at + value]
        at += value


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A number and where the next one begins."""
    value = 0
    for index, byte in enumerate(data[at : at + _VARINT_BYTES_MAX]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise ProtocolError("a malformed number")


def encode_varint(number: int) -> bytes:
    """The bytes of a number, 0 or more."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def encode_field(number: int, value: int | bytes) -> bytes:
    """One field."""
    if isinstance(value, int):
        return encode_varint(number << 3 | VARINT) + encode_varint(value)
    head = encode_varint(number << 3 | LENGTH_DELIMITED) + encode_varint(len(value))
    return head + value
