"""The planning model: a small language model on this node that words the parts of a chain.

Knows one hosted model and its time; must not know cards or plans. Implements
`coordinator.ports.Planner`.
"""

import asyncio
from typing import Protocol

from coordinator.routing.planner_text import SYSTEM
from node.engine.base import EngineRequest, Generated
from node.engine.loop import Generation
from node.hosting.tokenizer import ChatTokenizer
from protocols.errors import DeadlineExceeded, NoCapacity
from protocols.messages.ask import ChatMessage, Sampling

TOKENS_MAX = 192
SECONDS_MAX = 2.0
"""A plan that takes longer costs more than better words are worth."""
_GREEDY = Sampling(temperature=0.0)


class PlanningModel(Protocol):
    """What is needed of a `HostedModel`."""

    @property
    def tokenizer(self) -> ChatTokenizer:
        """Of the model."""
        ...

    @property
    def context_length(self) -> int:
        """Tokens of question and answer."""
        ...

    def generate(self, request: EngineRequest) -> Generation:
        """As `HostedModel.generate`."""
        ...


class HostedPlanner:
    """Asks `model`, which must have been trained on `coordinator.routing.planner_text`."""

    def __init__(self, model: PlanningModel, seconds: float = SECONDS_MAX) -> None:
        self._model = model
        self._seconds = seconds

    async def plan(self, question: str) -> str:
        """The likeliest answer; empty if it is longer than `TOKENS_MAX` tokens.

        `NoCapacity` when the question leaves no room for an answer, `DeadlineExceeded` when it
        takes too long; the generation is ended then. Errors of the engine as they are.
        """
        try:
            async with asyncio.timeout(self._seconds):
                return await self._answer(question)
        except TimeoutError as error:
            raise DeadlineExceeded(f"no plan within {self._seconds:g} s") from error

    async def _answer(self, question: str) -> str:
        tokenizer = self._model.tokenizer
        messages = (ChatMessage("system", SYSTEM), ChatMessage("user", question))
        prompt = tokenizer.encode_chat(messages)
        if len(prompt) + TOKENS_MAX > self._model.context_length:
            raise NoCapacity("the question is too long for the planning model")
        request = EngineRequest("plan", prompt, TOKENS_MAX, _GREEDY, tokenizer.stop_ids)
        generation = self._model.generate(request)
        found: list[int] = []
        try:
            while isinstance(output := await generation.next(), Generated):
                found.append(output.token_id)
        finally:
            generation.close()
        return tokenizer.decode(found) if output.reason == "stop" else ""
