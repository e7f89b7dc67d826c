"""The real openai client, which checks every answer and chunk against OpenAI's own types.

It talks to a real gateway with a scripted answer source, over loopback.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import openai
import pydantic
import pytest
from openai.types.chat import (
    ChatCompletionChunk,
    ChatCompletionToolParam,
    ChatCompletionUserMessageParam,
)

from coordinator.answer import AnswerEvent, AnswerRequest, Delta, Resumed, Routed
from node.gateway.config import GatewayConfig
from node.gateway.debate import Debate, Turn
from node.gateway.fake import FixedView, Script, Speech
from node.gateway.trial import (
    BASE,
    BOB,
    CAROL,
    SPECIALIST,
    TRIAL_CONFIG,
    Trial,
    TrialKeys,
    open_trial,
)
from protocols import errors
from protocols.errors import DslmError
from protocols.ids import SpecialistId
from protocols.messages.ask import Chat, ChatMessage, JsonSchema, Likelihood, Likely, Text

pytestmark = pytest.mark.integration

WORDS = ("The", " sky", " is", " blue", ".")
HELLO: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "hello"}]


@asynccontextmanager
async def connected(
    script: Script, view: FixedView | None = None, config: GatewayConfig = TRIAL_CONFIG
) -> AsyncIterator[tuple[Trial, openai.AsyncOpenAI]]:
    """A trial and a strict client of it that does not try again."""
    async with (
        open_trial(script, view, config) as trial,
        openai.AsyncOpenAI(
            base_url=f"{trial.gateway.url}/v1",
            api_key="x",
            max_retries=0,
            timeout=20,
            _strict_response_validation=True,
        ) as client,
    ):
        yield trial, client


def failing(error: Exception, after: int = 0) -> Script:
    """A script that says some words, then fails."""

    async def script(request: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:  # noqa: ARG001
        if after:
            yield Routed(SpecialistId(BASE), BOB, "the only one")
        for position in range(after):
            yield Delta(BOB, position, (position,), WORDS[position])
        raise error

    return script


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    """The answer that chunks make."""
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


async def test_models_list_retrieve_and_404() -> None:
    async with connected(Speech(BOB, WORDS)) as (_, client):
        models = [model async for model in client.models.list()]
        assert [model.id for model in models] == ["auto", BASE, SPECIALIST]
        math = await client.models.retrieve(SPECIALIST)
        assert (math.id, math.owned_by) == (SPECIALIST, "lab")
        with pytest.raises(openai.NotFoundError) as caught:
            await client.models.retrieve("lab/math-130m")
    assert caught.value.code == "model_not_found"
    assert SPECIALIST in caught.value.message
    assert caught.value.request_id is not None
    assert caught.value.request_id.startswith("req_")


async def test_a_whole_chat() -> None:
    async with connected(Speech(BOB, WORDS)) as (trial, client):
        raw = await client.chat.completions.with_raw_response.create(
            model="auto", messages=HELLO, temperature=0, seed=3, extra_body={"top_k": 5}
        )
    answer = raw.parse()
    assert answer.choices[0].message.content == "The sky is blue."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 12
    assert answer.model == BASE
    assert raw.headers["x-dslm-node"] == BOB
    assert answer.model_extra is not None
    assert answer.model_extra["dslm"]["peers"] == [{"peer": BOB, "tokens": 5}]
    asked = trial.source.asked[0]
    assert asked.prompt == Chat((ChatMessage("user", "hello"),))
    assert (asked.sampling.seed, asked.sampling.top_k) == (3, 5)


async def test_the_synchronous_client() -> None:
    async with open_trial(Speech(BOB, WORDS)) as trial:

        def ask() -> tuple[str | None, str]:
            with openai.OpenAI(
                base_url=f"{trial.gateway.url}/v1", api_key="x", _strict_response_validation=True
            ) as client:
                whole = client.chat.completions.create(model="auto", messages=HELLO)
                stream = client.chat.completions.create(model="auto", messages=HELLO, stream=True)
                return whole.choices[0].message.content, text_of(list(stream))

        assert await asyncio.to_thread(ask) == ("The sky is blue.", "The sky is blue.")


async def test_a_stream_with_and_without_usage() -> None:
    async with connected(Speech(BOB, WORDS)) as (_, client):
        plain = [
            chunk
            async for chunk in await client.chat.completions.create(
                model="auto", messages=HELLO, stream=True
            )
        ]
        counted = [
            chunk
            async for chunk in await client.chat.completions.create(
                model="auto",
                messages=HELLO,
                stream=True,
                stream_options={"include_usage": True},
            )
        ]
    assert text_of(plain) == text_of(counted) == "The sky is blue."
    assert all(chunk.usage is None for chunk in plain)
    assert plain[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in plain] == [None] * 6 + ["stop"]
    assert len({(chunk.id, chunk.created) for chunk in counted}) == 1
    assert counted[-1].choices == []
    assert counted[-1].usage is not None
    assert counted[-1].usage.completion_tokens == 5
    assert all(chunk.usage is None for chunk in counted[:-1])
    assert plain[-1].model_extra is not None
    assert plain[-1].model_extra["dslm"]["specialist"] == BASE


async def test_an_answer_by_several_specialists_is_one_message() -> None:
    debate = Debate([Turn("medicine", BOB, ["70", " mg"]), Turn(SPECIALIST, CAROL, ["Yes", "."])])
    text = f"-- medicine (step 1 of 2) --\n\n70 mg\n\n-- {SPECIALIST} (step 2 of 2) --\n\nYes."
    async with connected(debate) as (_, client):
        whole = await client.chat.completions.create(
            model="auto", messages=HELLO, extra_body={"dslm": {"plan": "auto", "quality": "best"}}
        )
        assert whole.choices[0].message.content == text
        stream = await client.chat.completions.create(model="auto", messages=HELLO, stream=True)
        chunks = [chunk async for chunk in stream]
        async with client.chat.completions.stream(model="auto", messages=HELLO) as helped:
            final = await helped.get_final_completion()
    assert text_of(chunks) == text
    assert final.choices[0].message.content == text
    assert final.choices[0].finish_reason == "stop"
    assert whole.model_extra is not None
    assert [step["specialist"] for step in whole.model_extra["dslm"]["steps"]] == [
        "medicine",
        SPECIALIST,
    ]
    speakers = [(chunk.model_extra or {}).get("dslm", {}).get("step") for chunk in chunks[1:-1]]
    assert speakers == [0, 0, 0, 1, 1, 1]


async def test_the_stream_helper_puts_the_answer_together() -> None:
    async with (
        connected(Speech(BOB, WORDS)) as (_, client),
        client.chat.completions.stream(model="auto", messages=HELLO) as stream,
    ):
        answer = await stream.get_final_completion()
    assert answer.choices[0].message.content == "The sky is blue."


async def by_seed(request: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:
    """Says its seed, in as many tokens as its last digit says, and one more."""
    seed = str(request.sampling.seed)
    async for event in Speech(BOB, [seed, *"." * (int(seed) % 3)])(request):
        yield event


@pytest.mark.parametrize("stream", [False, True])
async def test_several_choices_have_their_own_seeds_and_one_usage(*, stream: bool) -> None:
    async with connected(by_seed) as (trial, client):
        if stream:
            chunks = [
                chunk
                async for chunk in await client.chat.completions.create(
                    model="auto",
                    messages=HELLO,
                    n=4,
                    seed=5,
                    stream=True,
                    stream_options={"include_usage": True},
                )
            ]
            texts = ["", "", "", ""]
            for chunk in chunks[:-1]:
                (choice,) = chunk.choices
                texts[choice.index] += choice.delta.content or ""
            assert len({chunk.id for chunk in chunks}) == 1
            ends = [one for chunk in chunks for one in chunk.choices if one.finish_reason]
            assert sorted(one.index for one in ends) == [0, 1, 2, 3]
            assert all(chunk.usage is None for chunk in chunks[:-1])
            usage = chunks[-1].usage
        else:
            answer = await client.chat.completions.create(model="auto", messages=HELLO, n=4, seed=5)
            assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
            texts = [choice.message.content or "" for choice in answer.choices]
            usage = answer.usage
            assert answer.model_extra is not None
            reports = answer.model_extra["dslm"]["choices"]
            assert [str(report["seed"]) for report in reports] == [t.rstrip(".") for t in texts]
    seeds = [asked.sampling.seed for asked in trial.source.asked]
    assert seeds[0] == 5
    assert len(set(seeds)) == 4
    assert [text.rstrip(".") for text in texts] == [str(seed) for seed in seeds]
    assert usage is not None
    assert usage.prompt_tokens == 7
    assert usage.completion_tokens == sum(1 + seed % 3 for seed in seeds)


async def test_several_choices_of_a_completion() -> None:
    async with connected(by_seed) as (trial, client):
        answer = await client.completions.create(model="auto", prompt="The", n=2, max_tokens=5)
        seeds = [asked.sampling.seed for asked in trial.source.asked]
    assert [choice.text.rstrip(".") for choice in answer.choices] == [str(seed) for seed in seeds]
    assert [choice.index for choice in answer.choices] == [0, 1]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_choice_that_fails_fails_all_and_ends_the_others(*, stream: bool) -> None:
    async def script(request: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:
        if request.sampling.seed != 5:
            raise errors.Busy("full", 7)
        await asyncio.Event().wait()
        yield Routed(SpecialistId(BASE), BOB, "the only one")

    async with connected(script) as (trial, client):
        with pytest.raises(openai.RateLimitError):
            await client.chat.completions.create(
                model="auto", messages=HELLO, n=3, seed=5, stream=stream
            )
        assert trial.source.open == 0


async def test_a_token_limit_gives_length() -> None:
    async with connected(Speech(BOB, WORDS)) as (_, client):
        answer = await client.chat.completions.create(
            model="auto", messages=HELLO, max_completion_tokens=2
        )
    assert answer.choices[0].message.content == "The sky"
    assert answer.choices[0].finish_reason == "length"


async def test_completions() -> None:
    """Streamed too, but not strictly: OpenAI's own chunks fail its client's types here.

    They have a null `finish_reason` before the last, as ours do.
    """
    async with connected(Speech(BOB, WORDS)) as (trial, client):
        whole = await client.completions.create(model="auto", prompt="The", max_tokens=5)
        loose = client.with_options(_extra_kwargs={"_strict_response_validation": False})
        chunks = [
            chunk
            async for chunk in await loose.completions.create(
                model="auto", prompt="The", max_tokens=5, stream=True
            )
        ]
    assert whole.choices[0].text == "The sky is blue."
    assert whole.usage is not None
    assert whole.usage.prompt_tokens == 7
    assert "".join(chunk.choices[0].text for chunk in chunks) == "The sky is blue."
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert trial.source.asked[0].prompt == Text("The")


async def test_an_answer_carried_on_by_another_peer_is_one_text() -> None:
    async def script(request: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:  # noqa: ARG001
        yield Routed(SpecialistId(BASE), BOB, "the only one")
        yield Delta(BOB, 0, (1,), "The sky")
        yield Resumed(BOB, CAROL, 1, "peer_lost")
        yield Delta(CAROL, 1, (2,), " is blue.")
        yield Speech(BOB, WORDS).end(2)

    async with connected(script) as (_, client):
        stream = await client.chat.completions.create(model="auto", messages=HELLO, stream=True)
        chunks = [chunk async for chunk in stream]
    assert text_of(chunks) == "The sky is blue."
    assert chunks[-1].model_extra is not None
    assert chunks[-1].model_extra["dslm"]["resumed"] == 1


ERRORS: list[tuple[DslmError, type[openai.APIStatusError], int, str]] = [
    (errors.TooLong(8192, 9000), openai.BadRequestError, 400, "context_length_exceeded"),
    (errors.Unsupported("no"), openai.BadRequestError, 400, "unsupported_parameter"),
    (errors.UnknownModel("x"), openai.NotFoundError, 404, "model_not_found"),
    (errors.Busy("full", 7), openai.RateLimitError, 429, "queue_full"),
    (errors.NoCapacity("nobody", 7), openai.InternalServerError, 503, "no_capacity"),
    (errors.PeerLost("gone"), openai.InternalServerError, 503, "peer_lost"),
    (errors.DeadlineExceeded("late"), openai.InternalServerError, 504, "timeout"),
    (errors.DslmError("odd"), openai.InternalServerError, 500, "internal_error"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("error", "kind", "status", "code"), ERRORS)
async def test_each_error_has_its_class_and_its_text(
    error: DslmError, kind: type[openai.APIStatusError], status: int, code: str, *, stream: bool
) -> None:
    async with connected(failing(error)) as (_, client):
        with pytest.raises(kind) as caught:
            await client.chat.completions.create(model="auto", messages=HELLO, stream=stream)
    assert caught.value.status_code == status
    assert caught.value.code == code
    assert caught.value.message == f"Error code: {status} - {error}"
    retry_after = {429: "7", 503: "7" if code == "no_capacity" else "1"}.get(status)
    assert caught.value.response.headers.get("retry-after") == retry_after


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"messages": []}, "messages", "invalid_value"),
        ({"n": 17}, "n", "invalid_value"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"functions": [{"name": "f"}]}, "functions", "unsupported_parameter"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"extra_body": {"dslm": {"route": "moon"}}}, "dslm.route", "invalid_value"),
    ],
)
async def test_what_cannot_be_honoured_is_a_bad_request(
    fields: dict[str, Any], param: str, code: str
) -> None:
    async with connected(Speech(BOB, WORDS)) as (trial, client):
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(**({"model": "auto", "messages": HELLO} | fields))
        assert (caught.value.param, caught.value.code) == (param, code)
        assert trial.source.asked == []


async def test_an_unknown_endpoint_and_too_large_a_body() -> None:
    config = replace(TRIAL_CONFIG, body_bytes_max=10_000)
    async with connected(Speech(BOB, WORDS), config=config) as (_, client):
        with pytest.raises(openai.NotFoundError) as unknown:
            await client.embeddings.create(model="auto", input="x")
        with pytest.raises(openai.APIStatusError) as large:
            await client.chat.completions.create(
                model="auto", messages=[{"role": "user", "content": "x" * 20_000}]
            )
    assert unknown.value.code == "unknown_url"
    assert (large.value.status_code, large.value.code) == (413, "request_too_large")


async def test_the_client_tries_again_when_that_can_help_and_only_then() -> None:
    calls = 0

    async def script(request: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise errors.Busy("full", 0)
        async for event in Speech(BOB, WORDS)(request):
            yield event

    async with connected(script) as (_, client):
        loop = asyncio.get_running_loop()
        start = loop.time()
        patient = client.with_options(max_retries=2)
        answer = await patient.chat.completions.create(model="auto", messages=HELLO)
        assert answer.choices[0].message.content == "The sky is blue."
        assert calls == 2
        assert 0.7 < loop.time() - start < 5  # Retry-After: 1
    async with connected(failing(errors.VersionError("1 is not 2"))) as (trial, client):
        with pytest.raises(openai.InternalServerError):
            await client.with_options(max_retries=2).chat.completions.create(
                model="auto", messages=HELLO
            )
        assert len(trial.source.asked) == 1


async def test_an_error_in_mid_stream_reaches_the_caller() -> None:
    async with connected(failing(errors.PeerLost("bob left"), after=2)) as (_, client):
        stream = await client.chat.completions.create(model="auto", messages=HELLO, stream=True)
        chunks = []
        with pytest.raises(openai.APIError) as caught:
            async for chunk in stream:
                chunks.append(chunk)
    assert text_of(chunks) == "The sky"
    assert (caught.value.message, caught.value.code) == ("bob left", "peer_lost")
    assert caught.value.type == "server_error"


async def test_closing_a_stream_ends_the_answer_at_its_source() -> None:
    made = 0

    async def script(request: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:  # noqa: ARG001
        nonlocal made
        yield Routed(SpecialistId(BASE), BOB, "the only one")
        for position in range(10_000):
            made += 1
            yield Delta(BOB, position, (position,), " word")
            if position == 3:
                await asyncio.Event().wait()

    async with connected(script) as (trial, client):
        stream = await client.chat.completions.create(model="auto", messages=HELLO, stream=True)
        seen = 0
        async for _ in stream:
            seen += 1
            if seen == 3:
                break
        await stream.close()
        async with asyncio.timeout(5):
            await trial.source.cut.wait()
        assert trial.source.open == 0
        assert made == 4


async def test_any_text_arrives_whole() -> None:
    pieces = [
        "\U0001f469",
        "\u200d",
        "\U0001f680",
        " na",
        "\u00ef",
        "ve\r\n\r\n",
        "data: x\n\n",
        "\u2028",
        "\u2029",
        "\u0085",
        "\x0b\x0c\x1c",
        "\x00",
        "\u6f22\u5b57",
        "\\u0041",
        '"}',
    ]
    async with connected(Speech(BOB, pieces)) as (_, client):
        stream = await client.chat.completions.create(model="auto", messages=HELLO, stream=True)
        chunks = [chunk async for chunk in stream]
        whole = await client.chat.completions.create(model="auto", messages=HELLO)
    texts = [chunk.choices[0].delta.content for chunk in chunks]
    assert texts == ["", *pieces, None]
    assert whole.choices[0].message.content == "".join(pieces)


async def test_fifty_streams_at_once_do_not_mix() -> None:
    async def script(request: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:
        async for event in Speech(BOB, [f" {request.model}"] * 40, pace=0.002)(request):
            yield event

    async with connected(script) as (trial, client):

        async def ask(name: str) -> str:
            stream = await client.chat.completions.create(model=name, messages=HELLO, stream=True)
            return text_of([chunk async for chunk in stream])

        names = [f"m{number}" for number in range(50)]
        texts = await asyncio.gather(*map(ask, names))
        assert texts == [f" {name}" * 40 for name in names]
        assert trial.source.open == 0
    assert len({request.request_id for request in trial.source.asked}) == 50


async def test_keys_are_the_clients_api_keys() -> None:
    config = replace(TRIAL_CONFIG, require_key=True)
    keys = TrialKeys({"dslm-right": "laptop"})
    async with open_trial(Speech(BOB, WORDS), config=config, keys=keys) as trial:

        def client(key: str) -> openai.AsyncOpenAI:
            url = f"{trial.gateway.url}/v1"
            return openai.AsyncOpenAI(
                base_url=url, api_key=key, max_retries=0, _strict_response_validation=True
            )

        async with client("dslm-right") as right, client("dslm-wrong") as wrong:
            answer = await right.chat.completions.create(model="auto", messages=HELLO)
            assert answer.choices[0].message.content == "The sky is blue."
            stream = await right.chat.completions.create(
                model="auto", messages=HELLO, stream=True, extra_headers={"X-DSLM-Route": "local"}
            )
            assert stream.response.headers["x-dslm-readers"] == "local"
            assert text_of([chunk async for chunk in stream]) == "The sky is blue."
            with pytest.raises(openai.AuthenticationError) as caught:
                await wrong.models.list()
    assert caught.value.code == "invalid_api_key"
    assert caught.value.request_id is not None
    assert "dslm-wrong" not in caught.value.message


async def test_a_swarm_is_named_by_a_header_and_a_wrong_route_is_refused() -> None:
    async with connected(Speech(BOB, WORDS)) as (trial, client):
        with pytest.raises(openai.NotFoundError) as unknown:
            await client.models.list(extra_headers={"X-DSLM-Swarm": "lab"})
        assert unknown.value.code == "swarm_not_found"
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(
                model="auto", messages=HELLO, extra_headers={"X-DSLM-Route": "nobody"}
            )
        assert "local, trusted, any" in refused.value.message
        assert trial.source.asked == []


def likely(word: str) -> Likelihood:
    """A token that says `word`, and two that were likely in its place."""
    top = (Likely(1, -0.1, word.encode()), Likely(2, -9_999.0, b"\xf0\x9f"))
    return Likelihood(-0.1, word.encode(), top)


async def unsure(request: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:
    """`WORDS`, the second of which shows only with the third; the last before a stop string."""
    del request
    yield Routed(SpecialistId(BASE), BOB, "the only one")
    shown = ("The", "", " sky is", " blue", "")
    for position, (word, text) in enumerate(zip(WORDS, shown, strict=True)):
        yield Delta(BOB, position, (position,), text, (likely(word),))
    yield Speech(BOB, WORDS).end(5)


async def test_logprobs_of_a_chat_streamed_and_not() -> None:
    async with connected(unsure) as (trial, client):
        whole = await client.chat.completions.create(
            model="auto", messages=HELLO, logprobs=True, top_logprobs=2
        )
        stream = await client.chat.completions.create(
            model="auto", messages=HELLO, logprobs=True, top_logprobs=2, stream=True
        )
        chunks = [chunk async for chunk in stream]
        plain = await client.chat.completions.create(model="auto", messages=HELLO)
    assert trial.source.asked[0].sampling.logprobs == 2
    assert plain.choices[0].logprobs is None
    found = whole.choices[0].logprobs
    assert found is not None
    assert found.content is not None
    assert [one.token for one in found.content] == list(WORDS[:4])
    assert found.content[1].bytes == list(b" sky")
    assert [one.logprob for one in found.content[1].top_logprobs] == [-0.1, -9_999.0]
    assert found.content[1].top_logprobs[1].bytes == [0xF0, 0x9F]
    told = [
        [token.token for token in chunk.choices[0].logprobs.content or ()]
        for chunk in chunks
        if chunk.choices[0].logprobs is not None
    ]
    assert told == [["The"], [" sky", " is"], [" blue"]]


async def test_logprobs_of_a_completion_streamed_and_not() -> None:
    async with connected(unsure) as (_, client):
        whole = await client.completions.create(model="auto", prompt="The", logprobs=2)
        loose = client.with_options(_extra_kwargs={"_strict_response_validation": False})
        stream = await loose.completions.create(model="auto", prompt="The", logprobs=2, stream=True)
        chunks = [chunk async for chunk in stream]
    found = whole.choices[0].logprobs
    assert found is not None
    assert found.tokens == list(WORDS[:4])
    assert found.text_offset == [0, 3, 7, 10]
    assert found.token_logprobs == [-0.1] * 4
    assert found.top_logprobs is not None
    assert found.top_logprobs[0] == {"The": -0.1, "\ufffd": -9_999.0}
    offsets = [
        offset
        for chunk in chunks
        if chunk.choices[0].logprobs
        for offset in chunk.choices[0].logprobs.text_offset or ()
    ]
    assert offsets == [0, 3, 7, 10]


WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}
CALL = ("One moment.", "<tool_call>", '{"name": "weather", "arguments": {"city"', ': "Oslo"}}')


@pytest.mark.parametrize("words", [(*CALL, "</tool_call>"), CALL])
async def test_tool_calls_streamed_and_not(words: tuple[str, ...]) -> None:
    async with connected(Speech(BOB, words)) as (trial, client):
        whole = await client.chat.completions.create(model="auto", messages=HELLO, tools=[WEATHER])
        async with client.chat.completions.stream(
            model="auto", messages=HELLO, tools=[WEATHER]
        ) as stream:
            streamed = await stream.get_final_completion()
    for answer in (whole, streamed):
        choice = answer.choices[0]
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content == "One moment."
        assert choice.message.tool_calls is not None
        (call,) = choice.message.tool_calls
        assert call.type == "function"
        assert call.id.startswith("call_")
        assert (call.function.name, call.function.arguments) == ("weather", '{"city": "Oslo"}')
    assert isinstance(trial.source.asked[0].prompt, Chat)
    assert "weather" in trial.source.asked[0].prompt.tools


async def test_an_answer_of_calls_only_has_no_content_and_can_be_answered() -> None:
    words = ('{"name": "weather", ', '"parameters": {}}')
    async with connected(Speech(BOB, words)) as (trial, client):
        answer = await client.chat.completions.create(model="auto", messages=HELLO, tools=[WEATHER])
        message = answer.choices[0].message
        assert message.content is None
        assert message.tool_calls is not None
        again: Any = [
            *HELLO,
            message.model_dump(exclude_none=True),
            {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "rain"},
        ]
        await client.chat.completions.create(model="auto", messages=again, tools=[WEATHER])
    prompt = trial.source.asked[1].prompt
    assert isinstance(prompt, Chat)
    assert prompt.messages[1].tool_calls[0].name == "weather"
    assert prompt.messages[2].tool_call_id == prompt.messages[1].tool_calls[0].id


async def test_without_tools_nothing_is_taken_for_a_call() -> None:
    async with connected(Speech(BOB, CALL)) as (_, client):
        answer = await client.chat.completions.create(model="auto", messages=HELLO)
        none = await client.chat.completions.create(
            model="auto", messages=HELLO, tools=[WEATHER], tool_choice="none"
        )
    assert answer.choices[0].message.content == none.choices[0].message.content == "".join(CALL)
    assert answer.choices[0].finish_reason == "stop"


async def test_the_parse_helper_asks_for_its_schema_and_reads_the_answer() -> None:
    class City(pydantic.BaseModel):
        name: str
        people: int

    words = ('{"name": "Oslo",', ' "people": 717710}')
    async with connected(Speech(BOB, words)) as (trial, client):
        answer = await client.chat.completions.parse(
            model="auto", messages=HELLO, response_format=City
        )
    assert answer.choices[0].message.parsed == City(name="Oslo", people=717710)
    constraint = trial.source.asked[0].constraint
    assert isinstance(constraint, JsonSchema)
    assert json.loads(constraint.schema)["required"] == ["name", "people"]
