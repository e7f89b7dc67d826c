"""Where the values of an encoded document begin and end, so that they can be cut out and replaced.

Knows the outer grammar of msgpack, JSON, protobuf, GGUF and words of text; must not know any
schema. What does not parse has fewer spans, never an error: the input may be damaged already.
"""

import contextlib
import re
import struct
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import NamedTuple

SPANS_MAX = 400
_DEPTH_MAX = 24
_JSON = re.compile(rb'"(?:[^"\\]|\\.)*"(\s*:)?|-?\d[\d.eE+-]*|true|false|null|[\[\]{}]')
_WORD = re.compile(rb'"[^"\n]*"|[A-Za-z0-9_.\x80-\xff-]+|[^\sA-Za-z0-9]')
_COUNT_BYTES = {0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}
_LENGTH_BYTES = {
    0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4,
}  # fmt: skip
_FLAT_BYTES = {
    0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,
    0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17,
}  # fmt: skip
_GGUF_NUMBER_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


class Span(NamedTuple):
    """Bytes `start` to `end`. `lengths` are the places of the varints that count these bytes too,
    outermost first (protobuf only).
    """

    start: int
    end: int
    lengths: tuple[tuple[int, int], ...] = ()


class _Cut(Exception):
    """The document ends or breaks here; the spans so far stand."""


def spans_of(data: bytes, style: str) -> tuple[Span, ...]:
    """The values in `data`, at most `SPANS_MAX`, inner ones included."""
    found: list[Span] = []
    with contextlib.suppress(_Cut, IndexError, struct.error):
        for span in _FINDERS[style](data):
            if span.end <= len(data):
                found.append(span)
            if len(found) >= SPANS_MAX:
                break
    return tuple(found)


def replace_span(data: bytes, span: Span, new: bytes) -> bytes:
    """`data` with `new` in the place of `span`, and the lengths around it put right."""
    result = data[: span.start] + new + data[span.end :]
    grown = len(new) - (span.end - span.start)
    for start, end in reversed(span.lengths):
        length = _varint_at(data, start)[0] + grown
        encoded = varint(length)
        result = result[:start] + encoded + result[end:]
        grown += len(encoded) - (end - start)
    return result


def varint(number: int) -> bytes:
    """`number` as protobuf writes it."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _msgpack(data: bytes) -> Iterator[Span]:
    found: list[Span] = []
    with contextlib.suppress(_Cut, IndexError):  # the values before the damage stand
        _msgpack_value(data, 0, found, 0)
    yield from found


def _msgpack_value(data: bytes, at: int, found: list[Span], depth: int) -> int:
    """Note the value at `at` and those inside it; where it ends."""
    size, items, is_map = _msgpack_head(data, at)
    end = at + size
    if end > len(data) or depth > _DEPTH_MAX or len(found) > SPANS_MAX:
        raise _Cut
    pair = end
    for index in range(items):
        if index % 2 == 0:
            pair = end
        end = _msgpack_value(data, end, found, depth + 1)
        if is_map and index % 2:
            found.append(Span(pair, end))
    found.append(Span(at, end))
    return end


def _msgpack_head(data: bytes, at: int) -> tuple[int, int, bool]:
    """Bytes of head (and flat content), count of values inside, whether they are pairs."""
    kind = data[at]
    if 0x80 <= kind <= 0x8F:
        return 1, 2 * (kind & 15), True
    if 0x90 <= kind <= 0x9F:
        return 1, kind & 15, False
    if kind in _COUNT_BYTES:
        width = _COUNT_BYTES[kind]
        count = int.from_bytes(data[at + 1 : at + 1 + width], "big")
        return 1 + width, count * (2 if kind >= 0xDE else 1), kind >= 0xDE
    if kind in _LENGTH_BYTES:
        width = _LENGTH_BYTES[kind]
        length = int.from_bytes(data[at + 1 : at + 1 + width], "big")
        return 1 + width + length + (0xC7 <= kind <= 0xC9), 0, False
    return 1 + (kind & 31 if 0xA0 <= kind <= 0xBF else _FLAT_BYTES.get(kind, 0)), 0, False


def _json(data: bytes) -> Iterator[Span]:
    opened: list[tuple[int, int]] = []
    key = -1
    for match in _JSON.finditer(data):
        start, end = match.span()
        token = data[start]
        if token in b"[{":
            opened.append((start, key))
            key = -1
            continue
        if match[1] is not None:
            key = start
            continue
        if token in b"]}":
            if not opened:
                return
            start, key = opened.pop()
        yield Span(start, end)
        if key >= 0:
            yield Span(key, end)
        key = -1


def _protobuf(data: bytes) -> Iterator[Span]:
    yield from _protobuf_fields(data, 0, len(data), (), 0)


def _protobuf_fields(
    data: bytes, at: int, stop: int, lengths: tuple[tuple[int, int], ...], depth: int
) -> Iterator[Span]:
    while at < stop:
        begun = at
        tag, at = _varint_at(data, at)
        if tag & 7 == 0:
            _, at = _varint_at(data, at)
        elif tag & 7 in (1, 5):
            at += 8 if tag & 7 == 1 else 4
        elif tag & 7 == 2:
            place = at
            length, at = _varint_at(data, at)
            inner = (*lengths, (place, at))
            if length and at + length <= stop:
                yield Span(at, at + length, inner)
                if depth < 3 and _is_message(data, at, at + length):
                    yield from _protobuf_fields(data, at, at + length, inner, depth + 1)
            at += length
        else:
            raise _Cut
        if at > stop:
            raise _Cut
        yield Span(begun, at, lengths)


def _is_message(data: bytes, at: int, stop: int) -> bool:
    try:
        return all(True for _ in _protobuf_fields(data, at, stop, (), 3))
    except (_Cut, IndexError):
        return False


def _varint_at(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while data[at] & 0x80:
        number |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if shift > 63:
            raise _Cut
    return number | data[at] << shift, at + 1


def _gguf(data: bytes) -> Iterator[Span]:
    yield from (Span(0, 4), Span(4, 8), Span(8, 16), Span(16, 24))
    tensors, keys = struct.unpack_from("<QQ", data, 8)
    at = 24
    for _ in range(min(keys, SPANS_MAX)):
        begun = at
        at = yield from _gguf_string(data, at)
        (kind,) = struct.unpack_from("<I", data, at)
        yield Span(at, at + 4)
        value, at = at, (yield from _gguf_value(data, at + 4, kind))
        yield Span(value, at)
        yield Span(begun, at)
    for _ in range(min(tensors, SPANS_MAX)):
        begun = at
        at = yield from _gguf_string(data, at)
        (dimensions,) = struct.unpack_from("<I", data, at)
        for place in range(at + 4, at + 4 + 8 * min(dimensions, 8), 8):
            yield Span(place, place + 8)
        at += 4 + 8 * dimensions
        yield Span(at, at + 4)
        yield Span(at + 4, at + 12)
        at += 12
        yield Span(begun, at)


def _gguf_string(data: bytes, at: int) -> Generator[Span, None, int]:
    end = at + 8 + int(struct.unpack_from("<Q", data, at)[0])
    if end > len(data):
        raise _Cut
    yield Span(at, at + 8)
    yield Span(at, end)
    return end


def _gguf_value(data: bytes, at: int, kind: int) -> Generator[Span, None, int]:
    if kind == 8:
        return (yield from _gguf_string(data, at))
    if kind != 9:
        return at + _GGUF_NUMBER_BYTES.get(kind, 1)
    inner, count = (int(number) for number in struct.unpack_from("<IQ", data, at))
    yield from (Span(at, at + 4), Span(at + 4, at + 12))
    at += 12
    if inner != 8:
        return at + count * _GGUF_NUMBER_BYTES.get(inner, 1)
    for index in range(count):
        strings = _gguf_string(data, at)
        if index < 8:
            at = yield from strings
        else:
            at += 8 + int(struct.unpack_from("<Q", data, at)[0])
    return at


def _words(data: bytes) -> Iterator[Span]:
    for match in _WORD.finditer(data):
        yield Span(*match.span())


def _none(_data: bytes) -> Iterator[Span]:
    yield from ()


_FINDERS: Mapping[str, Callable[[bytes], Iterator[Span]]] = {
    "msgpack": _msgpack,
    "json": _json,
    "protobuf": _protobuf,
    "gguf": _gguf,
    "text": _words,
    "raw": _none,
}
STYLES = tuple(_FINDERS)
