"""An adapter's weights, one pair of thin matrices for each weight of the model that it changes.

Knows names and shapes; must not know files or how the pairs are laid out for computing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from node.engine.config import LlamaConfig
from node.engine.weights.packings import Int8Rows, as_floats, row_count

PartName = Literal["query", "key", "value", "output", "gate", "up", "down"]
"""A weight that can be adapted, by its name in `LlamaConfig.tensor_shapes`."""
ProductName = Literal["query_key_value", "output", "gate_up", "down"]
"""Parts that read the same input and are multiplied as one, by the field of `LayerWeights`."""

PRODUCTS: Mapping[ProductName, tuple[PartName, ...]] = {
    "query_key_value": ("query", "key", "value"),
    "output": ("output",),
    "gate_up": ("gate", "up"),
    "down": ("down",),
}
PARTS: tuple[PartName, ...] = tuple(part for parts in PRODUCTS.values() for part in parts)


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """`scale * b @ a` is added to a weight `[out, in]` (LoRA, arXiv 2106.09685).

    `a` is `[rank, in]`; `b` is `[out, rank]`, floats or signed bytes with a scale for each row.
    """

    a: Tensor
    b: Tensor | Int8Rows
    scale: float

    @property
    def rank(self) -> int:
        """How many numbers a token's input is reduced to."""
        return len(self.a)

    def unscaled_b(self) -> Tensor:
        """`[out, rank]` as floats: as they are, or fp32 made of the signed bytes."""
        return as_floats(self.b)

    def scaled_b(self) -> Tensor:
        """fp32 `[out, rank]`, `scale` included."""
        return self.unscaled_b().float() * self.scale

    def delta(self) -> Tensor:
        """fp32 `[out, in]`: what merging it would add to the weight."""
        return self.scaled_b() @ self.a.float()


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """Named by `digest`, which stands for everything that decides what it computes.

    `parts` has the changed weights by layer and name. An adapter with `invocation` tokens is an
    activated one (arXiv 2504.12397): trained to change nothing before them.
    """

    digest: str
    parts: Mapping[tuple[int, PartName], LowRank]
    invocation: tuple[int, ...] = ()

    @property
    def parameters(self) -> int:
        """How many numbers it has."""
        return sum(pair.a.numel() + row_count(pair.b) * pair.rank for pair in self.parts.values())


def start_of(invocation: tuple[int, ...], prompt: tuple[int, ...]) -> int | None:
    """From which position on an adapter applies to `prompt` and its answer; None if not at all.

    An ordinary one (without `invocation` tokens) applies to all. An activated one begins with the
    first token of the last place where `prompt` has them, as in PEFT.
    """
    if not invocation:
        return 0
    width = len(invocation)
    for start in range(len(prompt) - width, -1, -1):
        if prompt[start : start + width] == invocation:
            return start
    return None


def complaints(adapter: Adapter, config: LlamaConfig) -> Iterator[str]:
    """Why `adapter` cannot be computed on a model of the shape `config`; nothing if it can."""
    if not adapter.parts:
        yield "it changes no weight"
    shapes = config.tensor_shapes()
    for (layer, part), pair in adapter.parts.items():
        name = f"layers.{layer}.{part}"
        if name not in shapes or part not in PARTS:
            yield f"the model has no weight {name}"
            continue
        codes = pair.b.codes if isinstance(pair.b, Int8Rows) else pair.b
        wanted = (*shapes[name], pair.rank)
        if pair.a.dim() != 2 or (len(codes), *pair.a.shape[::-1]) != wanted:
            yield f"A of {name} does not fit: {tuple(pair.a.shape)} for a weight {shapes[name]}"
        elif tuple(codes.shape) != (len(codes), pair.rank):
            yield f"B of {name} is {tuple(codes.shape)}, but A has rank {pair.rank}"
        elif not _is_finite(pair):
            yield f"the change of {name} is not made of numbers"


def _is_finite(pair: LowRank) -> bool:
    return bool(torch.isfinite(pair.a).all() and torch.isfinite(pair.scaled_b()).all())
