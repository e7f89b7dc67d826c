import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

import pytest

from node.engine.base import Ended, EngineRequest, Generated, StepOutput
from node.engine.errors import EngineFailed
from node.engine.fake import FakeEngine, FakeOptions, fake_token
from node.engine.loop import EngineLoop
from protocols.errors import TooLong
from protocols.messages.ask import Sampling

LONG = 900


def request(request_id: str = "a", max_tokens: int = 5) -> EngineRequest:
    return EngineRequest(request_id, (1, 2, 3), max_tokens, Sampling(), frozenset())


class GatedEngine(FakeEngine):
    """A fake whose steps wait for a permit, like a model that takes its time."""

    def __init__(self) -> None:
        super().__init__(FakeOptions())
        self.permits = threading.Semaphore(0)
        self.in_step = threading.Event()

    def step(self) -> Sequence[StepOutput]:
        self.in_step.set()
        self.permits.acquire()
        return super().step()


class BrokenEngine(FakeEngine):
    """Fails in its third step."""

    def __init__(self) -> None:
        super().__init__(FakeOptions())
        self._steps = 0

    def step(self) -> Sequence[StepOutput]:
        self._steps += 1
        if self._steps == 3:
            raise RuntimeError("a tensor went missing")
        return super().step()


@pytest.fixture
async def loop() -> AsyncIterator[EngineLoop]:
    made = EngineLoop(FakeEngine(FakeOptions()))
    await made.start()
    yield made
    await made.close()


async def collect(loop: EngineLoop, one: EngineRequest) -> list[StepOutput]:
    return [output async for output in loop.generate(one)]


async def test_an_answer_comes_in_order_under_the_callers_id(loop: EngineLoop) -> None:
    outputs = await collect(loop, request())
    tokens = [fake_token((1, 2, 3), position, -1, 256) for position in range(5)]
    assert outputs == [
        *(Generated("a", position, token) for position, token in enumerate(tokens)),
        Ended("a", "length"),
    ]


async def test_many_answers_at_once_with_one_id_do_not_mix(loop: EngineLoop) -> None:
    requests = [
        EngineRequest("same", (number,), 20, Sampling(), frozenset()) for number in range(30)
    ]
    answers = await asyncio.gather(*(collect(loop, one) for one in requests))
    for number, outputs in enumerate(answers):
        tokens = [o.token_id for o in outputs if isinstance(o, Generated)]
        assert tokens == [fake_token((number,), position, -1, 256) for position in range(20)]


async def test_a_refusal_is_raised_to_its_caller_only(loop: EngineLoop) -> None:
    good, refused = await asyncio.gather(
        collect(loop, request()), collect(loop, request(max_tokens=5000)), return_exceptions=True
    )
    assert isinstance(refused, TooLong)
    assert not isinstance(good, BaseException)
    assert len(good) == 6
    assert loop.healthy


async def test_closing_the_generator_frees_the_request() -> None:
    engine = GatedEngine()
    loop = EngineLoop(engine)
    await loop.start()
    answer = loop.generate(request(max_tokens=LONG))
    engine.permits.release()
    assert isinstance(await anext(answer), Generated)
    await answer.aclose()
    # The step under way ends, then the cancellation is seen: the engine must run dry.
    engine.permits.release(2)
    assert len(await collect(loop, request(max_tokens=1))) == 2
    assert loop.statistics().running == 0
    assert loop.statistics().cache_tokens_used == 0
    assert loop.statistics().generated_tokens <= 4
    await loop.close()


async def test_cancelling_the_reader_frees_the_request(loop: EngineLoop) -> None:
    generation = loop.submit(request(max_tokens=LONG))
    await generation.next()
    generation.close()
    generation.close()
    await collect(loop, request())
    assert loop.statistics().running == 0


async def test_a_cancelled_wait_loses_no_token() -> None:
    engine = GatedEngine()
    loop = EngineLoop(engine)
    await loop.start()
    generation = loop.submit(request())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await generation.next()
    engine.permits.release(10)
    outputs = [await generation.next() for _ in range(6)]
    assert [o.position for o in outputs if isinstance(o, Generated)] == [0, 1, 2, 3, 4]
    await loop.close()


async def test_the_event_loop_does_not_wait_for_a_step() -> None:
    engine = GatedEngine()
    loop = EngineLoop(engine)
    await loop.start()
    first = loop.submit(request("first"))
    await asyncio.to_thread(engine.in_step.wait)
    # The engine's thread is stuck in a step; everything here returns all the same.
    second = loop.submit(request("second", max_tokens=1))
    third = loop.submit(request("third"))
    third.close()
    assert loop.statistics().generated_tokens == 0
    assert loop.healthy
    engine.permits.release(100)
    assert await second.next() == Generated("second", 0, fake_token((1, 2, 3), 0, -1, 256))
    assert isinstance(await first.next(), Generated)
    await loop.close()


async def test_a_fault_in_the_thread_reaches_every_answer() -> None:
    engine = BrokenEngine()
    loop = EngineLoop(engine)
    await loop.start()
    results = await asyncio.gather(
        *(collect(loop, request(str(number), 50)) for number in range(3)), return_exceptions=True
    )
    for result in results:
        assert isinstance(result, EngineFailed)
        assert "a tensor went missing" in str(result)
        assert isinstance(result.__cause__, RuntimeError)
    assert len({id(result) for result in results}) == 3
    assert not loop.healthy
    with pytest.raises(EngineFailed):
        loop.submit(request())
    await loop.close()
    assert engine.is_closed


async def test_closing_ends_waiting_answers_and_frees_the_engine() -> None:
    engine = GatedEngine()
    loop = EngineLoop(engine)
    await loop.start()
    generation = loop.submit(request(max_tokens=LONG))
    await asyncio.to_thread(engine.in_step.wait)
    engine.permits.release()
    await loop.close()
    await loop.close()
    assert engine.is_closed
    with pytest.raises(EngineFailed, match="stopped"):
        while True:
            await generation.next()
    with pytest.raises(EngineFailed):
        await collect(loop, request())


async def test_closing_what_was_never_started_frees_the_engine() -> None:
    engine = FakeEngine(FakeOptions())
    await EngineLoop(engine).close()
    assert engine.is_closed


async def test_nothing_is_answered_before_the_start() -> None:
    loop = EngineLoop(FakeEngine(FakeOptions()))
    assert not loop.healthy
    with pytest.raises(EngineFailed, match="started"):
        loop.submit(request())
    await loop.close()
