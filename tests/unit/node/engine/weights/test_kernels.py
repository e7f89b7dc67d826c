"""The fast kernels against the referee, and against themselves in batches of other sizes."""

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

from node.engine.weights.hold import hold, hold_table
from node.engine.weights.int4 import FEW as FEW_FOR_INT4
from node.engine.weights.int4 import Int4Matrix
from node.engine.weights.int8 import FEW as FEW_FOR_INT8
from node.engine.weights.int8 import Int8Matrix
from node.engine.weights.matrix import DenseMatrix, Matrix, RefereeMatrix
from node.engine.weights.packings import Int8Groups, Packed
from node.engine.weights.quantise import quantise_int4, quantise_int8
from tests.effort import few

SHAPES = [(64, 32), (960, 576), (576, 1536), (48, 64), (16, 96), (320, 64), (80, 32)]
ODD = [(7, 33), (61, 32), (5, 48), (1, 1), (33, 65)]
"""No whole sixteens of rows, no whole groups of columns."""
BOUND = 0.01
"""Relative error of a product: bf16 rows, weights and sums. Dense bf16 has 0.003."""


def weight(out: int, into: int) -> Tensor:
    generator = torch.Generator().manual_seed(out * into)
    return torch.randn(out, into, generator=generator) * 0.05


def rows(tokens: int, into: int) -> Tensor:
    generator = torch.Generator().manual_seed(tokens)
    return torch.randn(tokens, into, generator=generator).bfloat16()


def error(got: Tensor, wanted: Tensor) -> float:
    return float((got.float() - wanted).norm() / wanted.norm())


def groups_of(matrix: Tensor) -> Int8Groups:
    grouped = matrix.view(len(matrix), -1, 32)
    scales = (grouped.abs().amax(dim=-1) / 127).half()
    codes = (grouped / scales.float().unsqueeze(-1)).round().clamp(-127, 127).to(torch.int8)
    return Int8Groups(codes, scales)


PACK: Mapping[str, Callable[[Tensor], Packed]] = {
    "int4": quantise_int4,
    "int8": quantise_int8,
    "groups": groups_of,
}


@pytest.mark.parametrize("tokens", few([1, 2, 7, 8, 9, 32, 33, 48, 64, 65, 200], 4))
@pytest.mark.parametrize(("out", "into"), few(SHAPES, 4))
@pytest.mark.parametrize("kind", ["int4", "int8", "groups"])
def test_fast_kernels_are_near_the_referee(kind: str, out: int, into: int, tokens: int) -> None:
    plain = weight(out, into)
    stored = PACK[kind](plain)
    fast, referee = hold([stored], torch.bfloat16), hold([stored], torch.float32)
    assert isinstance(fast, Int4Matrix if kind == "int4" else Int8Matrix)
    assert isinstance(referee, RefereeMatrix)
    x = rows(tokens, into)
    wanted = referee.multiply(x.float())
    # A row's one scale costs what a group's scales would not.
    assert error(fast.multiply(x), wanted) < (1.5 * BOUND if kind == "groups" else BOUND)
    assert error(fast.multiply(x), x.float() @ plain.t()) < (0.15 if kind == "int4" else 0.03)


@pytest.mark.parametrize(("out", "into"), ODD)
@pytest.mark.parametrize("tokens", [1, 3, 50])
def test_odd_shapes_are_computed_too(out: int, into: int, tokens: int) -> None:
    stored = quantise_int8(weight(out, into))
    x = rows(tokens, into)
    wanted = hold([stored], torch.float32).multiply(x.float())
    assert error(hold([stored], torch.bfloat16).multiply(x), wanted) < BOUND


def test_four_bits_without_a_kernel_become_floats() -> None:
    stored = quantise_int4(weight(61, 64))
    held = hold([stored], torch.bfloat16)
    assert isinstance(held, DenseMatrix)
    x = rows(5, 64)
    assert error(held.multiply(x), x.float() @ stored.dequantised().t()) < BOUND


def made(kind: str, out: int, into: int) -> Matrix:
    plain = weight(out, into)
    stored = quantise_int4(plain) if kind == "int4" else quantise_int8(plain)
    return hold([stored], torch.bfloat16)


@pytest.mark.parametrize("kind", ["int4", "int8"])
@pytest.mark.parametrize(("out", "into"), few([(960, 576), (3072, 576), (576, 1536), (320, 64)], 2))
def test_a_row_does_not_depend_on_its_neighbours(kind: str, out: int, into: int) -> None:
    """To the last bit, among few and among many rows."""
    matrix = made(kind, out, into)
    few = FEW_FOR_INT4 if kind == "int4" else FEW_FOR_INT8
    x = rows(512, into)
    x[-1] *= 1000  # an outlier spoils scales that are shared
    alone = torch.cat([matrix.multiply(x[at : at + 1]) for at in range(few)])
    for tokens in range(1, few + 1):
        assert torch.equal(matrix.multiply(x[:tokens]), alone[:tokens])
    among_many = matrix.multiply(x)
    for tokens in (few + 1, few + 2, 64, 65, 100, 128, 300, 511):
        if tokens > few:
            assert torch.equal(matrix.multiply(x[:tokens]), among_many[:tokens])
    assert torch.equal(matrix.multiply(x.flip(0)).flip(0), among_many)
    assert error(among_many[:few], alone.float()) < BOUND


def test_in_fp32_the_referee_computes_with_the_dequantised_matrix() -> None:
    plain = weight(960, 576)
    x = rows(9, 576).float()
    for stored in (quantise_int4(plain), quantise_int8(plain), groups_of(plain)):
        wanted = torch.nn.functional.linear(x, stored.dequantised())
        assert torch.equal(hold([stored], torch.float32).multiply(x), wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["int4", "int8", "groups", "floats"])
def test_a_table_gives_rows(kind: str, dtype: torch.dtype) -> None:
    plain = weight(70, 64)
    stored = plain if kind == "floats" else PACK[kind](plain)
    table = hold_table(stored, dtype)
    index = torch.tensor([69, 0, 0, 13])
    got = table.gather(index)
    assert got.dtype == dtype
    dense = stored if isinstance(stored, Tensor) else stored.dequantised()
    if dtype is torch.float32:
        assert torch.equal(got, dense[index])
    assert error(got, dense[index]) < BOUND


def test_parts_that_are_packed_differently_are_joined_as_floats() -> None:
    plain = weight(64, 64)
    four, eight = quantise_int4(plain[:32]), quantise_int8(plain[32:])
    held = hold([four, eight], torch.float32)
    x = rows(3, 64).float()
    wanted = x @ torch.cat((four.dequantised(), eight.dequantised())).t()
    assert torch.allclose(held.multiply(x), wanted, atol=1e-6)


def test_sizes_are_those_of_what_is_held() -> None:
    plain = weight(960, 576)
    assert hold([quantise_int4(plain)], torch.bfloat16).size == 960 * 576 * 5 // 8
    assert hold([quantise_int8(plain)], torch.bfloat16).size == 960 * 576 + 960 * 2
    assert hold([plain], torch.bfloat16).size == 960 * 576 * 2
