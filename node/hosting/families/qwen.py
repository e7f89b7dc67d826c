"""Qwen 2, 2.5 and 3: biases on the inputs of attention, or norms on its heads.

Knows their settings in `config.json`; see `node.hosting.families.family`.
"""

from node.engine.config import Variant
from node.hosting.families.family import SiluFamily, must_be, sliding, sliding_layers


class Qwen2(SiluFamily, kw_only=True):
    """Qwen 2 and 2.5."""

    num_key_value_heads: int | None = 32
    max_position_embeddings: int = 32_768
    use_sliding_window: bool = False
    sliding_window: int | None = 4096
    max_window_layers: int = 28
    layer_types: list[str] | None = None
    use_mrope: bool = False

    def check(self) -> None:
        """See `Family`."""
        SiluFamily.check(self)
        must_be(self, {"use_mrope": False})

    def variant(self) -> Variant:
        """See `Family`."""
        return self.slid(Variant(has_input_biases=True))

    def slid(self, variant: Variant) -> Variant:
        """`variant` with the windows, if they are in use."""
        window = self.sliding_window if self.use_sliding_window else None
        if self.layer_types is not None:
            slide = sliding_layers(self.layer_types, self.num_hidden_layers)
            return sliding(variant, window, slide)
        if window is None:
            return variant
        first = max(self.max_window_layers, 0)
        return sliding(variant, window, range(first, self.num_hidden_layers))


class Qwen3(Qwen2, kw_only=True):
    """Norms on the heads, biases only where asked for."""

    head_dim: int | None = 128
    attention_bias: bool = False

    def variant(self) -> Variant:
        """See `Family`."""
        return self.slid(
            Variant(
                has_input_biases=self.attention_bias,
                has_output_bias=self.attention_bias,
                has_query_key_norms=True,
            )
        )
