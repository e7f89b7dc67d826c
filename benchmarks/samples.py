"""Figures out of repeated runs: medians, ratios of runs made side by side, percentiles.

Knows numbers; must not know what was measured.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence


def alternate(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each way gives in each round: all ways once, in turn, then again.

    Every other round goes backwards, so that a machine that gets slower or quicker favours nobody.
    """
    found: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            found[name].append(ways[name]())
    return found


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of ours over theirs, round by round."""
    return statistics.median(one / two for one, two in zip(ours, theirs, strict=True))


def spread(values: Sequence[float]) -> float:
    """The distance of the extremes over the median: how far one can believe it."""
    middle = statistics.median(values)
    return (max(values) - min(values)) / middle if middle else math.inf


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` that at least `share` of them do not exceed; `share` in (0, 1]."""
    if not values or not 0 < share <= 1:
        raise ValueError(f"no percentile {share} of {len(values)} values")
    return sorted(values)[math.ceil(share * len(values)) - 1]
