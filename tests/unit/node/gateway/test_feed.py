"""A feed loses nothing, waits without harm, and closes its source however it ends."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from coordinator.answer import AnswerEvent, Delta
from node.gateway.errors import SourceFailed
from node.gateway.feed import EVENTS_WAITING_MAX, open_feed
from node.gateway.trial import BOB
from protocols.errors import PeerLost


def delta(position: int) -> Delta:
    return Delta(BOB, position, (position,), str(position))


class Source:
    """Events at a word of command; knows whether it was closed."""

    def __init__(self, error: Exception | None = None) -> None:
        self.gate = asyncio.Semaphore(0)
        self.made = 0
        self.is_closed = False
        self.error = error

    async def events(self, count: int) -> AsyncGenerator[AnswerEvent, None]:
        try:
            for position in range(count):
                await self.gate.acquire()
                self.made += 1
                yield delta(position)
            if self.error is not None:
                raise self.error
        finally:
            self.is_closed = True


async def test_an_impatient_reader_loses_nothing() -> None:
    source = Source()
    async with open_feed(source.events(2)) as feed:
        assert await feed.next_event(0.001) is None
        assert await feed.next_event(0.001) is None
        source.gate.release()
        assert await feed.next_event(5) == delta(0)
        assert await feed.next_event(0.001) is None
        source.gate.release()
        assert await feed.next_event(5) == delta(1)
        assert not source.is_closed or source.made == 2


async def test_errors_come_after_the_events_before_them() -> None:
    source = Source(PeerLost("gone"))
    source.gate.release()
    with pytest.raises(PeerLost, match="gone"):
        async with open_feed(source.events(1)) as feed:
            assert await feed.next_event(5) == delta(0)
            await feed.next_event(5)
    assert source.is_closed


async def test_a_broken_source_is_our_defect_and_keeps_its_cause() -> None:
    source = Source(ZeroDivisionError("oops"))
    with pytest.raises(SourceFailed) as caught:
        async with open_feed(source.events(0)) as feed:
            await feed.next_event(5)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_an_end_without_a_last_event_is_a_defect() -> None:
    with pytest.raises(SourceFailed, match="before it was complete"):
        async with open_feed(Source().events(0)) as feed:
            await feed.next_event(5)


async def test_leaving_closes_a_source_that_waits() -> None:
    source = Source()
    async with open_feed(source.events(1)) as feed:
        assert await feed.next_event(0.001) is None
        assert not source.is_closed
    assert source.is_closed


async def test_leaving_closes_a_source_that_is_ahead() -> None:
    source = Source()
    many = EVENTS_WAITING_MAX * 3
    for _ in range(many):
        source.gate.release()
    async with open_feed(source.events(many)) as feed:
        assert await feed.next_event(5) == delta(0)
        await asyncio.sleep(0)
        assert source.made <= EVENTS_WAITING_MAX + 2
    assert source.is_closed


async def test_the_bodys_own_error_comes_out_as_it_is() -> None:
    source = Source()
    with pytest.raises(KeyError, match="mine"):
        async with open_feed(source.events(1)) as feed:
            assert await feed.next_event(0.001) is None
            raise KeyError("mine")
    assert source.is_closed


async def test_cancelling_the_reader_closes_the_source() -> None:
    source = Source()
    is_reading = asyncio.Event()

    async def read() -> None:
        async with open_feed(source.events(1)) as feed:
            assert await feed.next_event(0.001) is None
            is_reading.set()
            await feed.next_event(60)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(read())
        await is_reading.wait()
        task.cancel()
    assert task.cancelled()
    assert source.is_closed
