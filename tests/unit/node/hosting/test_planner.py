"""The planning model's port: what it is asked, what ends it."""

import asyncio
from dataclasses import dataclass, field

import pytest

from node.engine.base import Ended, EngineRequest, Generated
from node.engine.errors import EngineFailed
from node.hosting.planner import HostedPlanner
from protocols.errors import DeadlineExceeded, NoCapacity
from protocols.messages.ask import ChatMessage


class Words:
    """One id a word."""

    stop_ids = frozenset({0})

    def encode_chat(self, messages: tuple[ChatMessage, ...], tools: str = "") -> tuple[int, ...]:
        assert not tools
        self.asked = messages
        return tuple(range(1, 1 + sum(len(one.content.split()) for one in messages)))

    def decode(self, ids: list[int]) -> str:
        return " ".join(f"w{one}" for one in ids)


@dataclass
class Model:
    """Says some ids, then ends, waits for ever, or fails."""

    ids: tuple[int, ...] = (1, 2)
    end: str = "stop"
    context_length: int = 400
    tokenizer: Words = field(default_factory=Words)
    closed: int = 0
    request: EngineRequest | None = None

    def generate(self, request: EngineRequest) -> "Model":
        self.request, self.left = request, list(enumerate(self.ids))
        return self

    async def next(self) -> Generated | Ended:
        if self.left:
            position, token = self.left.pop(0)
            return Generated("plan", position, token)
        if self.end == "hang":
            await asyncio.Event().wait()
        if self.end == "fail":
            raise EngineFailed("broken")
        return Ended("plan", "stop")

    def close(self) -> None:
        self.closed += 1


def planner(model: Model, seconds: float = 60.0) -> HostedPlanner:
    return HostedPlanner(model, seconds)  # type: ignore[arg-type]


async def test_it_asks_greedily_and_says_what_came() -> None:
    model = Model()
    assert await planner(model).plan("who does what") == "w1 w2"
    assert model.tokenizer.asked[-1] == ChatMessage("user", "who does what")
    assert model.request is not None
    assert model.request.sampling.temperature == 0
    assert model.closed == 1


async def test_it_ends_a_generation_that_takes_too_long() -> None:
    model = Model(end="hang")
    with pytest.raises(DeadlineExceeded):
        await planner(model, 0.01).plan("who does what")
    assert model.closed == 1


async def test_failures_of_the_engine_come_through() -> None:
    model = Model(end="fail")
    with pytest.raises(EngineFailed):
        await planner(model).plan("who does what")
    assert model.closed == 1


async def test_a_question_without_room_for_an_answer_is_not_asked() -> None:
    model = Model(context_length=165)
    with pytest.raises(NoCapacity):
        await planner(model).plan("who does what " * 5)
    assert model.request is None
