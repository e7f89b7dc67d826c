"""A bf16 product in which the result of a row does not depend on how many rows there are.

Knows the habits of matrix libraries; must not know how the matrix is held.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

TILE = 64
"""Rows at a time. oneDNN sums in another order for 20, 60 or 300 rows, and differently again with
AMX; for always the same number of rows it always takes the same."""


def in_tiles(rows: Tensor) -> Tensor:
    """`rows` [tokens, in] as `[tiles, TILE, in]`, the last filled up with zeros."""
    missing = -len(rows) % TILE
    return pad(rows, (0, 0, 0, missing)).view(-1, TILE, rows.shape[1])


def product(tiles: Tensor, weight: Tensor) -> Tensor:
    """`tiles` from `in_tiles` times `weight` [in, out]: `[tiles * TILE, out]`."""
    result = tiles.new_empty(tiles.shape[0], TILE, weight.shape[1])
    for tile, into in zip(tiles, result, strict=True):
        torch.mm(tile, weight, out=into)
    return result.flatten(0, 1)
