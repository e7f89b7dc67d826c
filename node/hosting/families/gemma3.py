"""Gemma 3, alone or as the text part of the model with eyes.

Knows its settings in `config.json`; see `node.hosting.families.family`.
"""

from dataclasses import replace
from typing import Any

from msgspec import Struct, field

from node.engine.config import LlamaConfig, Variant
from node.hosting.families.family import (
    Family,
    Ids,
    Positions,
    must_be,
    positions_of,
    sliding,
    sliding_layers,
)
from node.hosting.families.rope import Rope, RopeByKind


class Gemma3Text(Family, kw_only=True):
    """Five layers of six see a window, and rotate by a base of their own."""

    vocab_size: int = 262_208
    hidden_size: int = 2304
    intermediate_size: int = 9216
    num_hidden_layers: int = 26
    num_attention_heads: int = 8
    num_key_value_heads: int | None = 4
    head_dim: int | None = 256
    max_position_embeddings: int = 131_072
    tie_word_embeddings: bool = True
    rope_theta: float = 1_000_000.0
    rope_local_base_freq: float = 10_000.0
    rope_scaling: Rope | None = None
    rope_parameters: RopeByKind | None = None
    hidden_activation: str = "gelu_pytorch_tanh"
    attention_bias: bool = False
    query_pre_attn_scalar: float = 256.0
    sliding_window: int | None = 4096
    sliding_window_pattern: int = 6
    layer_types: list[str] | None = None
    final_logit_softcapping: float | None = None
    attn_logit_softcapping: float | None = None
    use_bidirectional_attention: bool | None = None
    # Without effect: `layer_types` says it too.
    old_pattern: int = field(default=6, name="_sliding_window_pattern")
    cache_implementation: str | None = None

    def check(self) -> None:
        """See `Family`."""
        # transformers reads attn_logit_softcapping and computes without it.
        must_be(self, {"hidden_activation": "gelu_pytorch_tanh", "attn_logit_softcapping": None})
        if self.use_bidirectional_attention:
            raise ValueError("use_bidirectional_attention is True; only False is supported")
        if self.rope_scaling is not None and self.rope_parameters is not None:
            raise ValueError("rope_scaling and rope_parameters contradict each other")
        for name in ("hidden_size", "sliding_window_pattern", "query_pre_attn_scalar"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be positive")

    def positions(self) -> Positions:
        """See `Family`."""
        by_kind = self.rope_parameters
        rope = self.rope_scaling if by_kind is None else by_kind.full_attention
        return positions_of(rope, self.rope_theta, self.max_position_embeddings)

    def variant(self) -> Variant:
        """See `Family`."""
        slide = self._sliding_layers()
        plain = Variant(
            has_input_biases=self.attention_bias,
            has_output_bias=self.attention_bias,
            has_query_key_norms=True,
            has_output_norms=True,
            has_wide_norms=True,
            activation="gelu_tanh",
            embedding_scale=self.hidden_size**0.5,
            attention_scale=self.query_pre_attn_scalar**-0.5,
            logit_softcap=self.final_logit_softcapping,
        )
        slid = sliding(plain, self.sliding_window, slide)
        return replace(slid, local_rope_theta=self._local_theta()) if slide else slid

    def _sliding_layers(self) -> tuple[int, ...]:
        if self.layer_types is not None:
            return sliding_layers(self.layer_types, self.num_hidden_layers)
        layers, pattern = range(self.num_hidden_layers), self.sliding_window_pattern
        return tuple(index for index in layers if (index + 1) % pattern)

    def _local_theta(self) -> float:
        rope = self.rope_parameters.sliding_attention if self.rope_parameters else None
        found = positions_of(rope, self.rope_local_base_freq, self.max_position_embeddings)
        if found.scaling is not None:
            raise ValueError("rope_parameters.sliding_attention is scaled; that is not supported")
        return found.theta


class Gemma3(Struct, forbid_unknown_fields=True, kw_only=True):
    """The model with eyes, of which the text part is taken."""

    text_config: Gemma3Text
    tie_word_embeddings: bool = True
    # Of the parts that are left out, or without effect.
    vision_config: Any = None
    mm_tokens_per_image: int = 0
    boi_token_index: int = 0
    eoi_token_index: int = 0
    image_token_index: int = 0
    model_type: str = ""
    architectures: list[str] | None = None
    bos_token_id: Ids = None
    eos_token_id: Ids = None
    pad_token_id: Ids = None
    initializer_range: float = 0.0
    torch_dtype: str | None = None
    dtype: str | None = None
    transformers_version: str = ""
    use_cache: bool = True

    def shape(self) -> LlamaConfig:
        """See `Family`."""
        must_be(self, {"tie_word_embeddings": self.text_config.tie_word_embeddings})
        return self.text_config.shape()
