"""What a step costs by its number of rows, learned from steps that were run.

Knows rows and seconds. Nothing is assumed about the machine: some products become dearer by the
row, some by the cache line, and some jump where another kernel takes over.
"""

from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass, field

_SAMPLES = 5
_STALE_STEPS = 64
"""A figure is forgotten after so many steps for each of its samples: what was dear once, because
the machine was busy or a kernel ran for the first time, is tried again, rarely."""
_LEAST = 1e-9
"""Seconds; clocks have steps."""
_FIRST_SLOPE = 0.04
"""What one more row is taken to cost, of the smallest step, before anything else is known."""


@dataclass(slots=True)
class _Figure:
    samples: deque[float] = field(default_factory=lambda: deque(maxlen=_SAMPLES))
    step: int = 0

    @property
    def seconds(self) -> float:
        """The lower median: of two samples the smaller one, since disturbances only add."""
        return sorted(self.samples)[(len(self.samples) - 1) // 2]


class StepCosts:
    """Seconds by rows."""

    def __init__(self) -> None:
        self._figures: dict[int, _Figure] = {}
        self._known: list[int] = []
        self._steps = 0

    def learn(self, rows: int, seconds: float) -> None:
        """A step of `rows` rows took `seconds`."""
        self._steps += 1
        bucket = bucket_of(rows)
        if bucket not in self._figures:
            self._figures[bucket] = _Figure()
            insort(self._known, bucket)
        figure = self._figures[bucket]
        figure.samples.append(max(seconds, _LEAST))
        figure.step = self._steps
        if self._steps % _STALE_STEPS == 0:
            self._forget()

    def seconds(self, rows: int) -> float | None:
        """What a step would take, by the nearest that were run; None before the first."""
        if not self._known:
            return None
        bucket = bucket_of(rows)
        index = bisect_left(self._known, bucket)
        if index == len(self._known):
            return self._beyond(bucket)
        above = self._known[index]
        if above == bucket or index == 0:
            # Smaller than any that was run: no cheaper than the smallest, as far as we know.
            return self._figures[above].seconds
        below = self._known[index - 1]
        share = (bucket - below) / (above - below)
        low, high = self._figures[below].seconds, self._figures[above].seconds
        return low + (high - low) * share

    def _beyond(self, bucket: int) -> float:
        first, last = self._figures[self._known[0]].seconds, self._known[-1]
        most = self._figures[last].seconds
        slope = first * _FIRST_SLOPE
        if len(self._known) > 1:
            slope = max(0.0, (most - first) / (last - self._known[0]))
        return most + slope * (bucket - last)

    def _forget(self) -> None:
        for bucket, figure in list(self._figures.items()):
            if self._steps - figure.step >= _STALE_STEPS * len(figure.samples):
                del self._figures[bucket]
                self._known.remove(bucket)


def bucket_of(rows: int) -> int:
    """Rows that are taken to cost the same: exact to 20, then by quarters of a power of 2."""
    if rows <= 20:
        return rows
    width = 1 << (rows.bit_length() - 3)
    return -(-rows // width) * width
