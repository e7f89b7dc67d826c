"""Rows of tokens in batches: of like length together, padded at the end, in an order from a seed.

Knows rows and tensors; must not know models.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from node.training.examples import TokenRow

Weighting = Literal["token", "example"]
"""What counts alike: every answer token, or every example whatever its length."""

_SORTED_TOGETHER = 8
"""Batches whose rows are sorted by length together: less padding, and still mixed."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """`ids` [rows, length]. Flat position `where[i]` is to foretell `targets[i]`, of row `row[i]`,
    which counts `weights[i]`; an activated adapter begins at `begins` [rows].
    """

    ids: Tensor
    where: Tensor
    targets: Tensor
    weights: Tensor
    row: Tensor
    begins: Tensor

    def to(self, device: torch.device) -> "Batch":
        """On another device."""
        names = ("ids", "where", "targets", "weights", "row", "begins")
        return Batch(*(getattr(self, name).to(device, non_blocking=True) for name in names))


def make_batch(rows: Sequence[TokenRow], weighting: Weighting, tokens_per_row: float) -> Batch:
    """One batch. Weights add up to about 1: `tokens_per_row` is the mean over the whole set, so
    that each token of it counts the same in whichever batch it comes.
    """
    length = max(len(row.ids) for row in rows)
    ids = np.zeros((len(rows), length), dtype=np.int64)
    where: list[NDArray[np.int64]] = []
    targets: list[NDArray[np.int64]] = []
    weights: list[NDArray[np.float32]] = []
    for index, row in enumerate(rows):
        ids[index, : len(row.ids)] = row.ids
        start = index * length
        where.append(np.arange(start + row.answer - 1, start + len(row.ids) - 1))
        targets.append(row.ids[row.answer :].astype(np.int64))
        each = 1 / tokens_per_row if weighting == "token" else 1 / max(1, row.answer_tokens)
        weights.append(np.full(row.answer_tokens, each / len(rows), dtype=np.float32))
    counts = [row.answer_tokens for row in rows]
    return Batch(
        ids=torch.from_numpy(ids),
        where=torch.from_numpy(np.concatenate(where)),
        targets=torch.from_numpy(np.concatenate(targets)),
        weights=torch.from_numpy(np.concatenate(weights)),
        row=torch.from_numpy(np.repeat(np.arange(len(rows)), counts)),
        begins=torch.tensor([row.header for row in rows]),
    )


def training_batches(
    rows: Sequence[TokenRow], size: int, weighting: Weighting, rng: np.random.Generator
) -> Iterator[Batch]:
    """All rows once, `size` at a time, in an order that `rng` decides; a short rest is left out."""
    order = rng.permutation(len(rows))
    mean = float(np.mean([row.answer_tokens for row in rows]))
    span = size * _SORTED_TOGETHER
    chosen: list[NDArray[np.int64]] = []
    for start in range(0, len(order), span):
        part = order[start : start + span]
        part = part[np.argsort([len(rows[i].ids) for i in part], kind="stable")]
        chosen += [part[at : at + size] for at in range(0, len(part), size)]
    whole = [one for one in chosen if len(one) == size] or chosen
    for index in rng.permutation(len(whole)):
        yield make_batch([rows[i] for i in whole[index]], weighting, mean)


def scoring_batches(
    rows: Sequence[TokenRow], tokens: int
) -> Iterator[tuple[NDArray[np.int64], Batch]]:
    """All rows once, of like length together, up to `tokens` at a time, with their indices."""
    order = np.argsort([-len(row.ids) for row in rows], kind="stable")
    at = 0
    while at < len(order):
        length = len(rows[order[at]].ids)
        part = order[at : at + max(1, tokens // length)]
        yield part, make_batch([rows[i] for i in part], "token", 1.0)
        at += len(part)
