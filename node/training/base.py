"""A model's frozen weights on the device where an adapter for it is trained.

Knows tensors and devices; must not know adapters or examples.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from node.engine.adapters.weights import PRODUCTS, ProductName
from node.engine.config import LLAMA, LlamaConfig
from node.engine.model import TensorSource
from node.engine.rope import RotaryTable


@dataclass(frozen=True, slots=True)
class FrozenLayer:
    """One block; parts that read the same input are stacked, as in the engine."""

    attention_norm: Tensor
    feed_forward_norm: Tensor
    products: Mapping[ProductName, Tensor]


@dataclass(frozen=True, slots=True)
class FrozenBase:
    """Weights of a plain Llama. `cosines` and `sines` are `[positions, 1, dimension]`."""

    config: LlamaConfig
    embedding: Tensor
    head: Tensor
    final_norm: Tensor
    layers: tuple[FrozenLayer, ...]
    cosines: Tensor
    sines: Tensor

    @property
    def device(self) -> torch.device:
        """Where it is computed."""
        return self.embedding.device

    @property
    def dtype(self) -> torch.dtype:
        """What it is computed in."""
        return self.embedding.dtype


def load_base(
    config: LlamaConfig, source: TensorSource, device: torch.device, dtype: torch.dtype
) -> FrozenBase:
    """All weights of a model. `ValueError` for one that is not a plain Llama."""
    if config.variant != LLAMA:
        raise ValueError("only models of the plain Llama shape can be trained for")

    def read(*names: str) -> Tensor:
        joined = torch.cat([source.read(name).float() for name in names])
        return joined.to(device=device, dtype=dtype)

    def layer(index: int) -> FrozenLayer:
        at = f"layers.{index}."
        return FrozenLayer(
            attention_norm=read(at + "attention_norm"),
            feed_forward_norm=read(at + "feed_forward_norm"),
            products={
                product: read(*(at + part for part in parts)) for product, parts in PRODUCTS.items()
            },
        )

    embedding = read("embedding")
    table = RotaryTable(config, config.context_length, dtype)
    cosines, sines = table.at(torch.arange(config.context_length))
    return FrozenBase(
        config=config,
        embedding=embedding,
        head=embedding if config.tied_embeddings else read("head"),
        final_norm=read("final_norm"),
        layers=tuple(layer(index) for index in range(config.layers)),
        cosines=cosines.to(device),
        sines=sines.to(device),
    )
