"""Pieces of bytes that break parsers: edge numbers, lying lengths, nests, odd text; by style.

Knows encodings; must not know any schema of ours. Pieces are whole values where the style allows,
so that one put in a value's place leaves the rest of the document readable.
"""

import struct
from collections.abc import Mapping

NEST_DEPTHS = (3, 40, 1_100)
BOMB_BYTES = 60_000

_TEXTS = (
    b"", b"a", b"/", b"..", b"../../etc/passwd", b"\0", b"a\0b", b" ", b"\n", b"\r\n", b"%s%n",
    b"{}", b"-1", b"0", b"9" * 30, b"9" * 5_000, b"1e999", b"nan", b"\xc3\xa9", b"\xef\xbc\x99",
    b"\xc2\xb2", b"\xe2\x80\xae", b"\xf0\x9f\xa6\x99", b"\xff\xfe", b"\xed\xa0\x80", b"A" * 300,
    b"~nobody-here/x", b"./a", b"/p2p/", b"/ip4/", b"x" * 3_000,
)  # fmt: skip


def _msgpack() -> list[bytes]:
    doubles = (float("nan"), float("inf"), -float("inf"), -0.0, 1e308, 5e-324, -1.0, 0.5)
    pieces = [bytes([kind]) for kind in range(0xC0, 0x100)]
    pieces += [b"\x00", b"\x7f", b"\x80", b"\x90", b"\xa0"]
    pieces += [b"\xcb" + struct.pack(">d", number) for number in doubles]
    pieces += [b"\xca" + struct.pack(">f", number) for number in doubles[:3]]
    pieces += [b"\xcf" + b"\xff" * 8, b"\xcf\x80" + bytes(7), b"\xd3\x80" + bytes(7), b"\xd3" * 9]
    for width, kinds in ((1, b"\xc4\xc7\xd9"), (2, b"\xc5\xc8\xda\xdc\xde"), (4, b"\xc6\xc9\xdb")):
        pieces += [bytes([kind]) + b"\xff" * width for kind in kinds]
    pieces += [kind + size for kind in (b"\xdd", b"\xdf") for size in (b"\xff" * 4, b"\0\1\0\0")]
    pieces += [b"\xd6\xff" + b"\xff" * 4, b"\xd7\xff" + b"\xff" * 8, b"\xc7\x0c\xff" + b"\xff" * 12]
    pieces += [b"\xd4\x50\xc0", b"\xd4\x40\x90", b"\xc7\x00\x50", b"\xc7\x03\x50\x93\xc0\xc0"]
    pieces += [b"\x82\xa1a\x01\xa1a\x02", b"\x81\xc0\xc0", b"\x81\x90\xc0", b"\x81\x01\x02"]
    pieces += [b"\xda" + struct.pack(">H", len(text)) + text for text in _TEXTS]
    pieces += [b"\xc5" + struct.pack(">H", len(text)) + text for text in _TEXTS[:6]]
    for depth in NEST_DEPTHS:
        pieces += [b"\x91" * depth + b"\xc0", b"\x81\xa1a" * depth + b"\xc0", b"\x81" * depth]
    return pieces


def _json() -> list[bytes]:
    words = b"null true false 0 -0 -1 0.5 1e999 -1e999 1e-999 NaN Infinity 01 1. 9007199254740993"
    pieces = [*words.split(), b"9" * 25, b"9" * 5_000, b"18446744073709551616"]
    pieces += [b'""', b"[]", b"{}"]
    pieces += [b'"%s"' % text.replace(b"\n", b"\\n").replace(b"\0", b"\\u0000") for text in _TEXTS]
    pieces += [b'"\\ud800"', b'"\\ud800\\udc00"', b'"\\udc00x"', b'"\\u0000"', b'"\\x"', b'"\\']
    pieces += [b'{"a":1,"a":2}', b'"type":1', b"[null]", b"[[]]", b",", b":", b"[1,2,3]", b"/**/"]
    for depth in NEST_DEPTHS:
        pieces += [b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth]
    return [*pieces, b"[" * 3_000, b'{"a":' * 3_000]


def _protobuf() -> list[bytes]:
    pieces = [bytes([tag]) for tag in (0, 7, 0x0B, 0x0C, 0x0E, 0x08, 0x0A, 0x12, 0x1A, 0x22, 0x2A)]
    pieces += [
        b"\xff" * 9 + b"\x01",
        b"\xff" * 12,
        b"\x80" * 9 + b"\0",
        b"\x0a\xff\xff\xff\xff\x0f",
    ]
    doubles = (float("nan"), float("inf"), 0.0, 1e300, -1.0)
    pieces += [struct.pack("<d", number) for number in doubles]
    pieces += [b"\x19" + struct.pack("<d", number) for number in doubles]
    pieces += [b"\x0a\x00" * count for count in (1, 70, 2_000)]
    pieces += [b"\x0b" * depth for depth in NEST_DEPTHS] + [b"\x0a\x02" * 60]
    # Values in the store's messages are msgpack.
    return pieces + list(_TEXTS) + _msgpack()[:120]


def _gguf() -> list[bytes]:
    numbers = (0, 1, 2, 3, 8, 9, 31, 255, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
    pieces = [struct.pack("<Q", number) for number in numbers]
    pieces += [struct.pack("<I", number) for number in numbers if number < 2**32]
    pieces += [struct.pack("<I", kind) for kind in range(42)]
    pieces += [struct.pack("<If", 6, number) for number in (float("nan"), float("inf"), -1.0, 0.0)]
    pieces += [struct.pack("<Ii", 5, -1), struct.pack("<IQ", 10, 2**64 - 1), b"\7\0\0\0\1"]
    pieces += [struct.pack("<IIQ", 9, kind, count) for kind in (0, 8, 9) for count in (0, 1, 10**6)]
    pieces += [struct.pack("<Q", len(text)) + text for text in _TEXTS]
    return pieces + [struct.pack("<IQ", 8, len(text)) + text for text in _TEXTS]


def _text() -> list[bytes]:
    pieces = list(_TEXTS) + [bytes([byte]) for byte in b"/:.,=[]{}()\"'#%|-+*~\\\t"]
    pieces += [
        b"inf",
        b"-inf",
        b"1979-05-27T07:32:00Z",
        b"0x_",
        b"1_0",
        b'"""',
        b"'''",
        b"[[",
        b"]]",
    ]
    for depth in NEST_DEPTHS:
        pieces += [b"[" * depth, b"(" * depth, b"{a=" * depth, b"/" * depth]
    return pieces


PIECES: Mapping[str, tuple[bytes, ...]] = {
    "msgpack": tuple(_msgpack()),
    "json": tuple(_json()),
    "protobuf": tuple(_protobuf()),
    "gguf": tuple(_gguf()),
    "text": tuple(_text()),
    "raw": (*_TEXTS, *(bytes([byte]) * 4 for byte in range(0, 256, 5))),
}

BOMBS: Mapping[str, tuple[bytes, ...]] = {
    "msgpack": (
        b"\x91" * BOMB_BYTES,
        b"\x81\xa1a" * (BOMB_BYTES // 3),
        b"\xdd" + struct.pack(">I", BOMB_BYTES) + b"\xc0" * BOMB_BYTES,
        b"\xdd" + struct.pack(">I", BOMB_BYTES) + b"\x90" * BOMB_BYTES,
        b"\xc6" + struct.pack(">I", BOMB_BYTES) + bytes(BOMB_BYTES),
        b"\xdb" + struct.pack(">I", BOMB_BYTES) + b"a" * BOMB_BYTES,
        b"\xdf" + struct.pack(">I", BOMB_BYTES // 3) + b"\xa1a\x01" * (BOMB_BYTES // 3),
    ),
    "json": (
        b"[" * BOMB_BYTES,
        b'{"a":' * (BOMB_BYTES // 5),
        b"[" + b"1," * (BOMB_BYTES // 2) + b"1]",
        b'"' + b"\\u0041" * (BOMB_BYTES // 6) + b'"',
        b"9" * BOMB_BYTES,
    ),
    "protobuf": (
        b"\x0a\x00" * (BOMB_BYTES // 2),
        b"\x12\x00" * (BOMB_BYTES // 2),
        b"\x0b" * BOMB_BYTES,
        b"\x0a\x14" + bytes(20) + b"\x0a\x14" + bytes(20) * (BOMB_BYTES // 44),
        b"\x1a\x04\x12\x02\x0a\x00" * (BOMB_BYTES // 6),
    ),
    "gguf": (bytes(BOMB_BYTES), b"\xff" * BOMB_BYTES),
    "text": (b"[" * BOMB_BYTES, b"9" * BOMB_BYTES, b"a" * BOMB_BYTES, b"a." * (BOMB_BYTES // 2)),
    "raw": (bytes(BOMB_BYTES), b"\xff" * BOMB_BYTES),
}
"""Rare, because each costs as much as a hundred small inputs."""
