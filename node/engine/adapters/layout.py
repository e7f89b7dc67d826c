"""How an adapter lies in memory: per product of a layer one stacked A, and B in pieces.

Knows which parts are multiplied as one, and what can be computed once for several of them; must
not know batches or other adapters.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256

import torch
from torch import Tensor

from node.engine.adapters.weights import PRODUCTS, Adapter, LowRank, PartName, ProductName
from node.engine.config import LlamaConfig

Place = tuple[int, ProductName]
"""A layer and one of its products."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Columns `start` to `stop` of a product, from `rank_start` to `rank_stop` of its stacked A."""

    start: int
    stop: int
    rank_start: int
    rank_stop: int


@dataclass(frozen=True, slots=True)
class ProductLayout:
    """One product's `pieces` and the width of its input. Adapters laid out alike stack."""

    place: Place
    into: int
    pieces: tuple[Piece, ...]

    @property
    def rank(self) -> int:
        """Rows of the stacked A."""
        return self.pieces[-1].rank_stop


@dataclass(frozen=True, slots=True, eq=False)
class ProductPair:
    """`a` [rank, in] fp32, and B of each piece `[columns, ranks of the piece]` fp32, scaled."""

    layout: ProductLayout
    a: Tensor
    bs: tuple[Tensor, ...]


def lay_out(adapter: Adapter, config: LlamaConfig) -> list[ProductPair]:
    """All products that `adapter` changes, by layer."""
    shapes = config.tensor_shapes()
    return [
        _product((layer, product), found)
        for layer in range(config.layers)
        for product, parts in PRODUCTS.items()
        if (found := list(_columns(adapter, shapes, layer, parts)))
    ]


def digest_of_a(pairs: list[ProductPair]) -> bytes:
    """Names the stacked A's of an adapter by their content: whoever has the same shares them."""
    digest = sha256()
    for pair in pairs:
        digest.update(pair.a.contiguous().numpy().tobytes())
    return digest.digest()


@dataclass(frozen=True, slots=True, eq=False)
class _Columns:
    start: int
    stop: int
    pair: LowRank


def _columns(
    adapter: Adapter, shapes: Mapping[str, tuple[int, ...]], layer: int, parts: tuple[PartName, ...]
) -> Iterator[_Columns]:
    """The changed ones of `parts`, and where in the stacked product their columns are."""
    start = 0
    for part in parts:
        stop = start + shapes[f"layers.{layer}.{part}"][0]
        pair = adapter.parts.get((layer, part))
        if pair is not None:
            yield _Columns(start, stop, pair)
        start = stop


def _product(place: Place, found: list[_Columns]) -> ProductPair:
    """Neighbours with one and the same A become one piece: x @ A is computed once for them."""
    runs: list[list[_Columns]] = []
    for columns in found:
        if runs and _continues(runs[-1][-1], columns):
            runs[-1].append(columns)
        else:
            runs.append([columns])
    pieces: list[Piece] = []
    rank = 0
    for run in runs:
        width = run[0].pair.rank
        pieces.append(Piece(run[0].start, run[-1].stop, rank, rank + width))
        rank += width
    first = [run[0].pair.a.float() for run in runs]
    return ProductPair(
        layout=ProductLayout(place, first[0].shape[1], tuple(pieces)),
        a=torch.cat(first),
        bs=tuple(torch.cat([one.pair.scaled_b() for one in run]) for run in runs),
    )


def _continues(before: _Columns, columns: _Columns) -> bool:
    return before.stop == columns.start and torch.equal(before.pair.a, columns.pair.a)
