"""Arrays on the wire: what comes out is what went in, and a claim is checked before it costs."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import limits
from protocols.codec import decode_header
from protocols.errors import ProtocolError
from protocols.tensors import ITEM_BYTES, TensorSpec, join_payload, split_payload

DECODER: msgspec.msgpack.Decoder[TensorSpec] = msgspec.msgpack.Decoder(TensorSpec)
specs = st.builds(
    TensorSpec,
    dtype=st.sampled_from(sorted(ITEM_BYTES)),
    shape=st.lists(st.integers(0, 5), max_size=limits.TENSOR_RANK_MAX).map(tuple),
)


@given(st.lists(specs, max_size=4), st.randoms())
def test_what_was_joined_is_split_again(wanted: list[TensorSpec], rng: Any) -> None:
    arrays = [rng.randbytes(spec.size) for spec in wanted]
    payload = join_payload(wanted, arrays)
    assert [bytes(part) for part in split_payload(wanted, payload)] == arrays


@given(st.lists(specs, max_size=4), st.binary(max_size=200))
def test_a_payload_of_another_size_is_refused(wanted: list[TensorSpec], payload: bytes) -> None:
    if sum(spec.size for spec in wanted) == len(payload):
        return
    with pytest.raises(ProtocolError):
        split_payload(wanted, payload)


def test_a_scalar_has_one_element() -> None:
    assert TensorSpec("bf16", ()).size == 2
    assert TensorSpec("f32", (3, 0)).size == 0


def test_an_array_of_another_size_than_its_spec_is_not_sent() -> None:
    with pytest.raises(ProtocolError):
        join_payload([TensorSpec("i8", (3,))], [b"1234"])


@pytest.mark.parametrize(
    "claim",
    [
        {"dtype": "U500000", "shape": (1,)},
        {"dtype": "f32", "shape": (1, 1, 1, 1, 1)},
        {"dtype": "f32", "shape": (-1,)},
        {"dtype": "f32", "shape": (2**40,)},
        {"dtype": "f32"},
    ],
)
def test_a_spec_beyond_the_bounds_is_no_spec(claim: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        decode_header(DECODER, msgspec.msgpack.encode(claim))


def test_the_largest_claim_costs_nothing() -> None:
    largest = TensorSpec("f32", (limits.PAYLOAD_BYTES_MAX,) * limits.TENSOR_RANK_MAX)
    with pytest.raises(ProtocolError):
        split_payload([largest], b"")
