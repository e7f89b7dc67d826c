"""A forced call: whatever a model makes of the constraint is read back as a call that fits."""

import json
import random
from typing import Any

import msgspec
import pytest
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel
from tokenizers.models import BPE

from node.gateway.bodies import ChatBody, decode_body
from node.gateway.errors import BadRequest
from node.gateway.tool_calls import ToolCallReader
from node.gateway.tool_choice import forced_call
from node.hosting.grammar import Grammars
from protocols import limits
from protocols.messages.ask import JsonSchema

PLACE = {"type": "object", "properties": {"x": {"enum": [1, 2]}}, "required": ["x"]}
GO = {
    "name": "go",
    "parameters": {
        "$defs": {"place": {**PLACE, "additionalProperties": False}},
        "type": "object",
        "properties": {"to": {"$ref": "#/$defs/place"}},
        "required": ["to"],
        "additionalProperties": False,
    },
}
STOP = {
    "name": "stop",
    "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
}
TOOLS = [{"type": "function", "function": one} for one in (GO, STOP)]
NAMED = {"type": "function", "function": {"name": "go"}}


def body(**fields: Any) -> ChatBody:
    whole = {"model": "auto", "messages": [{"role": "user", "content": "hi"}], **fields}
    return decode_body(json.dumps(whole).encode(), ChatBody)


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    """Each printable character is a token; id 0 ends an answer."""
    letters = ["<end>", *(chr(code) for code in range(33, 127))]
    tokenizer = Tokenizer(BPE({letter: at for at, letter in enumerate(letters)}, []))
    tokenizer.decoder = ByteLevel()
    return Grammars(tokenizer, frozenset({0}))


def written(grammars: Grammars, schema: JsonSchema, seed: int) -> str:
    """A random answer under the constraint."""
    rng, matcher, answer = random.Random(seed), grammars.matcher(schema), list[int]()
    while True:
        mask = matcher.allowed(answer)
        assert not matcher.failure
        token = rng.choice([at for at in range(95) if mask[at // 8] >> at % 8 & 1])
        if token == 0:
            return "".join(chr(one + 32) for one in answer)
        answer.append(token)


def calls(text: str) -> list[tuple[str, Any]]:
    reader = ToolCallReader(frozenset({"go", "stop"}))
    found = [reader.feed(text), reader.finish()]
    assert not any(one.text for one in found)
    return [(call.name, json.loads(call.arguments)) for one in found for call in one.calls]


def test_any_of_the_tools_is_called(grammars: Grammars) -> None:
    schema = forced_call(body(tools=TOOLS, tool_choice="required"))
    assert schema is not None
    seen = [calls(written(grammars, schema, seed)) for seed in range(12)]
    assert all(len(one) == 1 for one in seen)
    assert {name for ((name, _),) in seen} == {"go", "stop"}
    assert all(arguments in ({}, {"to": {"x": 1}}, {"to": {"x": 2}}) for ((_, arguments),) in seen)


def test_the_named_tool_is_called(grammars: Grammars) -> None:
    schema = forced_call(body(tools=TOOLS, tool_choice=NAMED))
    assert schema is not None
    ((name, arguments),) = calls(written(grammars, schema, 1))
    assert name == "go"
    assert arguments["to"]["x"] in (1, 2)


def test_a_tool_without_parameters_takes_any_object() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    schema = forced_call(body(tools=tools, tool_choice="required"))
    assert schema is not None
    assert msgspec.json.decode(schema.schema)["anyOf"][0]["properties"] == {
        "name": {"const": "f"},
        "arguments": {"type": "object"},
    }


@pytest.mark.parametrize("choice", [None, "auto", "none"])
def test_other_choices_force_nothing(choice: object) -> None:
    assert forced_call(body(tools=TOOLS, tool_choice=choice)) is None


def test_schemas_that_are_too_large_are_refused() -> None:
    large = {"enum": ["x" * limits.CONSTRAINT_BYTES_MAX]}
    tools = [{"type": "function", "function": {"name": "f", "parameters": large}}]
    with pytest.raises(BadRequest, match="schemas of the tools"):
        forced_call(body(tools=tools, tool_choice="required"))
