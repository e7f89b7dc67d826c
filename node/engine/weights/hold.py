"""From weights as they are stored to matrices that multiply: which kernel holds what.

Knows packings and kernels; must not know models or files.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from node.engine.weights.int4 import Int4Matrix, int4_fits
from node.engine.weights.int8 import Int8Matrix
from node.engine.weights.matrix import DenseMatrix, Matrix, RefereeMatrix, Table
from node.engine.weights.packings import (
    Int4Groups,
    Int8Groups,
    Int8Rows,
    Packed,
    Stored,
    as_floats,
    stack,
)
from node.engine.weights.quantise import quantise_int8
from node.engine.weights.scheme import WeightSource


def hold(parts: Sequence[Stored], dtype: torch.dtype) -> Matrix:
    """The rows of all `parts` as one matrix for activations of `dtype`.

    Packed parts stay packed if they are packed alike, and become floats otherwise. With bf16 the
    fast kernels compute; with fp32 the referee does.
    """
    packed = _alike(parts)
    if packed is None:
        return DenseMatrix(_joined(parts, dtype))
    if dtype is not torch.bfloat16:
        return RefereeMatrix(packed)
    if isinstance(packed, Int4Groups):
        out, groups = packed.scales.shape
        fits = int4_fits(out, groups * 32)
        return Int4Matrix(packed) if fits else DenseMatrix(packed.dequantised().to(dtype))
    return Int8Matrix(_by_rows(packed))


def hold_table(stored: Stored, dtype: torch.dtype) -> Table:
    """One matrix that is looked into by row as well."""
    if isinstance(stored, Tensor):
        return DenseMatrix(stored.to(dtype))
    if dtype is not torch.bfloat16:
        return RefereeMatrix(stored)
    if isinstance(stored, Int4Groups):
        return DenseMatrix(stored.dequantised().to(dtype))
    return Int8Matrix(_by_rows(stored))


class DeviceSource:
    """Implements `WeightSource` on another: floats of one type on one device."""

    def __init__(self, source: WeightSource, dtype: torch.dtype, device: torch.device) -> None:
        self._source = source
        self._dtype = dtype
        self._device = device

    def read(self, name: str) -> Tensor:
        """One weight, packed or not."""
        stored = self._source.read(name)
        # Norms may be multiplied in a wider type than `dtype`: they are cast where they are kept.
        floats = as_floats(stored).to(self._device)
        return floats.to(self._dtype) if floats.dim() > 1 else floats


def _by_rows(packed: Int8Rows | Int8Groups) -> Int8Rows:
    """The fast kernel has one scale for each row: the codes of groups are rounded once more.

    The cost in perplexity is measured in docs/LOG.md; the referee keeps the groups.
    """
    return packed if isinstance(packed, Int8Rows) else quantise_int8(packed)


def _alike(parts: Sequence[Stored]) -> Packed | None:
    """All parts stacked, or None if they are not all of one packing."""
    if fours := [part for part in parts if isinstance(part, Int4Groups)]:
        return stack(fours) if len(fours) == len(parts) else None
    if groups := [part for part in parts if isinstance(part, Int8Groups)]:
        return stack(groups) if len(groups) == len(parts) else None
    rows = [part for part in parts if isinstance(part, Int8Rows)]
    return stack(rows) if rows and len(rows) == len(parts) else None


def _joined(parts: Sequence[Stored], dtype: torch.dtype) -> Tensor:
    tensors = [as_floats(part).to(dtype) for part in parts]
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)
