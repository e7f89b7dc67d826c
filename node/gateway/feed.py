"""Reads an answer's events in a task of its own, so that one can wait for the next with a timeout.

Knows tasks and cancellation; must not know HTTP. (A timeout around the generator itself would
cancel what it is doing.)
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from coordinator.answer import AnswerEvent
from node.gateway.errors import SourceFailed
from protocols.errors import DslmError

EVENTS_WAITING_MAX = 64
"""A source that is further ahead of its client waits."""


class Feed:
    """The events of one answer in order; made by `open_feed`."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[AnswerEvent | DslmError] = asyncio.Queue(EVENTS_WAITING_MAX)

    async def pump(self, events: AsyncGenerator[AnswerEvent, None]) -> None:
        """Move all events over; the generator is closed at the end, however it comes."""
        try:
            async with aclosing(events):
                async for event in events:
                    await self._queue.put(event)
        except DslmError as error:
            await self._queue.put(error)
        except Exception as error:  # noqa: BLE001  (a task's top: the reader gets it)
            failed = SourceFailed("the source of an answer broke")
            failed.__cause__ = error
            await self._queue.put(failed)
        else:
            await self._queue.put(SourceFailed("the answer ended before it was complete"))

    async def next_event(self, patience: float) -> AnswerEvent | None:
        """The next event, or None after `patience` seconds without one.

        What the source raised is raised here, after the events that came before it.
        """
        timeout = asyncio.timeout(patience)
        try:
            async with timeout:
                item = await self._queue.get()
        except TimeoutError:
            if not timeout.expired():
                raise
            return None
        if isinstance(item, DslmError):
            raise item
        return item


@asynccontextmanager
async def open_feed(events: AsyncGenerator[AnswerEvent, None]) -> AsyncIterator[Feed]:
    """A feed of `events`; on leaving, the generator has been closed, even in the middle."""
    feed = Feed()
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(feed.pump(events))
            try:
                yield feed
            finally:
                task.cancel()
    except BaseExceptionGroup as group_error:
        # The body's error is alone in there, since `pump` raises nothing: let it out as it was.
        error = group_error.exceptions[0]
        raise error from error.__cause__
