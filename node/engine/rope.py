"""Rotary position embedding: tables of cosines and sines, and the rotation itself.

Knows positions and frequencies (arXiv 2104.09864, in the half-split layout of Hugging Face
checkpoints); must not know attention or caches.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from node.engine.config import LlamaConfig, RopeScaling


def inverse_frequencies(config: LlamaConfig) -> Tensor:
    """`[head_dimension / 2]`, fp32: radians per position of each pair, after scaling."""
    exponents = torch.arange(0, config.head_dimension, 2, dtype=torch.float32)
    plain = 1.0 / (config.rope_theta ** (exponents / config.head_dimension))
    scaling = config.rope_scaling
    if scaling is None:
        return plain
    match scaling.kind:
        case "linear":
            return plain / scaling.factor
        case "table":
            return plain / torch.tensor(scaling.divisors, dtype=torch.float32)
        case "llama3":
            return _llama3(plain, scaling)
        case "yarn":
            return _yarn(plain, scaling, config)


def _llama3(plain: Tensor, scaling: RopeScaling) -> Tensor:
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    wavelength = 2 * math.pi / plain
    stretched = torch.where(
        wavelength > scaling.original_context_length / low, plain / scaling.factor, plain
    )
    blend = (scaling.original_context_length / wavelength - low) / (high - low)
    blended = (1 - blend) * plain / scaling.factor + blend * plain
    is_between = (wavelength >= scaling.original_context_length / high) & (
        wavelength <= scaling.original_context_length / low
    )
    return torch.where(is_between, blended, stretched)


def _yarn(plain: Tensor, scaling: RopeScaling, config: LlamaConfig) -> Tensor:
    low, high = _yarn_range(scaling, config)
    ramp = (torch.arange(len(plain), dtype=torch.float32) - low) / (high - low)
    kept = 1 - ramp.clamp(0, 1)
    return 1 / (scaling.factor / plain) * (1 - kept) + plain * kept


def _yarn_range(scaling: RopeScaling, config: LlamaConfig) -> tuple[float, float]:
    """The pairs between which the blend goes from all to nothing; never the same."""
    dimension = config.head_dimension

    def pair(turns: float) -> float:
        waves = math.log(scaling.original_context_length / (turns * 2 * math.pi))
        return dimension * waves / (2 * math.log(config.rope_theta))

    low = max(math.floor(pair(scaling.beta_fast)), 0)
    high = min(math.ceil(pair(scaling.beta_slow)), dimension - 1)
    return low, high + 0.001 if high == low else high


class RotaryTable:
    """Cosines and sines for positions 0 to `positions` - 1, made once."""

    def __init__(self, config: LlamaConfig, positions: int, dtype: torch.dtype) -> None:
        angles = torch.outer(
            torch.arange(positions, dtype=torch.float32), inverse_frequencies(config)
        )
        factor = 1.0 if config.rope_scaling is None else config.rope_scaling.attention_factor
        cosines, sines = angles.cos() * factor, angles.sin() * factor
        self._cosines = torch.cat((cosines, cosines), dim=-1).to(dtype)
        # The first half of a rotated vector subtracts the second: keep the sign in the table.
        self._sines = torch.cat((-sines, sines), dim=-1).to(dtype)

    def to(self, device: torch.device) -> "RotaryTable":
        """This table, after it has moved to `device`."""
        self._cosines, self._sines = self._cosines.to(device), self._sines.to(device)
        return self

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines for `positions` [tokens], each `[tokens, 1, dimension]`."""
        return self._cosines[positions].unsqueeze(1), self._sines[positions].unsqueeze(1)

    @property
    def positions(self) -> int:
        """For how many there are numbers."""
        return len(self._cosines)

    @property
    def size(self) -> int:
        """Bytes held."""
        return self._cosines.nbytes + self._sines.nbytes


def local_table(config: LlamaConfig, positions: int, dtype: torch.dtype) -> RotaryTable | None:
    """The table of the sliding layers, where they have one of their own."""
    theta = config.variant.local_rope_theta
    if theta is None:
        return None
    return RotaryTable(replace(config, rope_theta=theta, rope_scaling=None), positions, dtype)


def rotate(vectors: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """`vectors` [tokens, heads, dimension], each turned to its token's position."""
    half = vectors.shape[-1] // 2
    swapped = torch.cat((vectors[..., half:], vectors[..., :half]), dim=-1)
    return torch.addcmul(vectors * cosines, swapped, sines)
