"""The answers in progress: each has its time, and all can be ended together when the node stops.

Knows asyncio's timeouts; must not know what an answer is.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from node.gateway.errors import Draining
from protocols.errors import DeadlineExceeded


class Running:
    """Counts and bounds the blocks that run inside `one`."""

    def __init__(self) -> None:
        self._timeouts: set[asyncio.Timeout] = set()
        self._drain_until: float | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._timeouts)

    @asynccontextmanager
    async def one(self, seconds: float) -> AsyncIterator[None]:
        """Run the block for at most `seconds`, then `DeadlineExceeded`; `Draining` at the end."""
        if self._drain_until is not None:
            raise Draining
        timeout = asyncio.timeout(seconds)
        try:
            async with timeout:
                self._enter(timeout)
                try:
                    yield
                finally:
                    self._leave(timeout)
        except TimeoutError as error:
            if not timeout.expired():
                raise
            if self._drain_until is not None:
                raise Draining from error
            raise DeadlineExceeded(f"No complete answer within {seconds:g} s.") from error

    async def drain(self, grace: float) -> None:
        """Take nothing new, wait up to `grace` seconds, then end what is left with `Draining`.

        Of several calls the first one's time counts, also if it was cancelled.
        """
        now = asyncio.get_running_loop().time
        if self._drain_until is None:
            self._drain_until = now() + grace
        try:
            async with asyncio.timeout_at(self._drain_until):
                await self._idle.wait()
        except TimeoutError:
            for timeout in self._timeouts:
                timeout.reschedule(now())
            await self._idle.wait()

    def _enter(self, timeout: asyncio.Timeout) -> None:
        self._timeouts.add(timeout)
        self._idle.clear()

    def _leave(self, timeout: asyncio.Timeout) -> None:
        self._timeouts.discard(timeout)
        if not self._timeouts:
            self._idle.set()
