"""How the work of a kernel is cut into tiles.

Knows sizes; the choices were measured on an H200 with SmolLM2-135M.
"""

from dataclasses import dataclass

import torch

from node.engine.config import LlamaConfig
from node.engine.cuda.layout import StepShape

_PROGRAMS = 132
"""About as many as the GPU has multiprocessors: attention is cut into parts until it has so many.
"""
_SPLITS_MAX = 16
_FEW_WIDTH = 2048


@dataclass(frozen=True, slots=True)
class Tiles:
    """`tokens` by `column_goal` results at a time, over `depth_goal` inputs at a time.

    Where two weights are read side by side, `pair_goal` results of each. With `is_few` a kernel
    takes all inputs of one token at once, without matrix units. Attention takes `rows` queries
    and `keys` keys.
    """

    tokens: int
    column_goal: int
    pair_goal: int
    depth_goal: int
    warps: int
    stages: int
    rows: int
    keys: int
    is_few: bool = False

    def columns(self, width: int) -> int:
        """The most columns up to the goal that divide `width`."""
        return dividing(self.column_goal, width)

    def pairs(self, width: int) -> int:
        """As `columns`, of two weights."""
        return dividing(self.pair_goal, width)

    def depth(self, width: int) -> int:
        """How many of `width` inputs are read at a time."""
        return next_power(width) if self.is_few else min(self.depth_goal, next_power(width))


def tiles_for(tokens: int, config: LlamaConfig, dtype: torch.dtype) -> Tiles:
    """For a step of so many tokens."""
    rows = 16 if tokens == 1 else 64
    widest = max(config.hidden_size, config.intermediate_size, config.heads * config.head_dimension)
    wide = dtype is torch.float32
    keys = (32 if config.head_dimension <= 64 else 16) if wide else 64
    if tokens == 1 and next_power(widest) <= _FEW_WIDTH:
        return Tiles(1, 16, 8, 0, 4, 1, rows, keys, is_few=True)
    if wide:
        return Tiles(min(32, max(16, next_power(tokens))), 16, 16, 32, 4, 2, rows, keys)
    if config.head_dimension > 128:
        keys = 32
    if tokens <= 64:
        return Tiles(max(16, next_power(tokens)), 16, 16, 256, 4, 3, rows, keys)
    if tokens <= 256:
        return Tiles(64, 32, 32, 64, 4, 4, rows, keys)
    return Tiles(128, 64, 32, 64, 8, 3, rows, keys)


def splits_for(shape: StepShape, kv_heads: int) -> int:
    """Into how many parts what a sequence sees is cut: enough to keep the GPU busy."""
    if shape.span > 1:
        return 1
    fitting = _PROGRAMS // (shape.blocks * kv_heads)
    return min(_SPLITS_MAX, previous_power(fitting)) if fitting > 1 else 1


def next_power(number: int) -> int:
    """The least power of two that is not less."""
    return 1 << (number - 1).bit_length()


def previous_power(number: int) -> int:
    """The largest power of two that is not more."""
    return 1 << (number.bit_length() - 1)


def dividing(most: int, width: int) -> int:
    """The largest power of two up to `most` that divides `width`."""
    return min(most, width & -width)
