"""Virtual time: hours pass at once, in order; deadlocks and overruns are noticed."""

import asyncio
import time

import pytest

from protocols.adapters.virtual import DeadlockError, LoopClock, run_virtual


def test_hours_pass_at_once_and_in_order() -> None:
    order: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        order.append((name, asyncio.get_running_loop().time()))

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for name, seconds in (("c", 3_000.0), ("a", 1.5), ("b", 1.75)):
                group.create_task(sleeper(name, seconds))

    began = time.monotonic()
    run_virtual(main())
    assert order == [("a", 1.5), ("b", 1.75), ("c", 3_000.0)]
    assert time.monotonic() - began < 5


def test_timeouts_work_unchanged() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10.0):
                await asyncio.sleep(11.0)
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == pytest.approx(10.0)


def test_a_deadlock_is_an_error_and_cleans_up() -> None:
    cleaned = []

    async def main() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(True)

    with pytest.raises(DeadlockError):
        run_virtual(main())
    assert cleaned == [True]


def test_an_endless_run_is_limited() -> None:
    async def main() -> None:
        for _ in range(1_000):
            await asyncio.sleep(1.0)

    with pytest.raises(TimeoutError, match="60 seconds"):
        run_virtual(main(), limit_seconds=60.0)


def test_the_results_and_errors_of_main_come_out() -> None:
    async def fail() -> None:
        await asyncio.sleep(1.0)
        raise KeyError("x")

    with pytest.raises(KeyError):
        run_virtual(fail())


def test_clocks_disagree_about_the_epoch_only() -> None:
    async def main() -> None:
        here, there = LoopClock(1_000.0), LoopClock(1_060.0)
        await asyncio.sleep(5.0)
        assert here.now() == pytest.approx(1_005.0)
        assert there.now() - here.now() == pytest.approx(60.0)
        assert here.monotonic() == there.monotonic() == pytest.approx(5.0)

    run_virtual(main())
