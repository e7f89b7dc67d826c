"""The fuzzer's own tools: inputs depend on the seed alone, and cuts are made between values."""

import json

import msgspec
import pytest

from tests.fuzz.hostile import BOMB_BYTES, BOMBS, PIECES
from tests.fuzz.model_files import gguf_bytes
from tests.fuzz.mutator import Mutator
from tests.fuzz.spans import STYLES, replace_span, spans_of, varint

DOCUMENT = {"type": "ask", "ids": [1, 70_000, 2**40], "deep": {"list": ["x" * 40, b"y", None, 0.5]}}
PACKED = msgspec.msgpack.encode(DOCUMENT)
JSON = json.dumps({"a": [1, {"b": "c, ]"}, None], "d": {"e": -1.5e3, "f": True}}).encode()


def field(number: int, content: bytes) -> bytes:
    """A protobuf field with a length."""
    return varint(number << 3 | 2) + varint(len(content)) + content


@pytest.mark.parametrize("style", STYLES)
def test_the_same_seed_gives_the_same_inputs(style: str) -> None:
    def first(seed: int) -> list[bytes]:
        mutator = Mutator(seed, [PACKED, JSON, gguf_bytes()], style)
        return [mutator.draw() for _ in range(400)]

    assert first(3) == first(3)
    assert first(3) != first(4)
    assert len(set(first(3))) > 300


def test_inputs_are_bounded() -> None:
    mutator = Mutator(1, [PACKED], "msgpack", bytes_max=500)
    lengths = [len(mutator.draw()) for _ in range(8_000)]
    assert sum(length > 500 for length in lengths) < 60
    assert max(lengths) < BOMB_BYTES + 1_000
    without = Mutator(1, [PACKED], "msgpack", bytes_max=500, bomb_share=0.0)
    assert all(len(without.draw()) <= 500 for _ in range(8_000))


def test_every_style_has_pieces_and_bombs() -> None:
    assert set(PIECES) == set(BOMBS) == set(STYLES)


def test_a_value_cut_out_of_msgpack_leaves_msgpack() -> None:
    spans = spans_of(PACKED, "msgpack")
    assert {PACKED[span.start : span.end] for span in spans} >= {
        msgspec.msgpack.encode(value)
        for value in ("ask", 70_000, b"y", None, 0.5, DOCUMENT["deep"])
    }
    whole = 0
    for span in spans:
        try:
            msgspec.msgpack.decode(replace_span(PACKED, span, b"\xa3new"))
        except msgspec.MsgspecError:
            continue  # a key with its value: two values less one
        whole += 1
    assert whole >= len(spans) * 2 // 3


def test_a_value_cut_out_of_json_leaves_json() -> None:
    spans = spans_of(JSON, "json")
    values = {JSON[span.start : span.end] for span in spans}
    assert values >= {b"1", b'"c, ]"', b"null", b"-1500.0", b"true", JSON, b'"b": "c, ]"'}
    for span in spans:
        new = b'"k": 0' if JSON[span.start : span.end].startswith((b'"b":', b'"a":')) else b"0"
        if b'": ' not in JSON[span.start : span.end] or new != b"0":
            json.loads(replace_span(JSON, span, new))


def test_lengths_around_a_protobuf_value_are_put_right() -> None:
    inner = field(1, b"peer")
    data = field(3, inner + field(2, b"x" * 120)) + b"\x08\x05"
    spans = [span for span in spans_of(data, "protobuf") if data[span.start : span.end] == b"peer"]
    assert len(spans) == 1
    longer = field(3, field(1, b"p" * 200) + field(2, b"x" * 120)) + b"\x08\x05"
    assert replace_span(data, spans[0], b"p" * 200) == longer


def test_the_parts_of_a_gguf_file_are_found() -> None:
    data = gguf_bytes()
    parts = {data[span.start : span.end] for span in spans_of(data, "gguf")}
    assert b"GGUF" in parts
    assert any(part.endswith(b"general.architecture") for part in parts)
    assert any(part.endswith(b"blk.0.attn_q.weight") for part in parts)


@pytest.mark.parametrize("style", STYLES)
def test_damaged_documents_have_fewer_spans_and_no_errors(style: str) -> None:
    mutator = Mutator(9, [PACKED, JSON, gguf_bytes(), field(1, field(2, b"x"))], style)
    for _ in range(600):
        data = mutator.draw()
        assert all(0 <= span.start <= span.end <= len(data) for span in spans_of(data, style))
