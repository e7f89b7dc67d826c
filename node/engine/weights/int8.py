"""A matrix of signed bytes with one scale for each row, and its kernels for bf16 rows.

Knows torch's operators on the CPU; `packings.Int8Rows` says what the codes mean.
"""

import torch
from torch import Tensor

from node.engine.weights.packings import Int8Rows
from node.engine.weights.tiles import TILE, in_tiles, product

FEW = 16
"""Up to so many rows the weight-only kernel is quicker than widening the codes (docs/LOG.md)."""
_BLOCK_BYTES = 1024 * 1024
"""How much is widened at a time: what stays in a core's second-level cache."""
_LANES = 32
"""torch's kernel loads so many columns at a time without looking: where they are not whole, it
reads past the end of the weights, and has ended the process by that."""


class Int8Matrix:
    """Implements `Table`. One copy of the codes serves as embedding and as head.

    torch's quicker `quantized::linear_dynamic` would need a second copy in a layout of its own,
    and scales its input by the whole batch's maximum: an answer would depend on its neighbours.
    """

    def __init__(self, packed: Int8Rows) -> None:
        self._codes = packed.codes.contiguous()
        self._scales = packed.scales.contiguous()
        out, into = packed.codes.shape
        self._has_kernel = into % _LANES == 0
        self._block = max(64, min(out, _BLOCK_BYTES // (2 * into)))

    @property
    def size(self) -> int:
        """Bytes held."""
        return self._codes.nbytes + self._scales.nbytes

    def multiply(self, rows: Tensor) -> Tensor:
        """`[tokens, out]`. A row's result depends on `tokens` only by being few or many."""
        if self._has_kernel and len(rows) <= FEW:
            few: Tensor = torch.ops.aten._weight_int8pack_mm(
                rows.contiguous(), self._codes, self._scales
            )
            return few
        tiles = in_tiles(rows)
        result = rows.new_empty(tiles.shape[0] * TILE, len(self._codes))
        for start in range(0, len(self._codes), self._block):
            block = slice(start, start + self._block)
            # bf16 holds all codes exactly; the scale can wait, because a row has only one.
            products = product(tiles, self._codes[block].to(rows.dtype).t())
            torch.mul(products, self._scales[block], out=result[:, block])
        return result[: len(rows)]

    def gather(self, index: Tensor) -> Tensor:
        """See `Table`."""
        return self._codes[index].to(self._scales.dtype) * self._scales[index].unsqueeze(1)
