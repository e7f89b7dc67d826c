"""Weights in the order in which the compiled step reads them.

Knows packings and the panels of `source/shapes.h`; must not know what a weight is for.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from node.engine.native.reasons import NativeUnfit
from node.engine.weights.packings import (
    GROUP,
    Int4Groups,
    Int8Groups,
    Int8Rows,
    Stored,
    as_floats,
    stack,
)

LANES = 16
"""Rows of a panel."""
Bits = Literal[4, 8, 16]
_HALF_ERROR = 2.0**-9
"""How far, relatively, a scale may be from the fp16 number that stands for it."""


def panel_bytes(bits: Bits, columns: int) -> int:
    """Bytes of 16 rows."""
    per_group = {4: 256 + 64, 8: 512 + 32, 16: 1024}[bits]
    return columns // GROUP * per_group


def matrix_bytes(bits: Bits, rows: int, columns: int) -> int:
    """Bytes of a packed matrix; rows are filled up to whole panels."""
    return -(-rows // LANES) * panel_bytes(bits, columns)


def packed_bits(parts: Sequence[Stored]) -> Bits:
    """What `parts` are packed in, as one matrix; `NativeUnfit` if they are of several kinds."""
    kinds = {_bits_of(part) for part in parts}
    if len(kinds) > 1:
        raise NativeUnfit("a matrix is packed in several ways")
    return kinds.pop()


def _bits_of(part: Stored) -> Bits:
    match part:
        case Int4Groups():
            return 4
        case Int8Groups() | Int8Rows():
            return 8
        case Tensor():
            return 16


def panels(parts: Sequence[Stored]) -> Tensor:
    """The rows of all `parts`, which are packed in one way: uint8, flat, `matrix_bytes` long.

    `NativeUnfit` if scales do not fit into fp16.
    """
    match packed_bits(parts):
        case 4:
            return _four([part for part in parts if isinstance(part, Int4Groups)])
        case 8:
            return _eight(parts)
        case 16:
            return _sixteen(parts)


def panels_in_turns(parts: Sequence[Stored], rows: int) -> Tensor:
    """As `panels`, for parts of `rows` rows each: `GROUP` rows of each part in turns."""
    if rows % GROUP:
        raise NativeUnfit(f"{rows} rows are no multiple of {GROUP}")
    packed_bits(parts)
    each = [panels([part]).view(rows // GROUP, -1) for part in parts]
    return torch.stack(each, dim=1).flatten()


def _four(parts: Sequence[Int4Groups]) -> Tensor:
    packed = stack(parts)
    numbers = _filled(packed.numbers())
    groups = numbers.shape[1]
    # [panel, 16 rows, group, step, low or high, 4] -> [panel, group, step, row, 4] twice
    split = numbers.view(-1, LANES, groups, 4, 2, 4).permute(4, 0, 2, 3, 1, 5)
    codes = (split[0] | (split[1] << 4)).reshape(-1, groups * 256)
    scales, minima = _by_lane(packed.scales), _by_lane(packed.minima)
    factors = torch.stack((scales, minima), dim=2).view(torch.uint8).view(len(codes), -1)
    return torch.cat((codes, factors), dim=1).flatten()


def _eight(parts: Sequence[Stored]) -> Tensor:
    packed = stack([_grouped(part) for part in parts])
    numbers = _filled(packed.codes.view(torch.uint8) ^ 128, 128)
    groups = numbers.shape[1]
    codes = numbers.view(-1, LANES, groups, 8, 4).permute(0, 2, 3, 1, 4)
    codes = codes.reshape(-1, groups * 512)
    factors = _by_lane(packed.scales).view(torch.uint8).view(len(codes), -1)
    return torch.cat((codes, factors), dim=1).flatten()


def _grouped(part: Stored) -> Int8Groups:
    """A scale for each row is the same scale for each of its groups."""
    if isinstance(part, Int8Groups):
        return Int8Groups(part.codes, part.scales.float())
    if not isinstance(part, Int8Rows):
        raise NativeUnfit("a matrix is packed in several ways")
    rows, columns = part.codes.shape
    codes = part.codes.reshape(rows, columns // GROUP, GROUP)
    return Int8Groups(codes, part.scales.float().unsqueeze(1).expand(-1, codes.shape[1]))


def _sixteen(parts: Sequence[Stored]) -> Tensor:
    rows = _filled(torch.cat([as_floats(part).bfloat16() for part in parts]))
    pairs = rows.view(-1, LANES, rows.shape[1] // 2, 2).permute(0, 2, 1, 3)
    return pairs.contiguous().view(torch.uint8).flatten()


def _by_lane(factors: Tensor) -> Tensor:
    """`[rows, groups]` as fp16 `[panels, groups, 16]`."""
    halves = factors.half()
    errors = (halves.float() - factors).abs()
    if not bool((errors <= factors.abs() * _HALF_ERROR).all()):
        raise NativeUnfit("scales of its weights do not fit into 16 bits")
    filled = _filled(halves)
    return filled.view(-1, LANES, filled.shape[1]).transpose(1, 2).contiguous()


def _filled(rows: Tensor, value: int = 0) -> Tensor:
    """Whole panels; rows that are added come out as zeros, because their scales are."""
    missing = -len(rows) % LANES
    if not missing:
        return rows.contiguous()
    return torch.cat((rows, rows.new_full((missing, *rows.shape[1:]), value)))
