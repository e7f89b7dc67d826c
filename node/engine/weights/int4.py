"""A matrix of four-bit codes in groups of 32 columns, and its kernels for bf16 rows.

Knows torch's operators on the CPU and the layout that they pack into; `packings.Int4Groups` says
what the codes mean.
"""

import torch
from torch import Tensor

from node.engine.weights.packings import GROUP, Int4Groups
from node.engine.weights.tiles import in_tiles, product

FEW = 48
"""Up to so many rows torch's int4 kernel is quicker than unpacking to bf16 first (docs/LOG.md)."""
_STRIPES = (64, 32)
"""How many matrix rows torch packs side by side: 64 with AVX-512, 32 with AVX2."""


class Int4Matrix:
    """Implements `Matrix`. Rows of the matrix must come in sixteens (see `int4_fits`).

    Codes are as they were packed; scales and minima are rounded to bf16, which is what torch's
    kernel takes: `(code - 8) * scale + middle`.
    """

    def __init__(self, packed: Int4Groups) -> None:
        numbers = packed.numbers().flatten(1)
        self._out, self._into = numbers.shape
        self._packed: Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(numbers.int(), 1)
        middles = packed.minima + 8 * packed.scales
        both = torch.stack((packed.scales, middles), dim=-1).bfloat16()
        self._scales_and_middles = both.transpose(0, 1).contiguous()
        self._stripe = _stripe_of(self._packed, numbers)

    @property
    def size(self) -> int:
        """Bytes held."""
        return self._packed.nbytes + self._scales_and_middles.nbytes

    def multiply(self, rows: Tensor) -> Tensor:
        """`[tokens, out]`. A row's result depends on `tokens` only by being few or many."""
        if len(rows) > FEW and self._stripe:
            tiles = in_tiles(rows)
            halves = torch.stack([product(tiles, half) for half in self._unpacked()], dim=1)
            stripes = halves[: len(rows)].view(len(rows), 2, -1, self._stripe // 2)
            return stripes.transpose(1, 2).reshape(len(rows), self._out)
        result: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
            rows.contiguous(), self._packed, GROUP, self._scales_and_middles
        )
        return result

    def _unpacked(self) -> Tensor:
        """The matrix as bf16: `[2, in, out / 2]`, the first halves of all stripes, then the second.

        In this order all loops run over whole rows; torch is slow at many short ones.
        """
        half, groups = self._stripe // 2, self._into // GROUP
        by_column = self._packed.view(-1).view(torch.int64).view(-1, self._into, half // 8)
        codes = by_column.transpose(0, 1).contiguous().view(torch.uint8).view(self._into, -1)
        values = torch.empty((2, *codes.shape), dtype=torch.bfloat16)
        values[0] = (codes & 15).view(torch.int8).sub_(8)
        values[1] = (codes >> 4).view(torch.int8).sub_(8)
        factors = self._scales_and_middles.view(groups, -1, 2, half, 2).permute(4, 2, 0, 1, 3)
        scales, middles = factors.reshape(2, 2, groups, 1, -1)
        grouped = values.view(2, groups, GROUP, -1)
        return torch.addcmul(middles, grouped, scales, out=grouped).view(values.shape)


def int4_fits(out: int, into: int) -> bool:
    """Whether torch's kernel takes a matrix of this shape."""
    return out % 16 == 0 and into % GROUP == 0


def _stripe_of(packed: Tensor, numbers: Tensor) -> int:
    """Which of the layouts this is, found by looking; 0 if it is none that we know."""
    out, _ = numbers.shape
    for stripe in _STRIPES:
        if out % stripe == 0:
            first = packed.view(-1)[: stripe // 2 * numbers.shape[1]]
            if torch.equal(_numbers(first, numbers.shape[1], stripe)[0].t(), numbers[:stripe]):
                return stripe
    return 0


def _numbers(packed: Tensor, into: int, stripe: int) -> Tensor:
    """The codes of each stripe, uint8 `[stripes, in, stripe]`.

    torch packs, for each column, the rows of a stripe into bytes: those of its first half into
    the low, those of its second half into the high four bits.
    """
    halves = packed.view(-1, into, stripe // 2)
    return torch.cat((halves & 15, halves >> 4), dim=-1)
