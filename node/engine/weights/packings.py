"""Weights as files and quantisers pack them: integer codes, and scales that make numbers of them.

Knows the arithmetic of each packing, which defines what a packed weight is; must not know files,
kernels or what a weight is for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from torch import Tensor

GROUP = 32
"""Columns that share a scale: the length of GGUF's blocks. It divides the widths of small models,
of which 128, the usual length elsewhere, often does not (576 of SmolLM2-135M)."""


@dataclass(frozen=True, slots=True, eq=False)
class Int4Groups:
    """Four-bit codes in groups of 32 columns: `scale * code + minimum`.

    `codes` uint8 [rows, groups, 16], as in GGUF's Q4_1: byte i of a group has column i in its low
    half and column i + 16 in its high half. `scales` and `minima` fp32 [rows, groups].
    """

    codes: Tensor
    scales: Tensor
    minima: Tensor

    def numbers(self) -> Tensor:
        """The codes one by one, 0 to 15: uint8 `[rows, groups, 32]`."""
        return torch.cat((self.codes & 15, self.codes >> 4), dim=-1)

    def dequantised(self) -> Tensor:
        """fp32 `[rows, columns]`, bit for bit what ggml computes for Q4_1 and Q4_0."""
        values = self.numbers().float()
        values.mul_(self.scales.unsqueeze(-1)).add_(self.minima.unsqueeze(-1))
        return values.flatten(1)


@dataclass(frozen=True, slots=True, eq=False)
class Int8Groups:
    """Signed bytes in groups of 32 columns: `scale * code`, GGUF's Q8_0.

    `codes` int8 [rows, groups, 32]; `scales` fp16 [rows, groups].
    """

    codes: Tensor
    scales: Tensor

    def dequantised(self) -> Tensor:
        """fp32 `[rows, columns]`, bit for bit what ggml computes."""
        return (self.codes.float() * self.scales.float().unsqueeze(-1)).flatten(1)


@dataclass(frozen=True, slots=True, eq=False)
class Int8Rows:
    """Signed bytes with one scale for each row: `scale * code`.

    `codes` int8 [rows, columns]; `scales` bf16 [rows].
    """

    codes: Tensor
    scales: Tensor

    def dequantised(self) -> Tensor:
        """fp32 `[rows, columns]`."""
        return self.codes.float() * self.scales.float().unsqueeze(-1)


Packed = Int4Groups | Int8Groups | Int8Rows
Stored = Tensor | Packed
"""A weight as it lies in a file or leaves a quantiser: floats, or packed."""

P = TypeVar("P", bound=Packed)


def tensors_of(packed: Packed) -> tuple[Tensor, ...]:
    """What it consists of; the first dimension of each is the rows."""
    return tuple(getattr(packed, field.name) for field in fields(packed))


def select(packed: P, rows: Tensor | slice) -> P:
    """The rows that `rows` names, in its order."""
    return type(packed)(*(tensor[rows] for tensor in tensors_of(packed)))


def stack(parts: Sequence[P]) -> P:
    """The rows of all parts, one after the other. They must be packed alike."""
    columns = zip(*(tensors_of(part) for part in parts), strict=True)
    return type(parts[0])(*(torch.cat(tensors) for tensors in columns))


def as_floats(stored: Stored) -> Tensor:
    """The numbers: as they are if floats, fp32 if packed."""
    return stored if isinstance(stored, Tensor) else stored.dequantised()


def row_count(stored: Stored) -> int:
    """How many rows there are."""
    return len(stored) if isinstance(stored, Tensor) else len(stored.codes)


def rows_of(stored: Stored, start: int, stop: int) -> Tensor:
    """Rows `start` to `stop` - 1 as fp32, without making numbers of the others."""
    if isinstance(stored, Tensor):
        return stored[start:stop].float()
    return select(stored, slice(start, stop)).dequantised()
