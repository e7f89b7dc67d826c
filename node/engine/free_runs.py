"""Which numbers of a range are free, kept as runs so that neighbours can be found.

Knows numbers only; must not know what they stand for.
"""

from bisect import bisect_right


class FreeRuns:
    """The free numbers of 0 to `total` - 1. Taking and freeing cost the logarithm of the runs."""

    def __init__(self, total: int) -> None:
        self._starts = [0] if total else []
        self._stops = [total] if total else []
        self._count = total

    def __repr__(self) -> str:
        return f"<FreeRuns {self._count} in {len(self._starts)} runs>"

    def __len__(self) -> int:
        return self._count

    def runs(self) -> list[range]:
        """All of them, in order; no two touch."""
        return [range(*bounds) for bounds in zip(self._starts, self._stops, strict=True)]

    def largest(self) -> range:
        """The longest run, the first of several; `ValueError` if nothing is free."""
        sizes = [stop - start for start, stop in zip(self._starts, self._stops, strict=True)]
        index = sizes.index(max(sizes))
        return range(self._starts[index], self._stops[index])

    def take(self, number: int) -> bool:
        """Make `number` not free; False if it is not."""
        index = bisect_right(self._starts, number) - 1
        if index < 0 or number >= self._stops[index]:
            return False
        start, stop = self._starts[index], self._stops[index]
        rest = [(a, b) for a, b in ((start, number), (number + 1, stop)) if a < b]
        self._starts[index : index + 1] = [a for a, _ in rest]
        self._stops[index : index + 1] = [b for _, b in rest]
        self._count -= 1
        return True

    def free(self, number: int) -> None:
        """Make `number` free and join it to its neighbours; `ValueError` if it is already."""
        index = bisect_right(self._starts, number)
        if index and number < self._stops[index - 1]:
            raise ValueError(f"{number} is free already")
        first, last, start, stop = index, index, number, number + 1
        if index and self._stops[index - 1] == number:
            first, start = index - 1, self._starts[index - 1]
        if index < len(self._starts) and self._starts[index] == stop:
            last, stop = index + 1, self._stops[index]
        self._starts[first:last] = [start]
        self._stops[first:last] = [stop]
        self._count += 1
