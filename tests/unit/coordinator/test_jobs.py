"""Tasks by name: which go on, which are begun again, and how they end."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from coordinator.jobs import Jobs, relay
from protocols.errors import DslmError, NoCapacity, PeerLost, Refused


class Work:
    """Counts how often it was begun, and waits."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled = 0
        self.goes_on = asyncio.Event()

    async def do(self) -> None:
        self.begun += 1
        try:
            await self.goes_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_goes_on_is_not_begun_twice_and_what_was_cancelled_or_has_ended_is() -> None:
    work = Work()
    async with asyncio.TaskGroup() as tasks:
        jobs = Jobs(tasks)
        jobs.spawn("a", work.do())
        await settle()
        jobs.spawn("a", work.do())
        await settle()
        assert work.begun == 1
        jobs.cancel("a")
        jobs.spawn("a", work.do())
        await settle()
        assert (work.begun, work.cancelled) == (2, 1)
        work.goes_on.set()
        await settle()
        jobs.spawn("a", work.do())
        await settle()
        assert work.begun == 3


async def test_closing_cancels_all() -> None:
    work = Work()
    async with asyncio.TaskGroup() as tasks:
        jobs = Jobs(tasks)
        jobs.spawn("a", work.do())
        jobs.spawn("b", work.do())
        await settle()
        jobs.close()
    assert work.cancelled == 2


async def said(*messages: str, then: Exception | None = None) -> AsyncGenerator[str, None]:
    for message in messages:
        yield message
    if then is not None:
        raise then


@pytest.mark.parametrize(
    ("then", "expected"),
    [(None, PeerLost), (NoCapacity("full"), NoCapacity), (ZeroDivisionError("x"), Refused)],
)
async def test_what_is_said_comes_first_and_how_it_ended_last(
    then: Exception | None, expected: type[DslmError]
) -> None:
    inbox: asyncio.Queue[str | DslmError] = asyncio.Queue()
    await relay(said("a", "b", then=then), inbox, str.upper, lambda error: error)
    reports = [inbox.get_nowait() for _ in range(inbox.qsize())]
    assert reports[:2] == ["A", "B"]
    assert isinstance(reports[2], expected)
    assert len(reports) == 3
