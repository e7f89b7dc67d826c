"""A Llama-shaped decoder: token columns in, logits out.

Knows weights and arithmetic; must not know requests, sampling or files. In fp32 it chooses the
same tokens as the Hugging Face implementation of the same weights.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import rms_norm, silu

from node.engine.adapters.plan import Adaptation, Unadapted
from node.engine.attention import attend
from node.engine.batch import StepBatch
from node.engine.cache import KeyValueCache
from node.engine.config import LlamaConfig
from node.engine.rope import RotaryTable, rotate
from node.engine.weights.hold import hold, hold_table
from node.engine.weights.matrix import Matrix
from node.engine.weights.packings import as_floats
from node.engine.weights.scheme import WeightSource


class TensorSource(Protocol):
    """A `WeightSource` that gives floats, dequantising what is packed."""

    def read(self, name: str) -> Tensor:
        """One weight in any float type; a fresh tensor that the caller may keep."""
        ...


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One block. Matrices that read the same input are stacked: fewer, larger products."""

    attention_norm: Tensor
    query_key_value: Matrix
    output: Matrix
    feed_forward_norm: Tensor
    gate_up: Matrix
    down: Matrix

    @property
    def size(self) -> int:
        """Bytes held."""
        matrices = (self.query_key_value, self.output, self.gate_up, self.down)
        norms = self.attention_norm.nbytes + self.feed_forward_norm.nbytes
        return norms + sum(matrix.size for matrix in matrices)


class LlamaModel:
    """Weights, dense or packed, and the forward pass. Not thread-safe with itself."""

    def __init__(
        self,
        config: LlamaConfig,
        source: WeightSource,
        dtype: torch.dtype,
        positions: int,
        progress: Callable[[float], None] = lambda _fraction: None,
    ) -> None:
        """Read every weight, one layer at a time so that the peak stays near the final size.

        `dtype` is what is computed in; floats are held in it, packed weights stay packed (fast with
        bf16, by the referee with fp32). `positions` bounds the position of any token; `progress`
        hears the fraction done.
        """
        self.config = config
        self.dtype = dtype
        self._embedding = hold_table(source.read("embedding"), dtype)
        self._head = (
            self._embedding if config.tied_embeddings else hold_table(source.read("head"), dtype)
        )
        self._final_norm = as_floats(source.read("final_norm")).to(dtype)
        self._layers: list[LayerWeights] = []
        for index in range(config.layers):
            self._layers.append(_read_layer(source, index, dtype))
            progress((index + 1) / config.layers)
        self._rotary = RotaryTable(config, positions, dtype)

    @property
    def size(self) -> int:
        """Bytes of weights and tables."""
        tables = self._embedding.size
        if self._head is not self._embedding:
            tables += self._head.size
        layers = sum(layer.size for layer in self._layers)
        return tables + layers + self._final_norm.nbytes + self._rotary.size

    @torch.inference_mode()
    def forward(
        self, batch: StepBatch, cache: KeyValueCache, adaptation: Adaptation | None = None
    ) -> Tensor:
        """Logits `[logit_rows, vocabulary]` in fp32; the batch's keys and values go to `cache`.

        `adaptation` is the plan of the batch's adapters.
        """
        adapted = adaptation or Unadapted()
        cosines, sines = self._rotary.at(batch.positions)
        hidden = self._embedding.gather(batch.token_ids)
        for index, layer in enumerate(self._layers):
            normed = self._norm(hidden, layer.attention_norm)
            stacked = layer.query_key_value.multiply(normed)
            adapted.add(index, "query_key_value", normed, stacked)
            queries, keys, values = self._heads(stacked, cosines, sines)
            cache.store(index, batch.slots, keys, values)
            seen = attend(queries, cache.layer(index), batch.spans)
            attended = layer.output.multiply(seen)
            adapted.add(index, "output", seen, attended)
            hidden = hidden + attended
            normed = self._norm(hidden, layer.feed_forward_norm)
            stacked = layer.gate_up.multiply(normed)
            adapted.add(index, "gate_up", normed, stacked)
            gate, up = stacked.chunk(2, dim=-1)
            gated = silu(gate) * up
            fed = layer.down.multiply(gated)
            adapted.add(index, "down", gated, fed)
            hidden = hidden + fed
        chosen = self._norm(hidden[batch.logit_rows], self._final_norm)
        return self._head.multiply(chosen).float()

    def _heads(
        self, stacked: Tensor, cosines: Tensor, sines: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries and keys, and values, each `[tokens, heads, dimension]`."""
        heads, kv_heads = self.config.heads, self.config.kv_heads
        vectors = stacked.view(len(stacked), heads + 2 * kv_heads, self.config.head_dimension)
        rotated = rotate(vectors[:, : heads + kv_heads], cosines, sines)
        return rotated[:, :heads], rotated[:, heads:], vectors[:, heads + kv_heads :]

    def _norm(self, hidden: Tensor, weight: Tensor) -> Tensor:
        return rms_norm(hidden, (self.config.hidden_size,), weight, self.config.norm_epsilon)


def _read_layer(source: WeightSource, index: int, dtype: torch.dtype) -> LayerWeights:
    def floats(name: str) -> Tensor:
        return as_floats(source.read(f"layers.{index}.{name}")).to(dtype)

    def matrix(*names: str) -> Matrix:
        return hold([source.read(f"layers.{index}.{name}") for name in names], dtype)

    return LayerWeights(
        attention_norm=floats("attention_norm"),
        query_key_value=matrix("query", "key", "value"),
        output=matrix("output"),
        feed_forward_norm=floats("feed_forward_norm"),
        gate_up=matrix("gate", "up"),
        down=matrix("down"),
    )
