"""The keys and values of all running sequences, and who may write where.

Knows slots (one per token) and layers; must not know requests. A sequence gets one contiguous
extent of slots for its worst case, so that attention reads it without a copy.
"""

import bisect
from dataclasses import dataclass

import torch
from torch import Tensor

from node.engine.config import LlamaConfig


@dataclass(frozen=True, slots=True, order=True)
class Extent:
    """Slots `start` to `start + size` - 1."""

    start: int
    size: int

    @property
    def stop(self) -> int:
        """The first slot after it."""
        return self.start + self.size


class ExtentAllocator:
    """Hands out disjoint extents of `capacity` slots, first fit; neighbours merge when freed."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._free = [Extent(0, capacity)] if capacity else []
        self._used = 0

    def __repr__(self) -> str:
        return f"<ExtentAllocator used={self._used} of {self._capacity}>"

    @property
    def capacity(self) -> int:
        """All slots."""
        return self._capacity

    @property
    def used(self) -> int:
        """Slots handed out."""
        return self._used

    def allocate(self, size: int) -> Extent | None:
        """The first free extent of `size` slots (at least 1), or None while there is none."""
        if size < 1:
            raise ValueError("an extent has at least one slot")
        for index, free in enumerate(self._free):
            if free.size >= size:
                rest = Extent(free.start + size, free.size - size)
                self._free[index : index + 1] = [rest] if rest.size else []
                self._used += size
                return Extent(free.start, size)
        return None

    def free(self, extent: Extent) -> None:
        """Take back what `allocate` gave; `ValueError` if it overlaps with what is free."""
        index = bisect.bisect(self._free, extent)
        before = self._free[index - 1] if index else None
        after = self._free[index] if index < len(self._free) else None
        if (before and before.stop > extent.start) or (after and extent.stop > after.start):
            raise ValueError(f"{extent} was not in use")
        first, last, merged = index, index, extent
        if before and before.stop == extent.start:
            first, merged = index - 1, Extent(before.start, before.size + extent.size)
        if after and extent.stop == after.start:
            last, merged = index + 1, Extent(merged.start, merged.size + after.size)
        self._free[first:last] = [merged]
        self._used -= extent.size


class KeyValueCache:
    """Storage for `capacity` tokens: two tensors `[layers, kv_heads, capacity, dimension]`.

    Memory is reserved at once and becomes resident as slots are written.
    """

    def __init__(self, config: LlamaConfig, capacity: int, dtype: torch.dtype) -> None:
        shape = (config.layers, config.kv_heads, capacity, config.head_dimension)
        self._keys = torch.empty(shape, dtype=dtype)
        self._values = torch.empty(shape, dtype=dtype)

    @property
    def size(self) -> int:
        """Bytes reserved."""
        return self._keys.nbytes + self._values.nbytes

    def store(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Write `keys` and `values` [tokens, kv_heads, dimension] into `slots` [tokens]."""
        self._keys[layer].index_copy_(1, slots, keys.transpose(0, 1))
        self._values[layer].index_copy_(1, slots, values.transpose(0, 1))

    def layer(self, layer: int) -> tuple[Tensor, Tensor]:
        """All keys and all values of one layer, each `[kv_heads, capacity, dimension]`."""
        return self._keys[layer], self._values[layer]
