"""The trained part of an adapter: a B for each product of a layer, over a frozen A from a seed.

Knows matrices; must not know a model's forward pass, examples or files.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from node.engine.adapters.frozen import frozen_a
from node.engine.adapters.layout import Place
from node.engine.adapters.weights import PRODUCTS, PartName
from node.engine.config import LlamaConfig


@dataclass(frozen=True, slots=True)
class AdapterShape:
    """What decides A and the size of B. Specialists of one shape share their A in memory."""

    seed: int = 1234
    rank: int = 32
    scale: float = 2.0
    a_for: Literal["input", "weight"] = "input"


class LowRankParameters:
    """A and B of every product of a model.

    `a` is frozen, `[ranks, in]`, with the scale in it, in the type that is computed in. `b` is fp32
    `[out, ranks]`; where each part has an A of its own, the foreign blocks of B stay zero.
    """

    def __init__(
        self, config: LlamaConfig, shape: AdapterShape, device: torch.device, dtype: torch.dtype
    ) -> None:
        """B is zero: an adapter that changes nothing."""
        self.config = config
        self.shape = shape
        self.dtype = dtype
        self.a: dict[Place, Tensor] = {}
        self.b: dict[Place, Tensor] = {}
        self._masks = {product: self._mask(parts).to(device) for product, parts in PRODUCTS.items()}
        for layer in range(config.layers):
            for product, parts in PRODUCTS.items():
                a = self._frozen(layer, product, parts) * shape.scale
                self.a[layer, product] = a.to(device=device, dtype=dtype)
                b = torch.zeros((self._rows(parts), len(a)), device=device)
                self.b[layer, product] = b.requires_grad_()

    def masked(self) -> Mapping[Place, Tensor]:
        """B in the type that is computed in, through which gradients reach `b`."""
        if self.shape.a_for == "input":
            return {place: b.to(self.dtype) for place, b in self.b.items()}
        return {place: (b * self._masks[place[1]]).to(self.dtype) for place, b in self.b.items()}

    def part(self, layer: int, part: PartName) -> Tensor:
        """fp32 `[out, rank]`: B of one weight."""
        for product, parts in PRODUCTS.items():
            if part in parts:
                rows, ranks = self._block(parts, part)
                return self.b[layer, product].detach()[rows, ranks]
        raise KeyError(part)

    def set_part(self, layer: int, part: PartName, b: Tensor) -> None:
        """The inverse of `part`."""
        for product, parts in PRODUCTS.items():
            if part in parts:
                rows, ranks = self._block(parts, part)
                self.b[layer, product].data[rows, ranks] = b.to(self.b[layer, product].device)

    def copy_from(self, values: Iterable[Tensor]) -> None:
        """Set all of B, in the order of `b`."""
        for b, value in zip(self.b.values(), values, strict=True):
            b.data.copy_(value)

    def copy(self) -> "LowRankParameters":
        """Another one with the same A (shared) and B (its own)."""
        other = copy.copy(self)
        other.b = {place: b.detach().clone().requires_grad_() for place, b in self.b.items()}
        return other

    def _frozen(self, layer: int, product: str, parts: tuple[PartName, ...]) -> Tensor:
        into = self._shape(layer, parts[0])[1]
        seed, rank = self.shape.seed, self.shape.rank
        if self.shape.a_for == "input":
            return frozen_a(seed, f"layers.{layer}.{product}", rank, into)
        return torch.cat([frozen_a(seed, f"layers.{layer}.{part}", rank, into) for part in parts])

    def _mask(self, parts: tuple[PartName, ...]) -> Tensor:
        ranks = self.shape.rank * (1 if self.shape.a_for == "input" else len(parts))
        mask = torch.zeros((self._rows(parts), ranks))
        for part in parts:
            rows, columns = self._block(parts, part)
            mask[rows, columns] = 1
        return mask

    def _block(self, parts: tuple[PartName, ...], part: PartName) -> tuple[slice, slice]:
        """Where a part lies in the B of its product: rows, and columns."""
        index = parts.index(part)
        start = self._rows(parts[:index])
        rows = slice(start, start + self._shape(0, part)[0])
        first = 0 if self.shape.a_for == "input" else index * self.shape.rank
        return rows, slice(first, first + self.shape.rank)

    def _rows(self, parts: tuple[PartName, ...]) -> int:
        return sum(self._shape(0, part)[0] for part in parts)

    def _shape(self, layer: int, part: PartName) -> tuple[int, int]:
        out, into = self.config.tensor_shapes()[f"layers.{layer}.{part}"]
        return out, into

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.b.values())


class _Product(torch.autograd.Function):
    """`rows @ weight.T + ((rows @ a.T) * gate) @ b.T`; `weight` and `a` are frozen.

    Keeps the reduced rows only: nothing of the size of the input is held for the way back.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401  (torch gives it no better type)
        rows: Tensor,
        weight: Tensor,
        a: Tensor,
        b: Tensor,
        gate: Tensor | None,
    ) -> Tensor:
        reduced = rows @ a.t()
        if gate is not None:
            reduced *= gate
        result = rows @ weight.t()
        result.addmm_(reduced, b.t())
        ctx.save_for_backward(weight, a, b, reduced, gate)
        return result

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401
        *grads: Tensor,
    ) -> tuple[Tensor | None, ...]:
        weight, a, b, reduced, gate = ctx.saved_tensors
        grad = grads[0]
        to_rows = None
        if ctx.needs_input_grad[0]:
            inner = grad @ b
            if gate is not None:
                inner *= gate
            to_rows = grad @ weight
            to_rows.addmm_(inner, a)
        return to_rows, None, None, grad.t() @ reduced, None


def adapted_product(
    rows: Tensor, weight: Tensor, pair: tuple[Tensor, Tensor] | None, gate: Tensor | None
) -> Tensor:
    """`rows` [tokens, in] times a frozen `weight` [out, in], changed by `pair` (A and B).

    `gate` [tokens, 1] or [tokens, ranks] weighs what A gives: 0 where an adapter is not yet on.
    """
    if pair is None:
        return rows @ weight.t()
    result: Tensor = _Product.apply(rows, weight, pair[0], pair[1], gate)  # type: ignore[no-untyped-call]
    return result
