"""The `Clock` port: the machine's own clocks, and one that only moves when told to.

Knows where time comes from; must not know what it is used for.
"""

import time


class SystemClock:
    """The machine's wall clock and the monotonic clock that asyncio's own loop uses."""

    def now(self) -> float:
        """Wall time in Unix seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()


class ManualClock:
    """A clock for tests. Starts at `now` (Unix seconds), stands still between calls."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now
        self._monotonic = 0.0

    def __repr__(self) -> str:
        return f"<ManualClock now={self._now} monotonic={self._monotonic}>"

    def now(self) -> float:
        """Wall time in Unix seconds."""
        return self._now

    def monotonic(self) -> float:
        """Seconds since this clock was made, jumps of the wall clock not counted."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass on both time lines."""
        if seconds < 0:
            raise ValueError("time passes forwards; use jump() to set the wall clock back")
        self._now += seconds
        self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock forwards or back, as an administrator does."""
        self._now += seconds
