"""Virtual time: an asyncio event loop whose clock jumps to the next timer instead of waiting.

Knows asyncio's selector loop; must not know what runs on it. `asyncio.sleep` and `asyncio.timeout`
work unchanged, so hours of a network's life pass in seconds, in the same order in every run.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")

_SELF_PIPE = 1
"""The loop's own wake-up socket is registered with its selector from the beginning."""


class DeadlockError(RuntimeError):
    """Everything waits, no timer is set and no file descriptor is watched: nothing can happen."""


class _JumpingSelector(selectors.DefaultSelector):
    """Answers at once what is ready; when nothing is, time jumps as far as it would have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.limit = float("inf")

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            if len(self.get_map()) <= _SELF_PIPE:
                raise DeadlockError("all tasks wait for each other: no timer is set, no I/O is due")
            return super().select(None)
        if self.now + timeout > self.limit:
            limit, self.limit = self.limit, float("inf")
            raise TimeoutError(f"not done after {limit:g} seconds of virtual time")
        self.now += max(0.0, timeout)
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop that starts at second 0 and never waits. Worker threads do not fit into it."""

    def __init__(self, limit_seconds: float = float("inf")) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)
        self._jumping.limit = limit_seconds

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._jumping.now


class LoopClock:
    """The `Clock` port on the running loop's time line: virtual on a virtual loop, else real.

    `epoch` is the wall time (Unix seconds) at the loop's second 0; two clocks with different
    epochs on one loop are two machines whose clocks disagree.
    """

    def __init__(self, epoch: float = 1_700_000_000.0) -> None:
        self._epoch = epoch

    def now(self) -> float:
        """Wall time in Unix seconds."""
        return self._epoch + self.monotonic()

    def monotonic(self) -> float:
        """The running loop's time in seconds."""
        return asyncio.get_running_loop().time()


def run_virtual(main: Coroutine[Any, Any, ResultT], limit_seconds: float = 3_600.0) -> ResultT:
    """Run `main` to its end on a fresh virtual loop and return its result.

    `TimeoutError` when it takes more than `limit_seconds` of virtual time, `DeadlockError` when
    nothing could ever happen again; then `main` was cancelled.
    """
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(limit_seconds)) as runner:
        return runner.run(main)
