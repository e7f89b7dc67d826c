"""The real model and tokenizer under constraints: each sample parses, a resumed one goes on."""

import re
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
import pytest
import torch

from node.engine.base import EngineRequest, Generated
from node.engine.model import LlamaModel
from node.engine.torch_engine import EngineOptions, TorchEngine
from node.hosting.tokenizer import ChatTokenizer
from node.hosting.weights import ModelWeights
from protocols.errors import Unsupported
from protocols.messages.ask import (
    ChatMessage,
    Constraint,
    JsonSchema,
    RegularExpression,
    Sampling,
)

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("one_thread")]

SAMPLES = 20
TOKENS = 96


class Pet(msgspec.Struct, forbid_unknown_fields=True):
    """What the schema below describes, checked by another library."""

    name: Annotated[str, msgspec.Meta(max_length=12)]
    kind: Literal["cat", "dog", "fish"]
    age: Annotated[int, msgspec.Meta(ge=0, le=30)]
    toys: Annotated[list[Literal["ball", "mouse"]], msgspec.Meta(max_length=2)]


SCHEMA = JsonSchema(
    """{"type": "object", "additionalProperties": false,
        "required": ["name", "kind", "age", "toys"],
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "kind": {"enum": ["cat", "dog", "fish"]},
            "age": {"type": "integer", "minimum": 0, "maximum": 30},
            "toys": {"type": "array", "maxItems": 2, "items": {"enum": ["ball", "mouse"]}}}}"""
)
DATE = RegularExpression(r"\d{4}-(0[1-9]|1[0-2])-\d{2}")
TALK = [ChatMessage("user", "Invent a pet. Answer in JSON.")]


@pytest.fixture(scope="module")
def engine(weights: ModelWeights) -> TorchEngine:
    model = LlamaModel(weights.config, weights.tensors, torch.float32, 256)
    return TorchEngine(model, EngineOptions(256, 256 * SAMPLES, running=SAMPLES))


def asking(
    tokenizer: ChatTokenizer, constraint: Constraint, seed: int, delivered: Sequence[int] = ()
) -> EngineRequest:
    return EngineRequest(
        f"r{seed}",
        tokenizer.encode_chat(TALK),
        TOKENS,
        Sampling(temperature=1.2, seed=seed),
        tokenizer.stop_ids,
        tuple(delivered),
        tokenizer.matcher(constraint),
    )


def run(engine: TorchEngine, requests: Sequence[EngineRequest]) -> dict[str, list[int]]:
    """The ids of all answers, delivered ones included."""
    answers = {request.request_id: list(request.delivered) for request in requests}
    for request in requests:
        engine.submit(request)
    while engine.has_work:
        for output in engine.step():
            if isinstance(output, Generated):
                answers[output.request_id].append(output.token_id)
    return answers


@pytest.mark.slow
def test_samples_parse_and_validate(engine: TorchEngine, weights: ModelWeights) -> None:
    tokenizer = weights.tokenizer
    requests = [asking(tokenizer, SCHEMA, seed) for seed in range(SAMPLES)]
    answers = run(engine, requests)
    pets = [msgspec.json.decode(tokenizer.decode(answer), type=Pet) for answer in answers.values()]
    assert len({msgspec.json.encode(pet) for pet in pets}) > SAMPLES // 2, "they hardly differ"
    assert all(request.matcher is not None and not request.matcher.failure for request in requests)
    # And one of them again, by a peer that is given any part of it.
    whole = answers["r3"]
    for cut in (1, len(whole) // 2, len(whole) - 1):
        assert run(engine, [asking(tokenizer, SCHEMA, 3, whole[:cut])])["r3"] == whole


@pytest.mark.slow
def test_an_expression_is_matched_in_whole(engine: TorchEngine, weights: ModelWeights) -> None:
    tokenizer = weights.tokenizer
    answers = run(engine, [asking(tokenizer, DATE, seed) for seed in range(4)])
    for answer in answers.values():
        assert re.fullmatch(DATE.pattern, tokenizer.decode(answer))


def test_spellings_joined_are_the_text(weights: ModelWeights) -> None:
    text = "Ångström 日本 \U0001f408 {\n\t'a': 1}"
    ids = weights.tokenizer.encode_text(text)
    assert b"".join(map(weights.tokenizer.spelling, ids)).decode() == text


def test_this_models_template_knows_no_tools(weights: ModelWeights) -> None:
    tools = '[{"type": "function", "function": {"name": "f"}}]'
    with pytest.raises(Unsupported, match="'tools'"):
        weights.tokenizer.encode_chat(TALK, tools)
