"""GGUF's blocks that have the arithmetic of ours: taken over code for code, without a float.

Knows the bytes of ggml's blocks Q4_0, Q4_1 and Q8_0 (`ggml-common.h`); must not know names of
tensors or how packed weights are computed.
"""

from collections.abc import Mapping

import numpy as np
import torch
from gguf.constants import GGMLQuantizationType
from numpy.typing import NDArray
from torch import Tensor

from node.engine.weights.packings import Int4Groups, Int8Groups, Packed
from node.engine.weights.scheme import Precision

KEPT_AS: Mapping[GGMLQuantizationType, Precision] = {
    GGMLQuantizationType.Q4_0: "int4",
    GGMLQuantizationType.Q4_1: "int4",
    GGMLQuantizationType.Q8_0: "int8",
}
"""The kinds of blocks that stay packed, and the precision that keeps them."""
_Q4_0_BYTES, _Q4_1_BYTES, _Q8_0_BYTES = 18, 20, 34


def packed_from(blocks: NDArray[np.uint8], kind: GGMLQuantizationType) -> Packed | None:
    """The matrix in `blocks` [rows, bytes]; None for a kind whose blocks we have no packing for.

    `dequantised` of the result is bit for bit what the `gguf` package computes.
    """
    match kind:
        case GGMLQuantizationType.Q4_1:
            parts = _split(blocks, _Q4_1_BYTES)
            return Int4Groups(parts[..., 4:].contiguous(), _half(parts, 0), _half(parts, 2))
        case GGMLQuantizationType.Q4_0:
            parts = _split(blocks, _Q4_0_BYTES)
            scales = _half(parts, 0)
            return Int4Groups(parts[..., 2:].contiguous(), scales, scales * -8)
        case GGMLQuantizationType.Q8_0:
            parts = _split(blocks, _Q8_0_BYTES)
            codes = parts[..., 2:].contiguous().view(torch.int8)
            return Int8Groups(codes, _half(parts, 0).half())
        case _:
            return None


def _split(blocks: NDArray[np.uint8], size: int) -> Tensor:
    """A copy, uint8 `[rows, groups, size]`."""
    return torch.from_numpy(np.array(blocks)).view(len(blocks), -1, size)


def _half(parts: Tensor, at: int) -> Tensor:
    """The fp16 number at byte `at` of each block, as fp32 `[rows, groups]`."""
    return parts[..., at : at + 2].contiguous().view(torch.float16).squeeze(-1).float()
