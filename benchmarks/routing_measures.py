"""Figures of merit of a router, with intervals: shares, AUROC, calibration, paired differences.

Knows numbers; must not know prompts or cards. All resampling is seeded.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Rows = NDArray[np.intp]
RESAMPLES = 1_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and the middle 95 % of its bootstrap."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(values: Array, seed: int = 0) -> Interval:
    """Of the mean of `values`, one a prompt (a mean over runs, or a paired difference)."""
    rng = np.random.default_rng(seed)
    picks = rng.integers(len(values), size=(RESAMPLES, len(values)))
    return _interval(float(values.mean()), values[picks].mean(axis=1))


def auroc(positive: Array, negative: Array) -> float:
    """The chance that a positive scores above a negative, ties counting half."""
    every = np.concatenate([positive, negative])
    _, inverse, counts = np.unique(every, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    most = len(positive) * len(negative)
    return float((ranks[: len(positive)].sum() - len(positive) * (len(positive) + 1) / 2) / most)


def auroc_intervals(
    ours: Sequence[tuple[Array, Array]], theirs: Sequence[tuple[Array, Array]]
) -> tuple[Interval, Interval, Interval]:
    """Ours, theirs and the paired difference, each averaged over runs of the same prompts.

    A run is the scores of positives and of negatives; a resample takes the same prompts in all.
    """
    rng = np.random.default_rng(0)

    def mean(runs: Sequence[tuple[Array, Array]], at: Callable[[int], Rows]) -> float:
        pairs = [(positive[at(0)], negative[at(1)]) for positive, negative in runs]
        return float(np.mean([auroc(*pair) for pair in pairs]))

    every: list[Rows] = [np.arange(len(one), dtype=np.intp) for one in ours[0]]
    values = [mean(runs, lambda side: every[side]) for runs in (ours, theirs)]
    found = []
    for _ in range(RESAMPLES // 5):
        picks = [rng.integers(len(one), size=len(one)) for one in ours[0]]
        found.append([mean(runs, lambda side, p=picks: p[side]) for runs in (ours, theirs)])  # type: ignore[misc]
    one, two = np.array(found).T
    return (
        _interval(values[0], one),
        _interval(values[1], two),
        _interval(values[0] - values[1], one - two),
    )


def false_positives(positive: Array, negative: Array, kept: float = 0.95) -> float:
    """The share of negatives that pass where `kept` of the positives do."""
    return float((negative >= np.quantile(positive, 1 - kept)).mean())


def calibration_error(chance: Array, is_right: Array, bins: int = 10) -> float:
    """Expected calibration error: how far chances are from frequencies, in equal bins."""
    at = np.minimum((chance * bins).astype(int), bins - 1)
    gaps = [
        abs(chance[at == one].mean() - is_right[at == one].mean()) * (at == one).mean()
        for one in range(bins)
        if (at == one).any()
    ]
    return float(sum(gaps))


def top(scores: NDArray[np.floating], labels: NDArray[np.intp], count: int) -> Array:
    """1 for each row whose label is among its `count` best columns, else 0."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    found: Array = (best == labels[:, None]).any(axis=1).astype(np.float64)
    return found


def _interval(value: float, resampled: Array) -> Interval:
    low, high = np.quantile(resampled, (0.025, 0.975))
    return Interval(value, float(low), float(high))
