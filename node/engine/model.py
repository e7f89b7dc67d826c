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

from node.engine.attention import attend
from node.engine.batch import StepBatch
from node.engine.cache import KeyValueCache
from node.engine.config import LlamaConfig
from node.engine.linear import linear
from node.engine.rope import RotaryTable, rotate


class TensorSource(Protocol):
    """Where weights come from, one at a time, under the names of `LlamaConfig.tensor_shapes`."""

    def read(self, name: str) -> Tensor:
        """One weight in any float type; a fresh tensor that the caller may keep."""
        ...


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One block. Matrices that read the same input are stacked: fewer, larger products."""

    attention_norm: Tensor
    query_key_value: Tensor
    output: Tensor
    feed_forward_norm: Tensor
    gate_up: Tensor
    down: Tensor


class LlamaModel:
    """Weights in one float type, and the forward pass. Not thread-safe with itself."""

    def __init__(
        self,
        config: LlamaConfig,
        source: TensorSource,
        dtype: torch.dtype,
        positions: int,
        progress: Callable[[float], None] = lambda _fraction: None,
    ) -> None:
        """Read every weight, one layer at a time so that the peak stays near the final size.

        `positions` bounds the position of any token; `progress` hears the fraction done.
        """
        self.config = config
        self.dtype = dtype
        self._embedding = source.read("embedding").to(dtype)
        self._head = self._embedding if config.tied_embeddings else source.read("head").to(dtype)
        self._final_norm = source.read("final_norm").to(dtype)
        self._layers: list[LayerWeights] = []
        for index in range(config.layers):
            self._layers.append(_read_layer(source, index, dtype))
            progress((index + 1) / config.layers)
        self._rotary = RotaryTable(config, positions, dtype)

    @property
    def size(self) -> int:
        """Bytes of weights and tables."""
        tensors = {id(t): t for t in (self._embedding, self._head, self._final_norm)}
        for layer in self._layers:
            tensors |= {id(t): t for t in _tensors_of(layer)}
        return sum(t.nbytes for t in tensors.values()) + self._rotary.size

    @torch.inference_mode()
    def forward(self, batch: StepBatch, cache: KeyValueCache) -> Tensor:
        """Logits `[logit_rows, vocabulary]` in fp32; the batch's keys and values go to `cache`."""
        cosines, sines = self._rotary.at(batch.positions)
        hidden = self._embedding[batch.token_ids]
        for index, layer in enumerate(self._layers):
            normed = self._norm(hidden, layer.attention_norm)
            queries, keys, values = self._project(layer, normed, cosines, sines)
            cache.store(index, batch.slots, keys, values)
            seen = attend(queries, cache.layer(index), batch.spans)
            hidden = hidden + linear(seen, layer.output)
            gate, up = linear(self._norm(hidden, layer.feed_forward_norm), layer.gate_up).chunk(
                2, dim=-1
            )
            hidden = hidden + linear(silu(gate) * up, layer.down)
        chosen = self._norm(hidden[batch.logit_rows], self._final_norm)
        return linear(chosen, self._head).float()

    def _project(
        self, layer: LayerWeights, normed: Tensor, cosines: Tensor, sines: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries and keys, and values, each `[tokens, heads, dimension]`."""
        heads, kv_heads = self.config.heads, self.config.kv_heads
        stacked = linear(normed, layer.query_key_value)
        vectors = stacked.view(len(normed), heads + 2 * kv_heads, self.config.head_dimension)
        rotated = rotate(vectors[:, : heads + kv_heads], cosines, sines)
        return rotated[:, :heads], rotated[:, heads:], vectors[:, heads + kv_heads :]

    def _norm(self, hidden: Tensor, weight: Tensor) -> Tensor:
        return rms_norm(hidden, (self.config.hidden_size,), weight, self.config.norm_epsilon)


def _read_layer(source: TensorSource, index: int, dtype: torch.dtype) -> LayerWeights:
    def read(*names: str) -> Tensor:
        parts = [source.read(f"layers.{index}.{name}").to(dtype) for name in names]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    return LayerWeights(
        attention_norm=read("attention_norm"),
        query_key_value=read("query", "key", "value"),
        output=read("output"),
        feed_forward_norm=read("feed_forward_norm"),
        gate_up=read("gate", "up"),
        down=read("down"),
    )


def _tensors_of(layer: LayerWeights) -> tuple[Tensor, ...]:
    return (
        layer.attention_norm,
        layer.query_key_value,
        layer.output,
        layer.feed_forward_norm,
        layer.gate_up,
        layer.down,
    )
