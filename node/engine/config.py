"""What makes one Llama-shaped model differ from another, as plain numbers.

Knows the shape of a decoder; must not know files, tensors or how it is computed.
"""

import math
from dataclasses import dataclass
from typing import Literal

_STRETCH_MAX = 1e6
"""More than any model is stretched by; beyond it lengths and logarithms leave what floats hold."""


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How the rotary frequencies of a model are stretched beyond its first training length.

    `linear` divides all by `factor`. `llama3` divides those with long waves by `factor`, keeps
    those with short ones and blends between (Llama 3.1, section 3.4.2 of arXiv 2407.21783, with
    the constants of its reference code). `table` divides frequency i by `divisors[i]`. `yarn` keeps
    those that turn at least `beta_fast` times within the first length, divides those that turn at
    most `beta_slow` times, and scales cosines and sines by `attention_factor` (arXiv 2309.00071).
    """

    kind: Literal["linear", "llama3", "table", "yarn"]
    factor: float = 1.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_context_length: int = 8192
    divisors: tuple[float, ...] = ()
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float = 1.0

    def __post_init__(self) -> None:
        """`ValueError` for a stretch that would divide by nothing."""
        if not 0 < self.factor <= _STRETCH_MAX or self.original_context_length < 1:
            raise ValueError(
                f"the rope factor is {self.factor} from {self.original_context_length} tokens"
            )
        for name in ("beta_fast", "beta_slow", "attention_factor"):
            if not 0 < getattr(self, name) <= _STRETCH_MAX:
                raise ValueError(f"{name} of the rope scaling is {getattr(self, name)}")
        if self.kind == "llama3" and self.low_frequency_factor == self.high_frequency_factor:
            raise ValueError("the two frequency factors of rope scaling are the same")


@dataclass(frozen=True, slots=True)
class Variant:
    """Where a family of models departs from Llama; as it stands, nowhere.

    Layers are named by their index. `sliding_layers` see the last `sliding_window` positions, the
    token's own included, and rotate by `local_rope_theta`, unscaled, where there is one.
    `unrotated_layers` have no positions at all (NoPE, arXiv 2305.19466). `has_query_key_norms`
    norms each head before it is rotated; `has_output_norms` norms what attention and feed-forward
    give before it is added. `has_wide_norms` norms in fp32 with weights in fp32. An
    `attention_scale` of None is one over the root of the head's dimension.
    """

    has_input_biases: bool = False
    has_output_bias: bool = False
    has_query_key_norms: bool = False
    has_output_norms: bool = False
    has_wide_norms: bool = False
    activation: Literal["silu", "gelu_tanh"] = "silu"
    embedding_scale: float = 1.0
    attention_scale: float | None = None
    logit_softcap: float | None = None
    sliding_window: int = 0
    sliding_layers: tuple[int, ...] = ()
    local_rope_theta: float | None = None
    unrotated_layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """`ValueError`, naming the field, for what cannot be computed."""
        for name in ("embedding_scale", "attention_scale", "logit_softcap", "local_rope_theta"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}; it must be a positive number")
        if self.sliding_layers and self.sliding_window < 1:
            raise ValueError(
                f"layers slide by a sliding_window of {self.sliding_window}; it must be at least 1"
            )
        if self.local_rope_theta is not None and not self.sliding_layers:
            raise ValueError("there is a local_rope_theta, but no layer slides")


LLAMA = Variant()
"""No difference: Llama 1 to 3, SmolLM2, Mistral without a window."""


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    """The shape of a decoder with RMS norms, rotary positions, grouped queries and a gate.

    `kv_heads` equal to `heads` is multi-head attention, 1 is multi-query attention. `variant` tells
    the families that are nearly a Llama from a Llama.
    """

    vocabulary_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dimension: int
    context_length: int
    norm_epsilon: float
    rope_theta: float
    rope_scaling: RopeScaling | None = None
    tied_embeddings: bool = True
    variant: Variant = LLAMA

    def __post_init__(self) -> None:
        """`ValueError`, naming the field, for a shape that cannot be computed."""
        for name in (
            "vocabulary_size",
            "hidden_size",
            "intermediate_size",
            "layers",
            "heads",
            "kv_heads",
            "head_dimension",
            "context_length",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.heads % self.kv_heads:
            raise ValueError(
                f"{self.heads} query heads cannot share {self.kv_heads} key-value heads evenly"
            )
        if self.head_dimension % 2:
            raise ValueError(f"head_dimension is {self.head_dimension}; rotary needs it even")
        if self.norm_epsilon <= 0 or self.rope_theta <= 0:
            raise ValueError("norm_epsilon and rope_theta must be positive")
        if self.rope_scaling and self.rope_scaling.kind == "yarn" and self.rope_theta <= 1:
            raise ValueError(f"rope_theta is {self.rope_theta}; yarn needs more than 1")
        for index in (*self.variant.sliding_layers, *self.variant.unrotated_layers):
            if not 0 <= index < self.layers:
                raise ValueError(f"there is no layer {index} of {self.layers}")

    @property
    def cache_values_per_token(self) -> int:
        """How many numbers the keys and values of one token are, over all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dimension

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """The name and shape of every weight; matrices are `[out, in]`."""
        shapes: dict[str, tuple[int, ...]] = {
            "embedding": (self.vocabulary_size, self.hidden_size),
            "final_norm": (self.hidden_size,),
        }
        if not self.tied_embeddings:
            shapes["head"] = (self.vocabulary_size, self.hidden_size)
        layer = self._layer_shapes()
        for index in range(self.layers):
            shapes |= {f"layers.{index}.{name}": shape for name, shape in layer.items()}
        return shapes

    def _layer_shapes(self) -> dict[str, tuple[int, ...]]:
        hidden, inner, variant = self.hidden_size, self.intermediate_size, self.variant
        queries = self.heads * self.head_dimension
        keys = self.kv_heads * self.head_dimension
        shapes: dict[str, tuple[int, ...]] = {
            "attention_norm": (hidden,),
            "query": (queries, hidden),
            "key": (keys, hidden),
            "value": (keys, hidden),
            "output": (hidden, queries),
            "feed_forward_norm": (hidden,),
            "gate": (inner, hidden),
            "up": (inner, hidden),
            "down": (hidden, inner),
        }
        if variant.has_input_biases:
            shapes |= {"query_bias": (queries,), "key_bias": (keys,), "value_bias": (keys,)}
        if variant.has_output_bias:
            shapes["output_bias"] = (hidden,)
        if variant.has_query_key_norms:
            shapes |= dict.fromkeys(("query_norm", "key_norm"), (self.head_dimension,))
        if variant.has_output_norms:
            names = ("attention_output_norm", "feed_forward_output_norm")
            shapes |= dict.fromkeys(names, (hidden,))
        return shapes

    @property
    def parameters(self) -> int:
        """How many weights there are; shared embeddings count once."""
        total = 0
        for shape in self.tensor_shapes().values():
            rows, *columns = shape
            total += rows * (columns[0] if columns else 1)
        return total
