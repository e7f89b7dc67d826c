"""What a body becomes for the coordinator, and which field a refusal names."""

import io
import random
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest

from coordinator.answer import AnswerRequest, Route
from node.gateway.bodies import ChatBody, CompletionBody, decode_body
from node.gateway.errors import BadRequest, PromptTooLong, UnsupportedParameter
from node.gateway.fake import Speech
from node.gateway.trial import ALICE, BOB, Trial, open_trial
from node.state import SwarmReaders
from protocols import limits
from protocols.messages.ask import (
    Chat,
    ChatMessage,
    Grammar,
    JsonSchema,
    LogitBias,
    RegularExpression,
    Sampling,
    Text,
    ToolCall,
)

USER = {"role": "user", "content": "hi"}


def chat_body(**fields: object) -> ChatBody:
    return decode_body(
        msgspec.json.encode({"model": "auto", "messages": [USER]} | fields), ChatBody
    )


def completion_body(**fields: object) -> CompletionBody:
    return decode_body(
        msgspec.json.encode({"model": "auto", "prompt": "hi"} | fields), CompletionBody
    )


@pytest.mark.parametrize(
    ("fields", "parameter"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": "m" * 201}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [USER] * (limits.CHAT_MESSAGES_MAX + 1)}, "messages"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role"),
        ({"messages": [USER, {"role": "wizard", "content": "x"}]}, "messages[1].role"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_completion_tokens": limits.TOKENS_MAX + 1}, "max_completion_tokens"),
        ({"seed": 1.5}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a", ""]}, "stop[1]"),
        ({"min_p": 1.1}, "min_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"presence_penalty": 2.5}, "presence_penalty"),
        ({"frequency_penalty": -3}, "frequency_penalty"),
        ({"logit_bias": {"5": 101}}, "logit_bias[...]"),
        ({"logit_bias": {str(n): 1 for n in range(limits.LOGIT_BIASES_MAX + 1)}}, "logit_bias"),
        ({"logprobs": 3}, "logprobs"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"tools": "f"}, "tools"),
        ({"dslm": {"regex": ""}}, "dslm.regex"),
        ({"dslm": "local"}, "dslm"),
        ({"dslm": {"budget": 0}}, "dslm.budget"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, object], parameter: str) -> None:
    with pytest.raises(BadRequest) as caught:
        chat_body(**fields)
    assert caught.value.parameter == parameter
    assert caught.value.code == "invalid_value"
    assert repr(parameter) in str(caught.value)


def test_a_missing_field_is_named() -> None:
    with pytest.raises(BadRequest, match="Missing required parameter: 'model'") as caught:
        decode_body(b'{"messages": [{"role": "user", "content": "hi"}]}', ChatBody)
    assert caught.value.parameter == "model"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("functions", [{}]),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "alloy"}),
        ("echo", True),
        ("best_of", 2),
        ("suffix", "end"),
    ],
)
def test_a_field_that_would_change_the_answer_is_refused(field: str, value: object) -> None:
    with pytest.raises(UnsupportedParameter, match=field) as caught:
        chat_body(**{field: value})
    assert caught.value.parameter == field
    assert caught.value.code == "unsupported_parameter"


def test_neutral_and_unknown_fields_are_accepted() -> None:
    body = chat_body(
        n=1,
        tools=[],
        tool_choice="auto",
        parallel_tool_calls=False,
        response_format={"type": "text"},
        logprobs=False,
        presence_penalty=0,
        frequency_penalty=0.0,
        logit_bias={},
        modalities=["text"],
        user="me",
        metadata={"a": "b"},
        store=True,
        service_tier="auto",
        prompt_cache_key="k",
        safety_identifier="s",
        verbosity="low",
        reasoning_effort="low",
        invented={"deep": [1]},
    )
    assert body.model == "auto"


def test_null_means_absent() -> None:
    names = (
        "stream stream_options max_tokens temperature top_p top_k seed stop dslm n tools logprobs"
    )
    assert chat_body(**dict.fromkeys(names.split())) == chat_body()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"nonsense",
        b"[1]",
        b'"text"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"model": NaN}',
        b'{"model":"a","messages":[{"role":"user","content":"\\ud800 alone"}]}',
    ],
)
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(BadRequest):
        decode_body(data, ChatBody)


@pytest.fixture
async def trial() -> AsyncIterator[Trial]:
    async with open_trial(Speech(BOB, ["ok"])) as opened:
        yield opened


class Asker:
    """Posts bodies; `asked` reads what the coordinator got."""

    def __init__(self, trial: Trial, http: aiohttp.ClientSession) -> None:
        self.trial = trial
        self.http = http

    async def asked(
        self, path: str = "chat/completions", headers: dict[str, str] | None = None, **body: object
    ) -> AnswerRequest:
        async with self.http.post(f"/v1/{path}", json=body, headers=headers) as response:
            assert response.status == 200, await response.text()
        return self.trial.source.asked[-1]

    async def refused(
        self, path: str = "chat/completions", headers: dict[str, str] | None = None, **body: object
    ) -> dict[str, str]:
        count = len(self.trial.source.asked)
        async with self.http.post(f"/v1/{path}", json=body, headers=headers) as response:
            assert response.status == 400
            error: dict[str, str] = (await response.json())["error"]
        assert len(self.trial.source.asked) == count
        return error


@pytest.fixture
async def asker(trial: Trial) -> AsyncIterator[Asker]:
    async with aiohttp.ClientSession(base_url=trial.gateway.url) as http:
        yield Asker(trial, http)


async def test_the_simplest_chat_gets_the_documented_defaults(asker: Asker) -> None:
    asked = await asker.asked(model="auto", messages=[USER])
    seed = random.Random(7)
    seed.getrandbits(128)  # the request's id is drawn first
    assert asked.prompt == Chat((ChatMessage("user", "hi"),))
    assert asked.sampling == Sampling(temperature=0.2, seed=seed.getrandbits(32))
    assert (asked.max_tokens, asked.stop, asked.route, asked.node) == (0, (), Route.ANY, None)
    assert asked.budget == 600.0
    assert len(asked.request_id) <= 64


async def test_every_honoured_field_arrives(asker: Asker) -> None:
    asked = await asker.asked(
        model="lab/math-135m",
        messages=[
            {"role": "developer", "content": "Be brief."},
            {
                "role": "user",
                "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            },
            {"role": "assistant", "content": None},
            {"role": "user", "content": "", "name": "x"},
        ],
        temperature=0,
        top_p=0.5,
        top_k=40,
        seed=9,
        stop=["END", "\n"],
        max_tokens=5,
        dslm={"route": "local", "node": ALICE, "budget": 3},
    )
    assert asked.model == "lab/math-135m"
    assert asked.prompt == Chat(
        (
            ChatMessage("system", "Be brief."),
            ChatMessage("user", "a\nb"),
            ChatMessage("assistant", ""),
            ChatMessage("user", ""),
        )
    )
    assert asked.sampling == Sampling(temperature=0.0, top_p=0.5, top_k=40, seed=9)
    assert (asked.stop, asked.max_tokens, asked.budget) == (("END", "\n"), 5, 3.0)
    assert (asked.route, asked.node) == (Route.LOCAL, ALICE)


async def test_edges_of_sampling_stay_inside_the_protocol(asker: Asker) -> None:
    asked = await asker.asked(
        model="auto", messages=[USER], top_p=0, top_k=-1, seed=-1, stop="x", max_completion_tokens=2
    )
    assert 0 < asked.sampling.top_p < 0.001
    assert (asked.sampling.top_k, asked.sampling.seed) == (0, 2**63 - 1)
    assert (asked.stop, asked.max_tokens) == (("x",), 2)
    msgspec.convert(msgspec.to_builtins(asked.sampling), Sampling)


async def test_a_budget_cannot_exceed_the_nodes(asker: Asker) -> None:
    asked = await asker.asked(model="auto", messages=[USER], dslm={"budget": 3_600})
    assert asked.budget == 600.0


@pytest.mark.parametrize(
    ("header", "body", "expected"),
    [
        ("local", None, Route.LOCAL),
        ("local", "any", Route.LOCAL),
        ("any", "local", Route.LOCAL),
        ("any", None, Route.ANY),
        ("any", "trusted", Route.TRUSTED),
        ("trusted", "any", Route.TRUSTED),
        ("trusted", "local", Route.LOCAL),
    ],
)
async def test_the_stricter_route_counts(
    asker: Asker, header: str, body: str | None, expected: Route
) -> None:
    asked = await asker.asked(
        headers={"X-Dslm-Route": header}, model="auto", messages=[USER], dslm={"route": body}
    )
    assert asked.route is expected


async def test_an_unknown_route_is_never_weakened(asker: Asker) -> None:
    for name in ("private", "", "LOCAL"):
        error = await asker.refused(model="auto", messages=[USER], dslm={"route": name})
        assert error["param"] == "dslm.route"
        assert "local, trusted, any" in error["message"]
        error = await asker.refused(headers={"X-DSLM-Route": name}, model="auto", messages=[USER])
        assert error["param"] == "X-DSLM-Route"


async def test_the_current_swarm_is_asked_unless_another_is_named(asker: Asker) -> None:
    asker.trial.view.swarm_readers += (SwarmReaders("lab", "private", False, "Its members."),)
    assert (await asker.asked(model="auto", messages=[USER])).swarm == "public"
    header = {"X-DSLM-Swarm": "lab"}
    assert (await asker.asked(headers=header, model="auto", messages=[USER])).swarm == "lab"
    own = {"swarm": "lab"}
    assert (await asker.asked(model="auto", messages=[USER], dslm=own)).swarm == "lab"
    asked = await asker.asked(headers=header, model="auto", messages=[USER], dslm=own)
    assert asked.swarm == "lab"
    own = {"swarm": "public"}
    error = await asker.refused(headers=header, model="auto", messages=[USER], dslm=own)
    assert error["param"] == "dslm.swarm"


async def test_a_node_can_be_named(asker: Asker) -> None:
    for name in (BOB, "bob-3090", BOB[:14]):
        asked = await asker.asked(model="auto", messages=[USER], dslm={"node": name})
        assert asked.node == BOB


@pytest.mark.parametrize(("name", "trouble"), [("12D3", "ambiguous"), ("dave", "not known")])
async def test_a_node_must_be_one(asker: Asker, name: str, trouble: str) -> None:
    error = await asker.refused(model="auto", messages=[USER], dslm={"node": name})
    assert error["param"] == "dslm.node"
    assert trouble in error["message"]


@pytest.mark.parametrize(
    ("message", "parameter", "code"),
    [
        ({"role": "user", "content": None}, "messages[0].content", "invalid_value"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
            "messages[0].content[0]",
            "unsupported_parameter",
        ),
        (
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
            "messages[0].tool_calls[0].function",
            "invalid_value",
        ),
        (
            {"role": "assistant", "content": None, "function_call": {"name": "f"}},
            "messages[0].function_call",
            "unsupported_parameter",
        ),
    ],
)
async def test_a_message_that_cannot_be_honoured_is_refused(
    asker: Asker, message: dict[str, object], parameter: str, code: str
) -> None:
    error = await asker.refused(model="auto", messages=[message])
    assert (error["param"], error["code"]) == (parameter, code)


async def test_a_prompt_no_peer_would_take_is_refused_here(asker: Asker) -> None:
    half = "é" * (limits.PROMPT_BYTES_MAX // 4 + 1)
    error = await asker.refused(
        model="auto",
        messages=[{"role": "user", "content": half}, {"role": "user", "content": half}],
    )
    assert (error["code"], error["param"]) == (PromptTooLong.code, "messages")
    assert "maximum context length" in error["message"]
    error = await asker.refused("completions", model="auto", prompt=half + half)
    assert (error["code"], error["param"]) == (PromptTooLong.code, "prompt")


async def test_the_largest_prompt_passes(asker: Asker) -> None:
    text = "\x01" * limits.PROMPT_BYTES_MAX  # six bytes each in JSON
    body = msgspec.json.encode({"model": "auto", "messages": [{"role": "user", "content": text}]})
    async with asker.http.post("/v1/chat/completions", data=io.BytesIO(body)) as response:
        assert response.status == 200, await response.text()
    assert asker.trial.source.asked[0].prompt == Chat((ChatMessage("user", text),))


async def test_completions_take_one_bare_prompt(asker: Asker) -> None:
    asked = await asker.asked("completions", model="auto", prompt="Once")
    assert (asked.prompt, asked.max_tokens) == (Text("Once"), 16)
    asked = await asker.asked("completions", model="auto", prompt=["Once"], max_tokens=3)
    assert (asked.prompt, asked.max_tokens) == (Text("Once"), 3)
    for prompt, code in [
        (["a", "b"], "unsupported_parameter"),
        ([1, 2], "unsupported_parameter"),
        ([[1, 2]], "unsupported_parameter"),
        ("", "invalid_value"),
        ([], "unsupported_parameter"),
    ]:
        error = await asker.refused("completions", model="auto", prompt=prompt)
        assert (error["param"], error["code"]) == ("prompt", code)


def test_completions_count_logprobs() -> None:
    assert completion_body(logprobs=None).logprobs is None
    assert completion_body(logprobs=0).logprobs == 0
    with pytest.raises(BadRequest):
        completion_body(logprobs=True)


@pytest.mark.parametrize("field", ["tools", "response_format", "tool_choice", "top_logprobs"])
def test_what_only_chat_knows_is_refused_elsewhere(field: str) -> None:
    with pytest.raises(UnsupportedParameter, match=field):
        completion_body(**{field: [1]})


async def test_all_of_sampling_arrives(asker: Asker) -> None:
    asked = await asker.asked(
        model="auto",
        messages=[USER],
        min_p=0.05,
        repetition_penalty=1.1,
        presence_penalty=-2,
        frequency_penalty=0.5,
        logit_bias={"50256": -100, "0": 1.5},
        logprobs=True,
        top_logprobs=3,
        seed=1,
    )
    assert asked.sampling == Sampling(
        temperature=0.2,
        seed=1,
        min_p=0.05,
        repetition_penalty=1.1,
        presence_penalty=-2.0,
        frequency_penalty=0.5,
        logit_bias=(LogitBias(50256, -100.0), LogitBias(0, 1.5)),
        logprobs=3,
    )
    asked = await asker.asked("completions", model="auto", prompt="a", logprobs=0)
    assert asked.sampling.logprobs == 0


async def test_constraints_arrive(asker: Asker) -> None:
    async def constraint(**fields: Any) -> object:
        return (await asker.asked(model="auto", messages=[USER], **fields)).constraint

    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert await constraint() is None
    assert await constraint(response_format={"type": "text"}) is None
    found = await constraint(response_format={"type": "json_object"})
    assert found == JsonSchema('{"type":"object"}')
    found = await constraint(
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "x", "strict": True, "schema": schema},
        }
    )
    assert isinstance(found, JsonSchema)
    assert msgspec.json.decode(found.schema) == schema
    assert await constraint(dslm={"regex": "a+"}) == RegularExpression("a+")
    assert await constraint(dslm={"grammar": 'start: "a"'}) == Grammar('start: "a"')
    asked = await asker.asked("completions", model="auto", prompt="a", dslm={"regex": "a+"})
    assert asked.constraint == RegularExpression("a+")


WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


async def test_tools_and_their_answers_arrive(asker: Asker) -> None:
    asked = await asker.asked(
        model="auto",
        tools=[WEATHER],
        messages=[
            USER,
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"city": "Oslo"}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        ],
    )
    assert isinstance(asked.prompt, Chat)
    assert msgspec.json.decode(asked.prompt.tools) == [WEATHER]
    call = ToolCall("call_1", "weather", '{"city": "Oslo"}')
    assert asked.prompt.messages[1:] == (
        ChatMessage("assistant", "", (call,)),
        ChatMessage("tool", "rain", (), "call_1"),
    )
    asked = await asker.asked(model="auto", tools=[WEATHER], tool_choice="none", messages=[USER])
    assert asked.prompt == Chat((ChatMessage("user", "hi"),))


@pytest.mark.parametrize(
    ("fields", "parameter"),
    [
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logit_bias": {"cat": 1}}, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {str(2**31): 1}}, "logit_bias"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": "any"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "custom"}}, "tool_choice"),
        (
            {
                "tools": [WEATHER],
                "tool_choice": {"type": "function", "function": {"name": "other"}},
            },
            "tool_choice",
        ),
        ({"tools": [WEATHER], "tool_choice": "required", "dslm": {"regex": "a"}}, "dslm"),
        ({"tools": [{"type": "function"}]}, "tools[0]"),
        ({"tools": [WEATHER, {"type": "custom", "custom": {"name": "x"}}]}, "tools[1]"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_object"}, "dslm": {"regex": "a"}}, "dslm"),
        ({"dslm": {"regex": "a", "grammar": "b"}}, "dslm"),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"schema": {"enum": ["x" * limits.CONSTRAINT_BYTES_MAX]}},
                }
            },
            "response_format.json_schema.schema",
        ),
        (
            {"tools": [{"function": {"name": "f", "description": "x" * limits.TOOLS_BYTES_MAX}}]},
            "tools",
        ),
    ],
)
async def test_wishes_that_cannot_be_are_refused(
    asker: Asker, fields: dict[str, Any], parameter: str
) -> None:
    error = await asker.refused(model="auto", messages=[USER], **fields)
    assert error["param"] == parameter
