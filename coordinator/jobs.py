"""What runs beside a loop that carries out a run's wishes: tasks by name, and what they report.

Knows tasks and queues; must not know runs, peers or what is reported.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from protocols.errors import DslmError, PeerLost, Refused

MessageT = TypeVar("MessageT")
ReportT = TypeVar("ReportT")


class Jobs:
    """Tasks of `tasks`, so they have a parent that outlives the requests; by name."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks
        self._running: dict[object, asyncio.Task[None]] = {}

    def spawn(self, name: object, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` beside the loop, unless it goes on already and was not cancelled."""
        before = self._running.get(name)
        if before is not None and not before.done() and not before.cancelling():
            work.close()
            return
        task = self._running[name] = self._tasks.create_task(work)

        def forget(done: "asyncio.Task[None]") -> None:
            if self._running.get(name) is done:  # else it was begun again meanwhile
                del self._running[name]

        task.add_done_callback(forget)

    def cancel(self, name: object) -> None:
        """Cancel the task of that name, if it still runs."""
        if name in self._running:
            self._running[name].cancel()

    def close(self) -> None:
        """Cancel all."""
        for task in list(self._running.values()):
            task.cancel()


async def relay(
    messages: AsyncGenerator[MessageT, None],
    inbox: "asyncio.Queue[ReportT]",
    arrived: Callable[[MessageT], ReportT],
    failed: Callable[[DslmError], ReportT],
) -> None:
    """Everything that comes goes into the inbox, how it ended last; a task's top."""
    error: DslmError = PeerLost("the answer stopped before its end")
    try:
        async with aclosing(messages):
            async for message in messages:
                await inbox.put(arrived(message))
    except DslmError as failure:
        error = failure
    except Exception as defect:  # noqa: BLE001 - top of a task: a defect fails this part only
        error = Refused(f"asking failed inside: {type(defect).__name__}")
        error.__cause__ = defect
    await inbox.put(failed(error))
