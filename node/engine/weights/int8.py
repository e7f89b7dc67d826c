"""A matrix of signed bytes with one scale for each row, and its kernels for bf16 rows.

Knows torch's operators on the CPU; `packings.Int8Rows` says what the codes mean.
"""

import torch
from torch import Tensor

from node.engine.weights.packings import Int8Rows

FEW = 8
"""Up to so many rows the weight-only kernel is quicker than widening the codes (docs/LOG.md)."""
_BLOCK_BYTES = 1024 * 1024
"""How much is widened at a time: what stays in a core's second-level cache."""


class Int8Matrix:
    """Implements `Table`. One copy of the codes serves as embedding and as head.

    torch's quicker `quantized::linear_dynamic` would need a second copy in a layout of its own,
    and scales its input by the whole batch's maximum: an answer would depend on its neighbours.
    """

    def __init__(self, packed: Int8Rows) -> None:
        self._codes = packed.codes.contiguous()
        self._scales = packed.scales.contiguous()
        out, into = packed.codes.shape
        self._block = max(64, min(out, _BLOCK_BYTES // (2 * into)))

    @property
    def size(self) -> int:
        """Bytes held."""
        return self._codes.nbytes + self._scales.nbytes

    def multiply(self, rows: Tensor) -> Tensor:
        """`[tokens, out]`. A row's result depends on `tokens` only by being few or many."""
        if len(rows) <= FEW:
            return torch.ops.aten._weight_int8pack_mm(rows.contiguous(), self._codes, self._scales)
        result = rows.new_empty(len(rows), len(self._codes))
        for start in range(0, len(self._codes), self._block):
            stop = start + self._block
            # bf16 holds all codes exactly; the scale can wait, because a row has only one.
            widened = self._codes[start:stop].to(rows.dtype)
            torch.mul(
                torch.mm(rows, widened.t()), self._scales[start:stop], out=result[:, start:stop]
            )
        return result

    def gather(self, index: Tensor) -> Tensor:
        """See `Table`."""
        return self._codes[index].to(self._scales.dtype) * self._scales[index].unsqueeze(1)
