"""Streams byte by byte: order of frames, held status, keep-alives, late errors, clients that go."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from coordinator.answer import AnswerEvent, AnswerRequest, Delta, Resumed, Routed, Score, Waiting
from node.gateway.config import GatewayConfig
from node.gateway.fake import Script, Speech
from node.gateway.trial import BOB, CAROL, SPECIALIST, TRIAL_CONFIG, Trial, open_trial
from protocols.errors import PeerLost
from protocols.ids import SpecialistId

CHAT = {"model": "auto", "messages": [{"role": "user", "content": "hi"}], "stream": True}
SPEECH = Speech(BOB, ["One", " two"])
ROUTED = Routed(SpecialistId(SPECIALIST), BOB, "near", (Score(SpecialistId(SPECIALIST), 0.61239),))


@asynccontextmanager
async def streaming(
    script: Script, config: GatewayConfig = TRIAL_CONFIG, **fields: object
) -> AsyncIterator[tuple[Trial, aiohttp.ClientResponse]]:
    """A trial and the response to one streamed chat."""
    async with (
        open_trial(script, config=config) as trial,
        aiohttp.ClientSession(base_url=trial.gateway.url) as http,
        http.post("/v1/chat/completions", json=CHAT | fields) as response,
    ):
        yield trial, response


async def frames_of(response: aiohttp.ClientResponse) -> list[str]:
    """All frames, without the empty lines that end them."""
    text = await response.text()
    assert text.endswith("\n\n")
    assert "\r" not in text
    return text[:-2].split("\n\n")


def chunks_of(frames: list[str]) -> list[Any]:
    """The JSON of the data frames before the last, which must be [DONE]."""
    data = [frame.removeprefix("data: ") for frame in frames if frame.startswith("data: ")]
    assert data.pop() == "[DONE]"
    return [json.loads(one) for one in data]


async def next_frame(response: aiohttp.ClientResponse) -> str:
    """One frame."""
    return (await response.content.readuntil(b"\n\n")).decode().removesuffix("\n\n")


async def test_the_exact_frames_of_a_short_answer() -> None:
    async with streaming(SPEECH, stream_options={"include_usage": True}) as (trial, response):
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert response.headers["Cache-Control"] == "no-cache"
        assert response.headers["X-Accel-Buffering"] == "no"
        assert response.headers["x-dslm-node"] == BOB
        assert response.headers["x-dslm-model"] == "smollm2-135m"
        assert "Content-Encoding" not in response.headers
        frames = await frames_of(response)
    assert frames[0] == ": ping"
    assert frames[1].startswith(': dslm {"phase":"routed","specialist":"smollm2-135m"')
    chunks = chunks_of(frames)
    common = {
        "id": "chatcmpl-" + response.headers["x-request-id"].removeprefix("req_"),
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "smollm2-135m",
        "system_fingerprint": None,
        "usage": None,
    }

    def chunk(delta: dict[str, str], reason: str | None = None) -> dict[str, object]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return common | {"choices": [choice]}

    report = chunks[3].pop("dslm")
    assert chunks == [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "One"}),
        chunk({"content": " two"}),
        chunk({}, "stop"),
        common
        | {
            "choices": [],
            "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
        },
    ]
    assert report["peers"] == [{"peer": BOB, "tokens": 2}]
    assert report["seed"] == trial.source.asked[0].sampling.seed
    assert frames[-1] == "data: [DONE]"


async def test_usage_is_absent_unless_asked_for() -> None:
    async with streaming(SPEECH) as (_, response):
        chunks = chunks_of(await frames_of(response))
    assert len(chunks) == 4
    assert not any("usage" in chunk for chunk in chunks)


async def test_empty_texts_make_no_chunks_and_held_back_text_comes_last() -> None:
    async def script(request: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:  # noqa: ARG001
        yield ROUTED
        yield Delta(BOB, 0, (1,), "")
        yield Delta(BOB, 1, (2,), "\U0001f308")
        yield replace(SPEECH.end(2), text=" END")

    async with streaming(script, dslm={"return_token_ids": True}) as (_, response):
        chunks = chunks_of(await frames_of(response))
    texts = [chunk["choices"][0]["delta"].get("content") for chunk in chunks]
    assert texts == ["", "\U0001f308", " END", None]
    assert chunks[-1]["dslm"]["token_ids"] == [1, 2]


async def test_events_of_the_swarm_are_comments() -> None:
    async def script(request: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:  # noqa: ARG001
        yield ROUTED
        yield Waiting(BOB, "queued", 2)
        yield Delta(BOB, 0, (1,), "One")
        yield Resumed(BOB, CAROL, 1, "peer_lost")
        yield Delta(CAROL, 1, (2,), " two")
        yield SPEECH.end(2)

    async with streaming(script) as (_, response):
        frames = await frames_of(response)
    notes = [json.loads(frame[7:]) for frame in frames if frame.startswith(": dslm ")]
    assert notes == [
        {
            "phase": "routed",
            "specialist": SPECIALIST,
            "peer": BOB,
            "why": "near",
            "scores": {SPECIALIST: 0.6124},
            "second_choice": None,
        },
        {"phase": "queued", "peer": BOB, "ahead": 2},
        {
            "phase": "resumed",
            "from_peer": BOB,
            "to_peer": CAROL,
            "position": 1,
            "reason": "peer_lost",
        },
    ]
    kinds = ["note" if frame.startswith(": dslm") else frame[:5] for frame in frames]
    assert kinds[:3] == [": pin", "note", "note"]
    assert kinds.index("note", 3) == 5  # after the role and "One", before " two"
    assert chunks_of(frames)[-1]["dslm"]["resumed"] == 1


async def test_completions_stream_in_their_own_shape() -> None:
    async with (
        open_trial(SPEECH) as trial,
        aiohttp.ClientSession(base_url=trial.gateway.url) as http,
        http.post(
            "/v1/completions",
            json={
                "model": "auto",
                "prompt": "x",
                "stream": True,
                "stream_options": {"include_usage": True},
            },
        ) as response,
    ):
        chunks = chunks_of(await frames_of(response))
    choices = [chunk["choices"] for chunk in chunks]
    assert [choice[0]["text"] for choice in choices[:3]] == ["One", " two", ""]
    assert [choice[0]["finish_reason"] for choice in choices[:3]] == [None, None, "stop"]
    assert choices[3] == []
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert [chunk["usage"] and chunk["usage"]["total_tokens"] for chunk in chunks] == [
        None,
        None,
        None,
        9,
    ]


class Gated:
    """Routes, then waits for `go` before each token; ends with `error` if there is one."""

    def __init__(self, tokens: int, error: Exception | None = None) -> None:
        self.go = asyncio.Semaphore(0)
        self.tokens = tokens
        self.error = error

    async def __call__(self, request: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:
        """The script."""
        del request
        yield ROUTED
        for position in range(self.tokens):
            await self.go.acquire()
            yield Delta(BOB, position, (position,), f" {position}")
        await self.go.acquire()
        if self.error is not None:
            raise self.error
        yield SPEECH.end(self.tokens)


async def test_the_status_is_held_only_so_long_and_silence_is_filled() -> None:
    gated = Gated(1)
    config = replace(TRIAL_CONFIG, hold=0.02, heartbeat=0.02)
    async with streaming(gated, config) as (_, response):
        assert response.headers["x-dslm-model"] == SPECIALIST
        assert await next_frame(response) == ": ping"
        assert (await next_frame(response)).startswith(': dslm {"phase":"routed"')
        assert await next_frame(response) == ": ping"
        assert await next_frame(response) == ": ping"
        gated.go.release()
        gated.go.release()
        rest = await frames_of(response)
    texts = [chunk["choices"][0]["delta"].get("content") for chunk in chunks_of(rest)]
    assert texts == ["", " 0", None]


async def test_nothing_goes_out_while_the_status_is_held() -> None:
    gated = Gated(1, PeerLost("gone"))
    async with (
        open_trial(gated, config=replace(TRIAL_CONFIG, hold=60)) as trial,
        aiohttp.ClientSession(base_url=trial.gateway.url) as http,
        asyncio.TaskGroup() as group,
    ):

        async def post() -> int:
            async with http.post("/v1/chat/completions", json=CHAT) as response:
                return response.status

        task = group.create_task(post())
        await trial.source.begun.wait()
        _, pending = await asyncio.wait({task}, timeout=0.1)
        assert pending
        gated.go.release()
    assert task.result() == 200


async def test_an_error_while_the_status_is_held_has_its_status() -> None:
    gated = Gated(0, PeerLost("gone"))
    gated.go.release()
    async with streaming(gated, replace(TRIAL_CONFIG, hold=60)) as (_, response):
        assert response.status == 503
        assert (await response.json())["error"]["code"] == "peer_lost"


@pytest.mark.parametrize("tokens", [0, 1])
async def test_a_late_error_is_a_frame_and_the_stream_still_ends_well(tokens: int) -> None:
    gated = Gated(tokens, PeerLost("bob left"))
    async with streaming(gated, replace(TRIAL_CONFIG, hold=0.01)) as (trial, response):
        assert await next_frame(response) == ": ping"
        for _ in range(tokens + 1):
            gated.go.release()
        frames = await frames_of(response)
        assert trial.source.open == 0
    assert frames[-1] == "data: [DONE]"
    assert chunks_of(frames)[-1] == {
        "error": {
            "message": "bob left",
            "type": "server_error",
            "param": None,
            "code": "peer_lost",
        }
    }


async def test_a_late_defect_hides_its_details(caplog: pytest.LogCaptureFixture) -> None:
    gated = Gated(1, ZeroDivisionError("secret"))
    gated.go.release()
    gated.go.release()
    async with streaming(gated) as (_, response):
        error = chunks_of(await frames_of(response))[-1]["error"]
    assert error["code"] == "internal_error"
    assert response.headers["x-request-id"] in error["message"]
    assert "secret" not in error["message"]
    assert "ZeroDivisionError at test_stream.py" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_takes_too_long_ends(*, stream: bool) -> None:
    async with streaming(Gated(1), stream=stream, dslm={"budget": 0.03}) as (trial, response):
        assert response.status == 504
        assert (await response.json())["error"]["code"] == "timeout"
        assert trial.source.open == 0


@pytest.mark.parametrize("hold", [0.01, 60.0])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_ends_the_answer_at_once(hold: float, *, stream: bool) -> None:
    """Before the status, while it is held, and after it, streamed or not."""
    gated = Gated(3)
    config = replace(TRIAL_CONFIG, hold=hold)
    async with open_trial(gated, config=config) as trial:
        async with asyncio.timeout(10):
            reader, writer = await _post_raw(trial, CHAT | {"stream": stream})
            await trial.source.begun.wait()
            if stream and hold < 1:
                await reader.readuntil(b": ping\n\n")
            writer.close()
            await trial.source.cut.wait()
        assert trial.source.open == 0


async def test_a_client_that_leaves_in_mid_answer_ends_it_without_another_token() -> None:
    gated = Gated(1_000)
    made = 0

    async def script(request: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:
        nonlocal made
        async for event in gated(request):
            made += 1
            yield event

    async with open_trial(script) as trial, asyncio.timeout(10):
        reader, writer = await _post_raw(trial, CHAT)
        for _ in range(5):
            gated.go.release()
        await reader.readuntil(b'" 4"')
        writer.close()
        await trial.source.cut.wait()
        assert made == 6
        assert trial.source.open == 0


async def test_a_client_that_does_not_read_holds_the_source_back() -> None:
    made = 0

    async def script(request: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:  # noqa: ARG001
        nonlocal made
        yield ROUTED
        for position in range(20_000):
            made += 1
            yield Delta(BOB, position, (position,), "x" * 10_000)
        yield SPEECH.end(20_000)

    async with open_trial(script) as trial, asyncio.timeout(20):
        _, writer = await _post_raw(trial, CHAT)
        seen = -1
        while seen != made or not made:
            seen = made
            await asyncio.sleep(0.1)  # until nothing moves any more
        assert made < 10_000
        writer.transport.abort()
        await trial.source.cut.wait()


@pytest.mark.parametrize("is_started", [False, True])
async def test_stopping_the_node_ends_streams_with_a_word(*, is_started: bool) -> None:
    gated = Gated(3)
    config = replace(TRIAL_CONFIG, hold=0.01 if is_started else 60, drain=0.02)
    async with open_trial(gated, config=config) as trial, asyncio.timeout(10):
        reader, writer = await _post_raw(trial, CHAT)
        await trial.source.begun.wait()
        if is_started:
            await reader.readuntil(b": ping\n\n")
        await trial.gateway.stop()
        rest = await reader.read()
        writer.close()
        assert trial.source.open == 0
    assert b'"code":"draining"' in rest
    assert (b"data: [DONE]" in rest) == is_started
    assert rest.startswith(b"HTTP/1.1 503") != is_started


async def _post_raw(
    trial: Trial, body: dict[str, object]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A chat sent over a bare socket, which tests can close as they like."""
    host, _, port = trial.gateway.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    data = json.dumps(body).encode()
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data)
    )
    await writer.drain()
    return reader, writer
