"""A token bucket: so many things a second, some more at once.

Knows numbers and a time line given to it; must not know what is counted.
"""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Pace:
    """Lets `per_second` things pass on average and `burst` at once. Times are monotonic seconds."""

    per_second: float
    burst: float
    _left: float = field(init=False)
    _since: float = field(init=False, default=float("-inf"))

    def __post_init__(self) -> None:
        """Begin with a full bucket."""
        self._left = self.burst

    def take(self, now: float, count: float = 1.0) -> bool:
        """Whether `count` more may pass now; if so, they are counted."""
        passed = max(0.0, now - self._since)
        self._left = min(self.burst, self._left + passed * self.per_second)
        self._since = max(self._since, now)
        if self._left < count:
            return False
        self._left -= count
        return True
