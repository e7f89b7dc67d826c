"""Answers have their time, and end together when the node stops."""

import asyncio

import pytest

from node.gateway.errors import Draining
from node.gateway.running import Running
from protocols.errors import DeadlineExceeded


async def test_an_answer_beyond_its_budget_ends() -> None:
    running = Running()
    with pytest.raises(DeadlineExceeded, match=r"0\.01 s"):
        async with running.one(0.01):
            await asyncio.Event().wait()
    assert len(running) == 0


async def test_somebody_elses_timeout_is_not_ours() -> None:
    running = Running()
    with pytest.raises(TimeoutError) as caught:
        async with running.one(60):
            raise TimeoutError("from inside")
    assert not isinstance(caught.value, DeadlineExceeded)


async def test_an_idle_drain_is_immediate_and_final() -> None:
    running = Running()
    await running.drain(60)
    with pytest.raises(Draining):
        async with running.one(1):
            pytest.fail("nothing new after a drain")


async def test_a_drain_waits_for_what_ends_in_time() -> None:
    running = Running()
    may_end, is_in = asyncio.Event(), asyncio.Event()

    async def answer() -> str:
        async with running.one(60):
            is_in.set()
            await may_end.wait()
        return "whole"

    async with asyncio.TaskGroup() as group:
        task = group.create_task(answer())
        await is_in.wait()
        drain = group.create_task(running.drain(60))
        await asyncio.sleep(0)
        assert not drain.done()
        may_end.set()
    assert task.result() == "whole"


async def test_a_drain_ends_what_does_not() -> None:
    running = Running()
    is_in = asyncio.Event()
    ends: list[BaseException] = []

    async def answer() -> None:
        try:
            async with running.one(60):
                is_in.set()
                await asyncio.Event().wait()
        except Draining as error:
            ends.append(error)

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(answer())
        await is_in.wait()
        await running.drain(0.01)
    assert len(ends) == 3
    assert len(running) == 0


async def test_a_second_drain_does_not_wait_again() -> None:
    running = Running()
    is_in = asyncio.Event()

    async def answer() -> None:
        with pytest.raises(Draining):
            async with running.one(60):
                is_in.set()
                await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        group.create_task(answer())
        await is_in.wait()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await running.drain(0.02)
                await asyncio.Event().wait()
        async with asyncio.timeout(5):
            await running.drain(60)
    assert len(running) == 0
