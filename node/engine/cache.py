"""The keys and values of all sequences, in pages, and how one sequence's are read back.

Knows pages, slots (one per token: page times `PAGE_SIZE` plus offset) and layers; must not know
requests or who owns a page.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from node.engine.batch import CPU, Span
from node.engine.config import LlamaConfig
from node.engine.page_block import PageBlock
from node.engine.pages import PAGE_SIZE, pages_for


class LayerCache(Protocol):
    """One layer's keys and values."""

    def store(self, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Write `keys` and `values` [tokens, kv_heads, dimension] into `slots` [tokens]."""
        ...

    def read(self, span: Span) -> tuple[Tensor, Tensor]:
        """Keys and values of all positions of `span`, each `[kv_heads, seen, dimension]`.

        They may be gone after the next `read` of any layer of the cache.
        """
        ...


class KeyValueCache:
    """Storage for at least `capacity` tokens in whole pages.

    `is_quantised` keeps each token's vector of each head in int8 with one scale: about half of the
    memory of bf16, and reading converts. Memory is reserved at once and becomes resident as pages
    are written.
    """

    def __init__(
        self,
        config: LlamaConfig,
        capacity: int,
        dtype: torch.dtype,
        *,
        is_quantised: bool = False,
        device: torch.device = CPU,
    ) -> None:
        shape = (config.kv_heads, pages_for(capacity), PAGE_SIZE, config.head_dimension)
        kind = QuantisedLayer if is_quantised else PlainLayer
        self._layers: list[PlainLayer | QuantisedLayer]
        # One tensor per kind over all layers: [layers, kv_heads, pages, PAGE_SIZE, dimension].
        self._layers = kind.reserve(config.layers, shape, dtype, device)

    @property
    def size(self) -> int:
        """Bytes reserved for pages."""
        return sum(layer.size for layer in self._layers)

    def store(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """As `LayerCache.store`."""
        self._layers[layer].store(slots, keys, values)

    def layer(self, layer: int) -> LayerCache:
        """One layer, for attention."""
        return self._layers[layer]

    def export_pages(self, pages: Sequence[int]) -> PageBlock:
        """A copy of `pages`; keys and values in int8 come back as they are read."""
        slots = self._slots_of(pages)
        copies = [layer.copy(slots) for layer in self._layers]
        return PageBlock(
            torch.stack([keys for keys, _ in copies]).cpu(),
            torch.stack([values for _, values in copies]).cpu(),
        )

    def import_pages(self, pages: Sequence[int], block: PageBlock) -> None:
        """Write all layers of `block` into `pages`."""
        slots = self._slots_of(pages)
        for layer, keys, values in zip(self._layers, block.keys, block.values, strict=True):
            layer.store(slots, *(part.transpose(0, 1).to(slots.device) for part in (keys, values)))

    def _slots_of(self, pages: Sequence[int]) -> Tensor:
        """The slots of whole pages, page by page."""
        starts = torch.tensor(pages, dtype=torch.int64) * PAGE_SIZE
        slots = (starts.unsqueeze(1) + torch.arange(PAGE_SIZE)).flatten()
        return slots.to(self._layers[0].keys.pages.device)


@dataclass(frozen=True, slots=True)
class _Vectors:
    """`[kv_heads, pages, PAGE_SIZE, dimension]`, and the same memory with one row per slot.

    `scratch`, flat, is as large and shared by all layers: what is gathered goes there. Fresh memory
    for every layer and step would cost more in page faults than the copy itself.
    """

    pages: Tensor
    slots: Tensor
    scratch: Tensor

    def write(self, slots: Tensor, vectors: Tensor) -> None:
        self.slots.index_copy_(1, slots, vectors.transpose(0, 1).to(self.slots))

    def copy(self, slots: Tensor) -> Tensor:
        return self.slots.index_select(1, slots)

    def read(self, span: Span) -> Tensor:
        """`[kv_heads, seen, dimension]`; a view where the pages follow each other."""
        if span.gather is None:
            return self.slots[:, span.first_slot : span.first_slot + span.seen]
        heads, _, _, dimension = self.pages.shape
        shape = (heads, len(span.gather), PAGE_SIZE, dimension)
        gathered = self.scratch[: math.prod(shape)].view(shape)
        torch.index_select(self.pages, 1, span.gather, out=gathered)
        return gathered.flatten(1, 2)[:, : span.seen]


@dataclass(frozen=True, slots=True)
class PlainLayer:
    """Keys and values as the model made them; a `LayerCache`."""

    keys: _Vectors
    values: _Vectors

    @classmethod
    def reserve(
        cls, layers: int, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
    ) -> list["PlainLayer | QuantisedLayer"]:
        """`layers` of them in two tensors `[layers, *shape]`."""
        keys, values = (_reserve(layers, shape, dtype, device) for _ in range(2))
        return [cls(*pair) for pair in zip(keys, values, strict=True)]

    @property
    def size(self) -> int:
        """Bytes."""
        return self.keys.pages.nbytes + self.values.pages.nbytes

    def store(self, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """As `LayerCache`."""
        self.keys.write(slots, keys)
        self.values.write(slots, values)

    def copy(self, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of `slots`, each `[kv_heads, slots, dimension]`."""
        return self.keys.copy(slots), self.values.copy(slots)

    def read(self, span: Span) -> tuple[Tensor, Tensor]:
        """As `LayerCache`."""
        return self.keys.read(span), self.values.read(span)


@dataclass(frozen=True, slots=True)
class QuantisedLayer:
    """Keys and values in int8 with a scale per token and head; a `LayerCache`."""

    keys: _Vectors
    key_scales: _Vectors
    values: _Vectors
    value_scales: _Vectors
    dtype: torch.dtype

    @classmethod
    def reserve(
        cls, layers: int, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
    ) -> list["PlainLayer | QuantisedLayer"]:
        """`layers` of them in four tensors; read back in `dtype`."""
        keys, values = (_reserve(layers, shape, torch.int8, device) for _ in range(2))
        scales = (*shape[:-1], 1)
        key_scales, value_scales = (
            _reserve(layers, scales, torch.float32, device) for _ in range(2)
        )
        return [
            cls(*parts, dtype) for parts in zip(keys, key_scales, values, value_scales, strict=True)
        ]

    @property
    def size(self) -> int:
        """Bytes."""
        parts = (self.keys, self.key_scales, self.values, self.value_scales)
        return sum(part.pages.nbytes for part in parts)

    def store(self, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """As `LayerCache`."""
        for vectors, integers, scales in (
            (keys, self.keys, self.key_scales),
            (values, self.values, self.value_scales),
        ):
            wide = vectors.float()
            scale = wide.abs().amax(-1, keepdim=True).clamp_(min=1e-12) / 127
            integers.write(slots, (wide / scale).round_().to(torch.int8))
            scales.write(slots, scale)

    def copy(self, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of `slots`, each `[kv_heads, slots, dimension]`, in fp32."""
        return (
            self.keys.copy(slots).float() * self.key_scales.copy(slots),
            self.values.copy(slots).float() * self.value_scales.copy(slots),
        )

    def read(self, span: Span) -> tuple[Tensor, Tensor]:
        """As `LayerCache`; always a copy."""
        return (
            self.keys.read(span).to(self.dtype) * self.key_scales.read(span).to(self.dtype),
            self.values.read(span).to(self.dtype) * self.value_scales.read(span).to(self.dtype),
        )


def _reserve(
    layers: int, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> list[_Vectors]:
    """One tensor `[layers, *shape]`, by layer."""
    whole = torch.empty((layers, *shape), dtype=dtype, device=device)
    scratch = torch.empty(math.prod(shape), dtype=dtype, device=device)
    return [_Vectors(pages, pages.flatten(1, 2), scratch) for pages in whole]
