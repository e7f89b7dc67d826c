"""Matrix products with a weight, by whichever kernel is fast for the shape at hand.

Knows kernels; must not know what a weight is for. Quantised weights will live here too.
"""

import torch
from torch import Tensor
from torch.nn import functional


def linear(rows: Tensor, weight: Tensor) -> Tensor:
    """`rows` [tokens, in] times `weight` [out, in], transposed: `[tokens, out]`.

    torch's bf16 matrix kernel takes up to twice as long for a single row as its matrix-vector
    kernel; in fp32 they are the same.
    """
    if len(rows) == 1 and weight.dtype is torch.bfloat16:
        return torch.mv(weight, rows[0]).unsqueeze(0)
    return functional.linear(rows, weight)
