"""Waiting until something that other callbacks change has become true.

Knows futures of the running loop; must not know what is being waited for. Waiters wake in the
order in which they began to wait, so runs repeat.
"""

import asyncio
from collections.abc import Callable


class Signal:
    """Wakes everybody who waits whenever something may have changed."""

    def __init__(self) -> None:
        self._waiters: dict[asyncio.Future[None], None] = {}

    def fire(self) -> None:
        """Let all waiters look again."""
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait_until(self, is_true: Callable[[], bool]) -> None:
        """Return once `is_true()`; it is looked at now and after every `fire`."""
        while not is_true():
            waiter = asyncio.get_running_loop().create_future()
            self._waiters[waiter] = None
            try:
                await waiter
            finally:
                self._waiters.pop(waiter, None)
