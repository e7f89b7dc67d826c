"""Rotary position embedding: tables of cosines and sines, and the rotation itself.

Knows positions and frequencies (arXiv 2104.09864, in the half-split layout of Hugging Face
checkpoints); must not know attention or caches.
"""

import math

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


class RotaryTable:
    """Cosines and sines for positions 0 to `positions` - 1, made once."""

    def __init__(self, config: LlamaConfig, positions: int, dtype: torch.dtype) -> None:
        angles = torch.outer(
            torch.arange(positions, dtype=torch.float32), inverse_frequencies(config)
        )
        self._cosines = torch.cat((angles.cos(), angles.cos()), dim=-1).to(dtype)
        # The first half of a rotated vector subtracts the second: keep the sign in the table.
        self._sines = torch.cat((-angles.sin(), angles.sin()), dim=-1).to(dtype)

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines for `positions` [tokens], each `[tokens, 1, dimension]`."""
        return self._cosines[positions].unsqueeze(1), self._sines[positions].unsqueeze(1)

    @property
    def size(self) -> int:
        """Bytes held."""
        return self._cosines.nbytes + self._sines.nbytes


def rotate(vectors: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """`vectors` [tokens, heads, dimension], each turned to its token's position."""
    half = vectors.shape[-1] // 2
    swapped = torch.cat((vectors[..., half:], vectors[..., :half]), dim=-1)
    return torch.addcmul(vectors * cosines, swapped, sines)
