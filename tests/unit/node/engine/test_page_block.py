"""Pages as bytes: what comes back is what went out, as nearly as it can; junk is refused."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from node.engine.page_block import MAGNITUDE_MAX, PageBlock, decode_block, encode_block
from protocols.errors import ProtocolError
from protocols.memory import page_bytes
from protocols.messages.memory import Encoding, PageLayout
from tests.effort import examples

SHAPE = (3, 2, 32, 8)
LAYOUT = PageLayout("b", "fp32", 3, 2, 8, 16)


def random_block(scale: float = 1.0, seed: int = 1) -> PageBlock:
    generator = torch.Generator().manual_seed(seed)
    keys, values = (torch.randn(SHAPE, generator=generator) * scale for _ in range(2))
    return PageBlock(keys, values)


@pytest.mark.parametrize("encoding", ["f32", "bf16", "i8"])
def test_the_payload_is_as_large_as_the_protocol_says(encoding: Encoding) -> None:
    assert len(encode_block(random_block(), encoding)) == 2 * page_bytes(LAYOUT, encoding)


def test_floats_come_back_as_they_were() -> None:
    block = random_block()
    exact = decode_block(encode_block(block, "f32"), SHAPE, "f32")
    assert torch.equal(exact.keys, block.keys)
    assert torch.equal(exact.values, block.values)
    half = decode_block(encode_block(block, "bf16"), SHAPE, "bf16")
    assert torch.equal(half.values, block.values.bfloat16())


@settings(max_examples=examples(200), deadline=None)
@given(exponent=st.integers(-12, 4), seed=st.integers(0, 9))
def test_an_int8_vector_is_off_by_half_a_step_at_most(exponent: int, seed: int) -> None:
    block = random_block(10.0**exponent if exponent < 4 else 3_000.0, seed)
    found = decode_block(encode_block(block, "i8"), SHAPE, "i8")
    for one, other in ((found.keys, block.keys), (found.values, block.values)):
        most = other.abs().amax(-1, keepdim=True)
        # Half of a step, the rounding of its length to f16, and what f16 cannot say at all.
        assert bool(((one - other).abs() <= most * (0.5 / 127 + 2**-10) + 127 * 2**-24).all())


def test_zeros_stay_zeros() -> None:
    block = PageBlock(torch.zeros(SHAPE), torch.zeros(SHAPE))
    found = decode_block(encode_block(block, "i8"), SHAPE, "i8")
    assert not found.keys.any()
    assert not found.values.any()


@pytest.mark.parametrize("encoding", ["f32", "bf16", "i8"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 2 * MAGNITUDE_MAX, -2 * MAGNITUDE_MAX])
def test_what_is_no_number_of_a_sound_model_is_refused(encoding: Encoding, bad: float) -> None:
    for part in range(2):
        block = random_block()
        (block.keys, block.values)[part][1, 1, 17, 3] = bad
        with pytest.raises(ProtocolError):
            decode_block(encode_block(block, encoding), SHAPE, encoding)


def test_a_scale_below_zero_is_refused() -> None:
    data = bytearray(encode_block(random_block(), "i8"))
    data[-1] |= 0x80
    with pytest.raises(ProtocolError):
        decode_block(bytes(data), SHAPE, "i8")


@pytest.mark.parametrize("encoding", ["f32", "bf16", "i8"])
def test_a_wrong_size_is_refused(encoding: Encoding) -> None:
    data = encode_block(random_block(), encoding)
    for wrong in (b"", data[:-1], data + b"x", data * 2):
        with pytest.raises(ProtocolError):
            decode_block(wrong, SHAPE, encoding)


@settings(max_examples=examples(400), deadline=None)
@given(data=st.data(), encoding=st.sampled_from(["f32", "bf16", "i8"]))
def test_any_bytes_are_refused_or_finite(data: st.DataObject, encoding: Encoding) -> None:
    shape = (1, 1, 1, 4)
    size = {"f32": 32, "bf16": 16, "i8": 12}[encoding]
    raw = data.draw(st.binary(min_size=size, max_size=size))
    try:
        block = decode_block(raw, shape, encoding)
    except ProtocolError:
        return
    for part in (block.keys, block.values):
        assert bool((part.abs() <= MAGNITUDE_MAX).all())
