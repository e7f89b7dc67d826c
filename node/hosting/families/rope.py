"""Settings of the rotary positions in `config.json`, old spelling and new.

Knows transformers' names and defaults; must not know which family asks.
"""

import math

from msgspec import Struct

from node.engine.config import RopeScaling


class Rope(Struct, forbid_unknown_fields=True):
    """`rope_scaling`, or `rope_parameters`, which has the base as well."""

    rope_type: str = ""
    type: str = ""
    rope_theta: float | None = None
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int | None = None
    beta_fast: float | None = None
    beta_slow: float | None = None
    attention_factor: float | None = None

    def scaling(self, length: int) -> RopeScaling | None:
        """For a model of up to `length` tokens. `ValueError` for a kind that we do not compute."""
        kind = self.rope_type or self.type or "default"
        original = self.original_max_position_embeddings or length
        match kind:
            case "default":
                return None
            case "linear":
                return RopeScaling("linear", factor=self.factor)
            case "llama3":
                return RopeScaling(
                    "llama3",
                    factor=self.factor,
                    low_frequency_factor=self.low_freq_factor,
                    high_frequency_factor=self.high_freq_factor,
                    original_context_length=original,
                )
            case "yarn":
                return yarn(self.factor, original, self)
            case _:
                raise ValueError(
                    f"rope scaling {kind[:80]!r} is not supported; "
                    "default, linear, llama3 and yarn are"
                )

    def reach(self, length: int) -> int:
        """How many tokens the scaling was made for, where that is more than `length`.

        Models that are published with YaRN to be switched on keep their unscaled length beside it.
        """
        if (self.rope_type or self.type) != "yarn":
            return length
        return max(length, int(self.factor * (self.original_max_position_embeddings or length)))


class RopeByKind(Struct, forbid_unknown_fields=True):
    """Of the layers that see everything, and of those that see a window."""

    full_attention: Rope | None = None
    sliding_attention: Rope | None = None


def yarn(factor: float, original: int, settings: Rope) -> RopeScaling:
    """YaRN with the paper's defaults (arXiv 2309.00071, section 3.4)."""
    attention_factor = settings.attention_factor
    if attention_factor is None:
        attention_factor = 0.1 * math.log(factor) + 1 if factor > 1 else 1.0
    return RopeScaling(
        "yarn",
        factor=factor,
        original_context_length=original,
        beta_fast=settings.beta_fast or 32.0,
        beta_slow=settings.beta_slow or 1.0,
        attention_factor=attention_factor,
    )
