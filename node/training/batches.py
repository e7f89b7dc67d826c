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

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All of it, in the order of the fields."""
        return self.ids, self.where, self.targets, self.weights, self.row, self.begins

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, length and answer tokens."""
        return len(self.ids), self.ids.shape[1], len(self.where)

    def to(self, device: torch.device) -> "Batch":
        """On another device."""
        return Batch(*(tensor.to(device) for tensor in self.tensors))

    def copy_from(self, other: "Batch") -> None:
        """Take the numbers of one of the same shape."""
        for own, new in zip(self.tensors, other.tensors, strict=True):
            own.copy_(new)


def make_batch(
    rows: Sequence[TokenRow],
    weighting: Weighting,
    tokens_per_row: float,
    *,
    few_shapes: bool = False,
) -> Batch:
    """One batch. Weights add up to about 1: `tokens_per_row` is the mean over the whole set, so
    that each token of it counts the same in whichever batch it comes.

    With `few_shapes` it is padded to one of a few lengths and numbers of answer tokens; what is
    added weighs nothing.
    """
    length = max(len(row.ids) for row in rows)
    if few_shapes:
        length = _rounded_up(length, 32 if length <= 256 else 64)
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
        own = np.ones(row.answer_tokens, np.float32) if row.weights is None else row.weights
        weights.append(own * np.float32(each / len(rows)))
    counts = [row.answer_tokens for row in rows]
    if few_shapes:
        added = _rounded_up(sum(counts), max(1, ids.size // 4)) - sum(counts)
        where.append(np.zeros(added, dtype=np.int64))
        targets.append(np.zeros(added, dtype=np.int64))
        weights.append(np.zeros(added, dtype=np.float32))
        counts[-1] += added
    return Batch(
        ids=torch.from_numpy(ids),
        where=torch.from_numpy(np.concatenate(where)),
        targets=torch.from_numpy(np.concatenate(targets)),
        weights=torch.from_numpy(np.concatenate(weights)),
        row=torch.from_numpy(np.repeat(np.arange(len(rows)), counts)),
        begins=torch.tensor([row.header for row in rows]),
    )


def _weight(row: TokenRow) -> float:
    return row.answer_tokens if row.weights is None else float(row.weights.sum())


def _rounded_up(number: int, step: int) -> int:
    return -(-number // step) * step


def training_batches(
    rows: Sequence[TokenRow],
    size: int,
    weighting: Weighting,
    rng: np.random.Generator,
    *,
    few_shapes: bool = False,
) -> Iterator[Batch]:
    """All rows once, `size` at a time, in an order that `rng` decides; a short rest is left out."""
    order = rng.permutation(len(rows))
    mean = float(np.mean([_weight(row) for row in rows]))
    span = size * _SORTED_TOGETHER
    chosen: list[NDArray[np.int64]] = []
    for start in range(0, len(order), span):
        part = order[start : start + span]
        part = part[np.argsort([len(rows[i].ids) for i in part], kind="stable")]
        chosen += [part[at : at + size] for at in range(0, len(part), size)]
    whole = [one for one in chosen if len(one) == size] or chosen
    for index in rng.permutation(len(whole)):
        chosen_rows = [rows[i] for i in whole[index]]
        yield make_batch(chosen_rows, weighting, mean, few_shapes=few_shapes)


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
