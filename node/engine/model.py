"""A Llama-shaped decoder: token columns in, logits out.

Knows weights and arithmetic; must not know requests, sampling or files. In fp32 it chooses the
same tokens as the Hugging Face implementation of the same weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import gelu, rms_norm, silu

from node.engine.adapters.plan import Adaptation, AdapterPlan, Unadapted
from node.engine.attention import attend
from node.engine.batch import CPU, Chunk, Span, StepBatch, build_batch
from node.engine.cache import KeyValueCache
from node.engine.config import LlamaConfig
from node.engine.errors import EngineFailed
from node.engine.page_block import PageBlock
from node.engine.rope import RotaryTable, local_table, rotate
from node.engine.weights.hold import DeviceSource, hold, hold_table
from node.engine.weights.matrix import Matrix
from node.engine.weights.packings import as_floats
from node.engine.weights.scheme import WeightSource, norm_type
from node.engine.window import windowed


class TensorSource(Protocol):
    """A `WeightSource` that gives floats, dequantising what is packed."""

    def read(self, name: str) -> Tensor:
        """One weight in any float type; a fresh tensor that the caller may keep."""
        ...


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One block. Matrices that read the same input are stacked: fewer, larger products.

    What a Llama does not have is None where `LlamaConfig.variant` does not ask for it.
    """

    attention_norm: Tensor
    query_key_value: Matrix
    output: Matrix
    feed_forward_norm: Tensor
    gate_up: Matrix
    down: Matrix
    query_key_value_bias: Tensor | None = None
    output_bias: Tensor | None = None
    query_norm: Tensor | None = None
    key_norm: Tensor | None = None
    attention_output_norm: Tensor | None = None
    feed_forward_output_norm: Tensor | None = None

    @property
    def size(self) -> int:
        """Bytes held."""
        matrices = (self.query_key_value, self.output, self.gate_up, self.down)
        vectors = (
            self.attention_norm,
            self.feed_forward_norm,
            self.query_key_value_bias,
            self.output_bias,
            self.query_norm,
            self.key_norm,
            self.attention_output_norm,
            self.feed_forward_output_norm,
        )
        held = sum(vector.nbytes for vector in vectors if vector is not None)
        return held + sum(matrix.size for matrix in matrices)


@dataclass(frozen=True, slots=True)
class _Sight:
    """How far the tokens of a step see, and by what they are rotated, in one kind of layers."""

    spans: Sequence[Span]
    cosines: Tensor
    sines: Tensor


class LlamaModel:
    """Weights, dense or packed, and the forward pass. Not thread-safe with itself."""

    def __init__(
        self,
        config: LlamaConfig,
        source: WeightSource,
        dtype: torch.dtype,
        positions: int,
        progress: Callable[[float], None] = lambda _fraction: None,
        device: torch.device = CPU,
    ) -> None:
        """Read every weight, one layer at a time so that the peak stays near the final size.

        `dtype` is what is computed in; floats are held in it, packed weights stay packed (fast with
        bf16, by the referee with fp32). `positions` bounds the position of any token; `progress`
        hears the fraction done. On another `device` than the CPU packed weights become floats: its
        kernels have none of these packings.
        """
        self.config = config
        self.dtype = dtype
        self.device = device
        if device != CPU:
            source = DeviceSource(source, dtype, device)
        self.embedding = hold_table(source.read("embedding"), dtype)
        self.head = (
            self.embedding if config.tied_embeddings else hold_table(source.read("head"), dtype)
        )
        self.final_norm = as_floats(source.read("final_norm")).to(norm_type(config, dtype))
        self.layers: list[LayerWeights] = []
        for index in range(config.layers):
            self.layers.append(_read_layer(source, index, config, dtype))
            progress((index + 1) / config.layers)
        self.rotary = RotaryTable(config, positions, dtype).to(device)
        local = local_table(config, positions, dtype)
        self._local_rotary = local.to(device) if local else None
        self._sliding = frozenset(config.variant.sliding_layers)
        self._unrotated = frozenset(config.variant.unrotated_layers)
        # Rounded as it will be multiplied: transformers has it in the model's type too.
        self._embedding_scale = torch.tensor(config.variant.embedding_scale, dtype=dtype)

    @property
    def size(self) -> int:
        """Bytes of weights and tables."""
        tables = self.embedding.size
        if self.head is not self.embedding:
            tables += self.head.size
        layers = sum(layer.size for layer in self.layers)
        rotary = self.rotary.size + (self._local_rotary.size if self._local_rotary else 0)
        return tables + layers + self.final_norm.nbytes + rotary

    def open(self, cache_tokens: int, *, is_cache_quantised: bool = False) -> "EagerRunner":
        """This model with pages for `cache_tokens` tokens."""
        return EagerRunner(
            self,
            KeyValueCache(
                self.config,
                cache_tokens,
                self.dtype,
                is_quantised=is_cache_quantised,
                device=self.device,
            ),
        )

    @torch.inference_mode()
    def forward(
        self, batch: StepBatch, cache: KeyValueCache, adaptation: Adaptation | None = None
    ) -> Tensor:
        """Logits `[logit_rows, vocabulary]` in fp32; the batch's keys and values go to `cache`.

        `adaptation` is the plan of the batch's adapters.
        """
        adapted = adaptation or Unadapted()
        whole = _Sight(batch.spans, *self.rotary.at(batch.positions))
        near = self._near(batch, whole) if self._sliding else whole
        hidden = self._embed(batch.token_ids)
        for index, layer in enumerate(self.layers):
            sight = near if index in self._sliding else whole
            normed = self._norm(hidden, layer.attention_norm)
            queries, keys, values = self._project(layer, index, normed, sight, adapted)
            cache.store(index, batch.slots, keys, values)
            scale = self.config.variant.attention_scale
            seen = attend(queries, cache.layer(index), sight.spans, scale)
            hidden = hidden + self._attention_output(layer, index, seen, adapted)
            normed = self._norm(hidden, layer.feed_forward_norm)
            hidden = hidden + self._feed_forward(layer, index, normed, adapted)
        chosen = self._norm(hidden[batch.logit_rows], self.final_norm)
        return self._capped(self.head.multiply(chosen).float())

    def _near(self, batch: StepBatch, whole: _Sight) -> _Sight:
        """What the sliding layers see."""
        spans = windowed(batch, self.config.variant.sliding_window, self.dtype)
        if self._local_rotary is None:
            return _Sight(spans, whole.cosines, whole.sines)
        return _Sight(spans, *self._local_rotary.at(batch.positions))

    def _embed(self, token_ids: Tensor) -> Tensor:
        hidden = self.embedding.gather(token_ids)
        return (
            hidden if self.config.variant.embedding_scale == 1 else hidden * self._embedding_scale
        )

    def _project(
        self, layer: LayerWeights, index: int, normed: Tensor, sight: _Sight, adapted: Adaptation
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries and keys, and values, each `[tokens, heads, dimension]`."""
        heads, kv_heads = self.config.heads, self.config.kv_heads
        stacked = layer.query_key_value.multiply(normed)
        if layer.query_key_value_bias is not None:
            stacked = stacked + layer.query_key_value_bias
        adapted.add(index, "query_key_value", normed, stacked)
        vectors = stacked.view(len(normed), heads + 2 * kv_heads, self.config.head_dimension)
        turned, values = vectors[:, : heads + kv_heads], vectors[:, heads + kv_heads :]
        if layer.query_norm is not None and layer.key_norm is not None:
            queries = self._norm(turned[:, :heads], layer.query_norm)
            turned = torch.cat((queries, self._norm(turned[:, heads:], layer.key_norm)), dim=1)
        if index not in self._unrotated:
            turned = rotate(turned, sight.cosines, sight.sines)
        return turned[:, :heads], turned[:, heads:], values

    def _attention_output(
        self, layer: LayerWeights, index: int, seen: Tensor, adapted: Adaptation
    ) -> Tensor:
        given = layer.output.multiply(seen)
        if layer.output_bias is not None:
            given = given + layer.output_bias
        adapted.add(index, "output", seen, given)
        norm = layer.attention_output_norm
        return given if norm is None else self._norm(given, norm)

    def _feed_forward(
        self, layer: LayerWeights, index: int, normed: Tensor, adapted: Adaptation
    ) -> Tensor:
        stacked = layer.gate_up.multiply(normed)
        adapted.add(index, "gate_up", normed, stacked)
        gate, up = stacked.chunk(2, dim=-1)
        is_silu = self.config.variant.activation == "silu"
        gated = (silu(gate) if is_silu else gelu(gate, approximate="tanh")) * up
        given = layer.down.multiply(gated)
        adapted.add(index, "down", gated, given)
        norm = layer.feed_forward_output_norm
        return given if norm is None else self._norm(given, norm)

    def _norm(self, vectors: Tensor, weight: Tensor) -> Tensor:
        """Over the last dimension, in the type of `weight`."""
        normed = rms_norm(vectors.to(weight.dtype), weight.shape, weight, self.config.norm_epsilon)
        return normed.to(vectors.dtype)

    def _capped(self, logits: Tensor) -> Tensor:
        cap = self.config.variant.logit_softcap
        return logits if cap is None else torch.tanh(logits / cap) * cap


def _read_layer(
    source: WeightSource, index: int, config: LlamaConfig, dtype: torch.dtype
) -> LayerWeights:
    variant, wide = config.variant, norm_type(config, dtype)

    def norm(name: str, *, is_there: bool = True) -> Tensor | None:
        return vector(name).to(wide) if is_there else None

    def vector(name: str) -> Tensor:
        return as_floats(source.read(f"layers.{index}.{name}"))

    def matrix(*names: str) -> Matrix:
        return hold([source.read(f"layers.{index}.{name}") for name in names], dtype)

    input_biases = ("query_bias", "key_bias", "value_bias") if variant.has_input_biases else ()
    return LayerWeights(
        attention_norm=vector("attention_norm").to(wide),
        query_key_value=matrix("query", "key", "value"),
        output=matrix("output"),
        feed_forward_norm=vector("feed_forward_norm").to(wide),
        gate_up=matrix("gate", "up"),
        down=matrix("down"),
        query_key_value_bias=torch.cat([vector(name) for name in input_biases]).to(dtype)
        if input_biases
        else None,
        output_bias=vector("output_bias").to(dtype) if variant.has_output_bias else None,
        query_norm=norm("query_norm", is_there=variant.has_query_key_norms),
        key_norm=norm("key_norm", is_there=variant.has_query_key_norms),
        attention_output_norm=norm("attention_output_norm", is_there=variant.has_output_norms),
        feed_forward_output_norm=norm(
            "feed_forward_output_norm", is_there=variant.has_output_norms
        ),
    )


class EagerRunner:
    """Implements `Runner` with torch's operators, one after the other."""

    def __init__(self, model: LlamaModel, cache: KeyValueCache) -> None:
        self._held: tuple[LlamaModel, KeyValueCache] | None = (model, cache)

    def run(self, chunks: Sequence[Chunk], adaptation: AdapterPlan | None = None) -> Tensor:
        """As `Runner.run`. `EngineFailed` after `close`."""
        model, cache = self._open()
        return model.forward(build_batch(chunks, model.dtype, model.device), cache, adaptation)

    def export_pages(self, pages: Sequence[int]) -> PageBlock:
        """As `Runner`."""
        return self._open()[1].export_pages(pages)

    def import_pages(self, pages: Sequence[int], block: PageBlock) -> None:
        """As `Runner`."""
        self._open()[1].import_pages(pages, block)

    def close(self) -> None:
        """As `Runner.close`."""
        self._held = None

    def _open(self) -> tuple[LlamaModel, KeyValueCache]:
        if self._held is None:
            raise EngineFailed("The engine was closed.")
        return self._held
