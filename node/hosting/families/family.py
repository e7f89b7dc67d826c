"""What all families of models have in `config.json`, and how settings are refused.

Knows transformers' names, defaults and meaning; must not know files. A setting that is not a field
of its family's struct is unknown, and decoding refuses it by name.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from msgspec import Struct, field

from node.engine.config import LLAMA, LlamaConfig, RopeScaling, Variant
from node.hosting.families.rope import Rope

LAYERS_MAX = 4096
"""More than any model has; a list of its layers is made before the weights are looked at."""

Ids = int | list[int] | None


class Positions(NamedTuple):
    """Base and scaling of the rotation, and how many tokens they reach."""

    theta: float
    scaling: RopeScaling | None
    length: int


class Family(Struct, forbid_unknown_fields=True, kw_only=True):
    """The settings of every family. A family overrides the methods below `shape`."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    max_position_embeddings: int
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    # Without effect on the answer.
    model_type: str = ""
    architectures: list[str] | None = None
    attention_dropout: float = 0.0
    bos_token_id: Ids = None
    eos_token_id: Ids = None
    pad_token_id: Ids = None
    initializer_range: float = 0.0
    torch_dtype: str | None = None
    dtype: str | None = None
    transformers_version: str = ""
    use_cache: bool = True
    name_or_path: str = field(default="", name="_name_or_path")
    javascript: Any = field(default=None, name="transformers.js_config")

    def shape(self) -> LlamaConfig:
        """The model's shape. `ValueError`, naming the setting, for one that we do not compute."""
        if self.num_hidden_layers > LAYERS_MAX:
            raise ValueError(f"num_hidden_layers is {self.num_hidden_layers}: too many layers")
        self.check()
        positions = self.positions()
        heads = self.num_attention_heads
        head_dimension = self.head_dim
        if head_dimension is None:
            head_dimension = self.hidden_size // max(heads, 1)
        return LlamaConfig(
            vocabulary_size=self.vocab_size,
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            layers=self.num_hidden_layers,
            heads=heads,
            kv_heads=heads if self.num_key_value_heads is None else self.num_key_value_heads,
            head_dimension=head_dimension,
            context_length=positions.length,
            norm_epsilon=self.rms_norm_eps,
            rope_theta=positions.theta,
            rope_scaling=positions.scaling,
            tied_embeddings=self.tie_word_embeddings,
            variant=self.variant(),
        )

    def check(self) -> None:
        """`ValueError` unless what we compute in one way only is asked for in that way."""
        raise NotImplementedError

    def positions(self) -> Positions:
        """Of the layers that see everything."""
        raise NotImplementedError

    def variant(self) -> Variant:
        """Where the family departs from Llama."""
        return LLAMA


class SiluFamily(Family, kw_only=True):
    """A family with Llama's gate and one rotation for all layers."""

    hidden_act: str = "silu"
    rope_theta: float = 10_000.0
    rope_scaling: Rope | None = None
    rope_parameters: Rope | None = None

    def check(self) -> None:
        """See `Family`."""
        must_be(self, {"hidden_act": "silu"})

    def positions(self) -> Positions:
        """See `Family`."""
        if self.rope_scaling and self.rope_parameters and self.rope_scaling != self.rope_parameters:
            raise ValueError("rope_scaling and rope_parameters contradict each other")
        return positions_of(
            self.rope_parameters or self.rope_scaling, self.rope_theta, self.max_position_embeddings
        )


def positions_of(rope: Rope | None, theta: float, length: int) -> Positions:
    """What `rope` says, where it says something."""
    if rope is None:
        return Positions(theta, None, length)
    own = theta if rope.rope_theta is None else rope.rope_theta
    return Positions(own, rope.scaling(length), rope.reach(length))


def must_be(settings: Struct, wanted: Mapping[str, object]) -> None:
    """`ValueError` unless each of the settings has the one value that we compute."""
    for name, value in wanted.items():
        found = getattr(settings, name)
        if found != value:
            raise ValueError(f"{name} is {found!r}; only {value!r} is supported")


def sliding(variant: Variant, window: int | None, layers: Iterable[int]) -> Variant:
    """`variant` in which `layers` see `window` positions. `ValueError` if none is given."""
    slide = tuple(layers)
    if not slide:
        return variant
    if window is None:
        raise ValueError("layers slide, but sliding_window is not in use")
    return replace(variant, sliding_window=window, sliding_layers=slide)


def sliding_layers(layer_types: Sequence[str], layers: int) -> tuple[int, ...]:
    """The layers that `layer_types` calls sliding. `ValueError` for other kinds."""
    if len(layer_types) != layers:
        raise ValueError(f"layer_types has {len(layer_types)} entries for {layers} layers")
    for kind in layer_types:
        if kind not in {"sliding_attention", "full_attention"}:
            raise ValueError(f"layer_types has {kind[:80]!r}, which is not supported")
    return tuple(i for i, kind in enumerate(layer_types) if kind == "sliding_attention")
