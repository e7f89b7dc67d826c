"""Llama and the families that differ from it least: Mistral and SmolLM3.

Knows their settings in `config.json`; see `node.hosting.families.family`.
"""

from node.engine.config import LLAMA, Variant
from node.hosting.families.family import SiluFamily, must_be, sliding, sliding_layers


class Llama(SiluFamily, kw_only=True):
    """Llama 1 to 3, SmolLM2 and what else calls itself a Llama."""

    max_position_embeddings: int = 2048
    attention_bias: bool = False
    mlp_bias: bool = False
    rope_interleaved: bool = False
    pretraining_tp: int = 1
    # Without effect.
    is_llama_config: bool = True

    def check(self) -> None:
        """See `Family`."""
        SiluFamily.check(self)
        must_be(self, {"mlp_bias": False, "rope_interleaved": False, "pretraining_tp": 1})

    def variant(self) -> Variant:
        """See `Family`."""
        return Variant(has_input_biases=self.attention_bias, has_output_bias=self.attention_bias)


class Mistral(SiluFamily, kw_only=True):
    """Version 0.1 of the 7B slides in every layer; later ones say null."""

    max_position_embeddings: int = 131_072
    num_key_value_heads: int | None = 8
    sliding_window: int | None = 4096

    def variant(self) -> Variant:
        """See `Family`."""
        layers = range(self.num_hidden_layers)
        return LLAMA if self.sliding_window is None else sliding(LLAMA, self.sliding_window, layers)


class SmolLM3(SiluFamily, kw_only=True):
    """No positions in every fourth layer."""

    num_key_value_heads: int | None = 4
    max_position_embeddings: int = 32_768
    rope_theta: float = 2_000_000.0
    tie_word_embeddings: bool = True
    attention_bias: bool = False
    mlp_bias: bool = False
    use_sliding_window: bool = False
    sliding_window: int | None = None
    layer_types: list[str] | None = None
    no_rope_layers: list[int] | None = None
    no_rope_layer_interval: int = 4
    # Without effect.
    max_window_layers: int | None = None
    pretraining_tp: int = 1

    def check(self) -> None:
        """See `Family`."""
        SiluFamily.check(self)
        must_be(self, {"mlp_bias": False})
        if self.no_rope_layers is not None and len(self.no_rope_layers) < self.num_hidden_layers:
            raise ValueError("no_rope_layers has fewer entries than there are layers")
        if self.no_rope_layer_interval < 1:
            raise ValueError(f"no_rope_layer_interval is {self.no_rope_layer_interval}")

    def variant(self) -> Variant:
        """See `Family`."""
        plain = Variant(
            has_input_biases=self.attention_bias,
            has_output_bias=self.attention_bias,
            unrotated_layers=self._unrotated(),
        )
        if not self.use_sliding_window:
            return plain
        if self.layer_types is not None:
            slide = sliding_layers(self.layer_types, self.num_hidden_layers)
        else:
            slide = () if self.sliding_window is None else plain.unrotated_layers
        return sliding(plain, self.sliding_window, slide)

    def _unrotated(self) -> tuple[int, ...]:
        layers, interval = range(self.num_hidden_layers), self.no_rope_layer_interval
        if self.no_rope_layers is None:
            return tuple(index for index in layers if (index + 1) % interval == 0)
        return tuple(index for index in layers if not self.no_rope_layers[index])
