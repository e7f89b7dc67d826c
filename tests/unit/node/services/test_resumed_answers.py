"""A small real model behind the service: an answer that is cut anywhere goes on to the same end.

Weights are random and the tokenizer is real, so characters and stop strings span tokens.
"""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace

import pytest
import torch
from msgspec.structs import replace as struct_replace

from node.engine.base import EngineRequest
from node.engine.loop import EngineLoop, Generation
from node.engine.model import LlamaModel
from node.engine.torch_engine import EngineOptions, TorchEngine
from node.hosting.tokenizer import ChatTokenizer
from node.services.ask import AskService
from protocols.adapters.clock import SystemClock
from protocols.ids import SpecialistId
from protocols.messages.ask import (
    Ask,
    Finished,
    JsonSchema,
    RegularExpression,
    Sampling,
    Text,
    Tokens,
)
from tests.unit.node.engine.conftest import TINY, RandomWeights
from tests.unit.node.hosting.conftest import trained_bpe

NAME = SpecialistId("small")
BUSY = Sampling(
    temperature=1.0,
    seed=5,
    min_p=0.001,
    repetition_penalty=1.2,
    presence_penalty=0.3,
    frequency_penalty=0.5,
    logprobs=2,
)
ASK = Ask("r", 0, NAME, Text("the cat"), BUSY, max_tokens=40, budget=60.0)


@dataclass(frozen=True)
class SmallModel:
    """A `ServedModel`."""

    loop: EngineLoop
    tokenizer: ChatTokenizer
    specialist: SpecialistId = NAME
    model_digest: str = "small"
    context_length: int = 128
    slots: int = 4
    healthy: bool = True

    @property
    def plain(self) -> "SmallModel":
        return self

    def generate(self, request: EngineRequest) -> Generation:
        return self.loop.submit(request)


@pytest.fixture
async def service() -> AsyncIterator[AskService]:
    tokenizer = trained_bpe()
    config = replace(TINY, vocabulary_size=tokenizer.get_vocab_size())
    model = LlamaModel(config, RandomWeights(config, seed=3), torch.float32, 128)
    loop = EngineLoop(TorchEngine(model, EngineOptions(128, 1024)))
    await loop.start()
    try:
        stop_ids = frozenset({0, 1, 2})
        small = SmallModel(loop, ChatTokenizer(tokenizer, None, stop_ids))
        yield AskService({NAME: small}, SystemClock())
    finally:
        await loop.close()


@dataclass
class Got:
    ids: tuple[int, ...]
    texts: tuple[str, ...]
    """What each token showed, and the rest last."""
    logprobs: tuple[float, ...]
    reason: str


async def ask(service: AskService, question: Ask) -> Got:
    async with aclosing(service.answer(question)) as answer:
        messages = [message async for message in answer]
    tokens = [one for one in messages if isinstance(one, Tokens)]
    last = messages[-1]
    assert isinstance(last, Finished)
    return Got(
        tuple(token for one in tokens for token in one.ids),
        (*(one.text for one in tokens), last.text),
        tuple(found.logprob for one in tokens for found in one.logprobs),
        last.reason,
    )


QUESTIONS = {
    "plain": ASK,
    "greedy": struct_replace(ASK, sampling=Sampling(repetition_penalty=1.5)),
    "schema": struct_replace(
        ASK,
        max_tokens=100,
        constraint=JsonSchema(
            '{"type": "object", "properties": {"a": {"type": "string", "maxLength": 9},'
            ' "b": {"enum": ["日本", "état"]}}, "required": ["a", "b"],'
            ' "additionalProperties": false}'
        ),
    ),
    "stop": struct_replace(
        ASK, constraint=RegularExpression("[日é]{3,9}日é日本!!!"), stop=("é日本!",)
    ),
}


@pytest.mark.parametrize("name", QUESTIONS)
async def test_a_resumed_answer_is_the_same_in_text_ids_and_likelihoods(
    service: AskService, name: str
) -> None:
    question = QUESTIONS[name]
    whole = await ask(service, question)
    assert len(whole.ids) > 10
    for cut in range(0, len(whole.ids) + 1, 3):
        rest = await ask(service, struct_replace(question, delivered=whole.ids[:cut]))
        assert rest.ids == whole.ids[cut:]
        assert rest.reason == whole.reason
        assert "".join(rest.texts) == "".join(whole.texts[cut:])
        assert rest.logprobs == pytest.approx(whole.logprobs[cut:], abs=1e-4)


async def test_the_whole_answers_are_what_they_should_be(service: AskService) -> None:
    schema = await ask(service, QUESTIONS["schema"])
    found = json.loads("".join(schema.texts))
    assert set(found) == {"a", "b"}
    assert found["b"] in ("日本", "état")
    assert schema.reason == "stop"
    stopped = await ask(service, QUESTIONS["stop"])
    assert stopped.reason == "stop"
    text = "".join(stopped.texts)
    assert text.endswith("日")
    assert set(text) <= set("日é")
    plain = await ask(service, QUESTIONS["plain"])
    assert len(plain.logprobs) == len(plain.ids)


async def test_a_model_finds_given_ids_as_likely_as_when_it_chose_them(
    service: AskService,
) -> None:
    said = await ask(service, struct_replace(ASK, sampling=Sampling(logprobs=0)))
    given = struct_replace(ASK, sampling=Sampling(), forced=said.ids, max_tokens=len(said.ids))
    told = await ask(service, given)
    assert told.ids == said.ids
    assert "".join(told.texts) == "".join(said.texts)
    assert told.logprobs == pytest.approx(said.logprobs, abs=1e-4)
