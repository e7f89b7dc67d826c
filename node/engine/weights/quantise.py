"""Our own quantiser: floats, or what is packed otherwise, to the codes that have fast kernels.

Knows rounding; must not know kernels or files. Scales are bf16 from the start, because the kernels
hold them so: the codes are rounded against the very scales they will be multiplied with.
"""

import torch
from torch import Tensor

from node.engine.weights.packings import GROUP, Int4Groups, Int8Rows, Stored, row_count, rows_of

_ROWS = 2048
"""Rows at a time, so that a large matrix never lies in memory as fp32."""
_SHRINKS = (1.0, 0.95, 0.9, 0.85)
"""Shares of a group's range that its 16 codes may span: clipping the ends a little often costs
less than coarse steps for all (as in llama.cpp's and AWQ's search for scales)."""


def quantise_int8(weight: Stored) -> Int8Rows:
    """Symmetric, one scale for each row: the largest magnitude becomes 127."""
    pieces = [_int8(rows_of(weight, at, at + _ROWS)) for at in range(0, row_count(weight), _ROWS)]
    codes, scales = zip(*pieces, strict=True)
    return Int8Rows(torch.cat(codes), torch.cat(scales))


def quantise_int4(weight: Stored) -> Int4Groups:
    """Asymmetric, in groups of 32 columns. `ValueError` if they do not divide the columns."""
    pieces = [_int4(rows_of(weight, at, at + _ROWS)) for at in range(0, row_count(weight), _ROWS)]
    codes, scales, minima = zip(*pieces, strict=True)
    return Int4Groups(torch.cat(codes), torch.cat(scales), torch.cat(minima))


def _int8(rows: Tensor) -> tuple[Tensor, Tensor]:
    scales = _usable((rows.abs().amax(dim=1) / 127).bfloat16())
    codes = (rows / scales.float().unsqueeze(1)).round_().clamp_(-127, 127)
    return codes.to(torch.int8), scales


def _int4(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    count, columns = rows.shape
    if columns % GROUP:
        raise ValueError(f"{columns} columns are no whole groups of {GROUP}")
    groups = rows.view(count, columns // GROUP, GROUP)
    low, high = groups.aminmax(dim=-1, keepdim=True)
    best = _coded(groups, low, high, _SHRINKS[0])
    for share in _SHRINKS[1:]:
        other = _coded(groups, low, high, share)
        is_better = other[-1] < best[-1]
        best = tuple(torch.where(is_better, new, old) for new, old in zip(other, best, strict=True))
    codes, scales, middles, _ = best
    halves = codes.to(torch.uint8).chunk(2, dim=-1)
    minima = middles - 8 * scales
    return halves[0] | (halves[1] << 4), scales.squeeze(-1), minima.squeeze(-1)


def _coded(groups: Tensor, low: Tensor, high: Tensor, share: float) -> tuple[Tensor, ...]:
    """Codes, scales, values of code 8 (all fp32), and squared errors, for a share of the range."""
    steps = ((high - low) * (share / 15)).bfloat16().float()
    middles = ((low + high) / 2 + steps / 2).bfloat16().float()
    scales = _usable(steps)
    codes = ((groups - middles) / scales).round_().add_(8).clamp_(0, 15)
    errors = ((codes - 8) * scales + middles - groups).square_().sum(dim=-1, keepdim=True)
    return codes, scales, middles, errors


def _usable(scales: Tensor) -> Tensor:
    """A row or group of equal numbers has no range; any scale serves it."""
    return torch.where(scales == 0, torch.ones_like(scales), scales)
