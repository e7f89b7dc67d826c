"""What packed weights are, and what our quantiser makes of floats."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from node.engine.weights.packings import (
    GROUP,
    Int4Groups,
    Int8Groups,
    Packed,
    row_count,
    rows_of,
    select,
    stack,
)
from node.engine.weights.quantise import quantise_int4, quantise_int8
from tests.effort import examples


def random_matrix(rows: int, columns: int, seed: int = 0, spread: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scales = torch.exp(spread * torch.randn(rows, 1, generator=generator))
    return torch.randn(rows, columns, generator=generator) * scales


def test_a_group_is_read_low_halves_first() -> None:
    codes = torch.arange(16, dtype=torch.uint8).view(1, 1, 16) | (5 << 4)
    packed = Int4Groups(codes, torch.tensor([[0.5]]), torch.tensor([[-1.0]]))
    wanted = [0.5 * code - 1.0 for code in range(16)] + [1.5] * 16
    assert packed.dequantised().tolist() == [wanted]


@pytest.mark.parametrize("kind", ["int4", "int8", "groups"])
def test_rows_can_be_taken_ordered_and_stacked(kind: str) -> None:
    matrix = random_matrix(9, 64)
    packed: Packed
    if kind == "groups":
        codes = torch.randint(-128, 128, (9, 2, 32)).to(torch.int8)
        packed = Int8Groups(codes, torch.rand(9, 2).half())
    else:
        packed = quantise_int4(matrix) if kind == "int4" else quantise_int8(matrix)
    whole = packed.dequantised()
    order = torch.tensor([8, 0, 3, 3])
    assert torch.equal(select(packed, order).dequantised(), whole[order])
    parts = [select(packed, slice(0, 4)), select(packed, slice(4, 9))]
    assert torch.equal(stack(parts).dequantised(), whole)
    assert torch.equal(rows_of(packed, 2, 5), whole[2:5])
    assert row_count(packed) == 9


@given(seed=st.integers(0, 2**31), spread=st.floats(0, 6))
@settings(max_examples=examples(50), deadline=None)
def test_eight_bits_are_off_by_half_a_step_at_most(seed: int, spread: float) -> None:
    matrix = random_matrix(5, 48, seed, spread)
    packed = quantise_int8(matrix)
    scales = packed.scales.float().unsqueeze(1)
    # The scale itself is rounded to eight bits: 127 codes can fall short by half of one of them.
    assert ((packed.dequantised() - matrix).abs() <= scales * (0.5 + 127 / 256)).all()
    inner = packed.codes.abs() < 127
    assert (
        (packed.dequantised() - matrix).abs()[inner] <= (scales * 0.5001).expand(5, 48)[inner]
    ).all()


@given(seed=st.integers(0, 2**31), spread=st.floats(0, 6), shift=st.floats(-3, 3))
@settings(max_examples=examples(50), deadline=None)
def test_four_bits_are_no_worse_than_a_plain_grid(seed: int, spread: float, shift: float) -> None:
    """The plain grid of 16 steps from the least to the greatest, its ends kept in fp32."""
    matrix = random_matrix(4, 96, seed, spread) + shift
    groups = matrix.view(4, 3, GROUP)
    low, high = groups.aminmax(dim=-1, keepdim=True)
    step = (high - low) / 15
    plain = ((groups - low) / step).round() * step + low
    ours = quantise_int4(matrix).dequantised().view(4, 3, GROUP)
    error = (ours - groups).square().sum()
    assert error <= 1.1 * (plain - groups).square().sum() + 1e-3 * matrix.square().sum() * 2**-8


def test_four_bits_beat_the_plain_grid_on_bell_shaped_weights() -> None:
    matrix = random_matrix(256, 256, 3, 0)
    groups = matrix.view(256, 8, GROUP)
    low, high = groups.aminmax(dim=-1, keepdim=True)
    step = (high - low) / 15
    plain = ((groups - low) / step).round() * step + low
    ours = quantise_int4(matrix).dequantised().view_as(groups)
    gain = (ours - groups).square().sum() / (plain - groups).square().sum()
    assert gain < 0.95


def test_what_lies_on_a_grid_of_four_bits_stays_where_it_is() -> None:
    """So a model that was trained or published in such a grid loses nothing by ours."""
    codes = torch.randint(0, 16, (64, 4, 32), generator=torch.Generator().manual_seed(1))
    codes[..., 0], codes[..., 1] = 0, 15
    matrix = (codes * 0.25 - 1.0).flatten(1)
    assert torch.equal(quantise_int4(matrix).dequantised(), matrix)


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0])
def test_rows_of_equal_numbers(value: float) -> None:
    matrix = torch.full((3, 64), value)
    assert torch.allclose(quantise_int8(matrix).dequantised(), matrix, rtol=0.005)
    assert torch.allclose(quantise_int4(matrix).dequantised(), matrix, rtol=0.005)


def test_large_matrices_are_quantised_as_small_ones() -> None:
    """They are taken in pieces, so that they never lie in memory as fp32."""
    matrix = random_matrix(5000, 32)
    for quantise in (quantise_int4, quantise_int8):
        whole = quantise(matrix.bfloat16())
        assert row_count(whole) == 5000
        piece = quantise(matrix[2000:2100].bfloat16())
        assert torch.equal(whole.dequantised()[2000:2100], piece.dequantised())


def test_columns_that_are_no_whole_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="48 columns"):
        quantise_int4(random_matrix(4, 48))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_damage_is_not_quantised_away(bad: float) -> None:
    """The engine finds it by what it computes."""
    matrix = random_matrix(4, 32)
    matrix[1, 3] = bad
    for packed in (quantise_int8(matrix), quantise_int4(matrix)):
        assert not torch.isfinite(packed.dequantised()[1]).all()
        assert torch.isfinite(packed.dequantised()[0]).all()
