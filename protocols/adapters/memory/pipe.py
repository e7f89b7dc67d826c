"""One direction of a stream: bytes that are on the way, then wait to be read, within a window.

Knows delay, order and backpressure; must not know peers: whether anything gets through at the
moment, and how long it takes, is asked of a `Link`.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol

from protocols.adapters.memory.signal import Signal
from protocols.errors import DslmError


class Link(Protocol):
    """The way from one peer to another."""

    def latency(self) -> float:
        """Seconds that the next delivery takes."""
        ...

    def is_flowing(self) -> bool:
        """Whether deliveries get through now; if not, they wait and keep their order."""
        ...


class Mark(Enum):
    """What can be on the way besides bytes."""

    END = auto()
    RESET = auto()


class Pipe:
    """Bytes go in at one peer (the writer) and come out at the other (the reader).

    Either end can fail alone: the other learns of it when the news has travelled.
    """

    def __init__(self, link: Link, window: int, on_reset: Callable[[], None]) -> None:
        self._link = link
        self._window = window
        self._on_reset = on_reset
        self._travelling: deque[bytes | Mark] = deque()
        self._due = 0
        self._held = 0
        self._last_arrival = 0.0
        self._unread = bytearray()
        self._has_ended = False
        self._writer_error: DslmError | None = None
        self._reader_error: DslmError | None = None
        self._changed = Signal()

    async def push(self, data: bytes) -> None:
        """Put `data` on the way, in pieces when the window is nearly full."""
        rest = memoryview(data)
        while rest:
            await self._changed.wait_until(self._can_push)
            if self._writer_error is not None:
                raise _fresh(self._writer_error)
            piece = bytes(rest[: self._room()])
            rest = rest[len(piece) :]
            self._held += len(piece)
            self._dispatch(piece)

    async def pull(self, max_bytes: int) -> bytes:
        """The next bytes; `b""` at the end."""
        await self._changed.wait_until(self._can_pull)
        if self._reader_error is not None:
            raise _fresh(self._reader_error)
        data = bytes(self._unread[:max_bytes])
        del self._unread[: len(data)]
        self._free(len(data))
        return data

    def mark(self, mark: Mark) -> None:
        """Send the end or a reset after all that is on the way."""
        self._dispatch(mark)

    def fail_writer(self, error: DslmError) -> None:
        """From now on writing raises `error`, unless an earlier one stands."""
        self._writer_error = self._writer_error or error
        self._changed.fire()

    def fail_reader(self, error: DslmError) -> None:
        """From now on reading raises `error`; what comes is dropped and holds nobody up."""
        self._reader_error = self._reader_error or error
        unread = len(self._unread)
        self._unread.clear()
        self._free(unread)

    def release(self) -> None:
        """Deliver what is due, if the link lets it through."""
        while self._due and self._link.is_flowing():
            self._due -= 1
            self._deliver(self._travelling.popleft())

    def _dispatch(self, item: bytes | Mark) -> None:
        loop = asyncio.get_running_loop()
        self._last_arrival = max(self._last_arrival, loop.time() + self._link.latency())
        self._travelling.append(item)
        loop.call_at(self._last_arrival, self._arrive)

    def _arrive(self) -> None:
        self._due += 1
        self.release()

    def _deliver(self, item: bytes | Mark) -> None:
        if item is Mark.RESET:
            self._on_reset()
        elif item is Mark.END:
            self._has_ended = True
        elif isinstance(item, bytes):
            if self._reader_error is not None:
                self._held -= len(item)
            else:
                self._unread += item
        self._changed.fire()

    def _can_push(self) -> bool:
        return self._writer_error is not None or self._room() > 0

    def _can_pull(self) -> bool:
        return self._reader_error is not None or bool(self._unread) or self._has_ended

    def _room(self) -> int:
        return self._window - self._held

    def _free(self, count: int) -> None:
        self._held -= count
        self._changed.fire()


def _fresh(error: DslmError) -> DslmError:
    """A new exception of the same kind, so that tracebacks of several calls do not pile up."""
    return type(error)(*error.args)
