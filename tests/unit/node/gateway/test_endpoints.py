"""Each endpoint over a real socket: shapes, headers, and errors in OpenAI's shape everywhere."""

import asyncio
import io
import json
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace

import aiohttp
import pytest
from yarl import URL

from coordinator.answer import AnswerEvent, AnswerRequest, Resumed, Route
from node.gateway.fake import FixedView, Speech
from node.gateway.server import Gateway
from node.gateway.trial import (
    ALICE,
    BOB,
    CAROL,
    OWNER,
    SPECIALIST,
    TRIAL_CONFIG,
    Trial,
    open_trial,
    swarm_view,
)
from node.gateway.wire import encode
from node.state import CardState, SwarmReaders
from protocols import versions
from protocols.errors import AddressInUse, Busy, ConfigError, DslmError, TooLong, UnknownModel

CHAT = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
SPEECH = Speech(BOB, ["One", " two", " three"])


@pytest.fixture
async def trial() -> AsyncIterator[Trial]:
    async with open_trial(SPEECH) as opened:
        yield opened


@pytest.fixture
async def http(trial: Trial) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(base_url=trial.gateway.url) as session:
        yield session


async def error_of(response: aiohttp.ClientResponse) -> dict[str, str | None]:
    """The error in a body that holds nothing else."""
    body = await response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"]
    assert response.headers["x-request-id"].startswith("req_")
    error: dict[str, str | None] = body["error"]
    return error


async def test_a_whole_chat_answer(trial: Trial, http: aiohttp.ClientSession) -> None:
    async with http.post("/v1/chat/completions", json=CHAT) as response:
        assert response.status == 200
        assert response.content_type == "application/json"
        assert response.headers["x-dslm-node"] == BOB
        assert response.headers["x-dslm-model"] == "smollm2-135m"
        body = await response.json()
    assert trial.source.asked[0].request_id == response.headers["x-request-id"]
    assert body == {
        "id": "chatcmpl-" + response.headers["x-request-id"].removeprefix("req_"),
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "smollm2-135m",
        "system_fingerprint": None,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "One two three", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
        "dslm": {
            "specialist": "smollm2-135m",
            "peers": [{"peer": BOB, "tokens": 3}],
            "why": "it is the only one",
            "first_token_ms": 125.0,
            "tokens_per_second": 20.0,
            "resumed": 0,
            "seed": trial.source.asked[0].sampling.seed,
        },
    }


async def test_token_ids_and_the_token_limit(http: aiohttp.ClientSession) -> None:
    body = CHAT | {"max_tokens": 2, "dslm": {"return_token_ids": True}}
    async with http.post("/v1/chat/completions", json=body) as response:
        answer = await response.json()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["dslm"]["token_ids"] == [100, 101]


async def test_a_single_token_has_no_speed(http: aiohttp.ClientSession) -> None:
    async with http.post("/v1/chat/completions", json=CHAT | {"max_tokens": 1}) as response:
        assert (await response.json())["dslm"]["tokens_per_second"] is None


async def test_a_whole_completion(http: aiohttp.ClientSession) -> None:
    async with http.post("/v1/completions", json={"model": "auto", "prompt": "hi"}) as response:
        body = await response.json()
    assert body["object"] == "text_completion"
    assert body["id"].startswith("cmpl-")
    assert body["choices"] == [
        {"text": "One two three", "index": 0, "logprobs": None, "finish_reason": "stop"}
    ]
    assert body["usage"]["total_tokens"] == 10


async def test_held_back_text_and_a_resumed_answer() -> None:
    async def script(request: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:
        async for event in Speech(BOB, ["One"])(request):
            if type(event).__name__ == "Completed":
                yield Resumed(BOB, CAROL, 1, "peer_lost")
                yield replace(SPEECH.end(1), text=" END")
            else:
                yield event

    async with (
        open_trial(script) as trial,
        aiohttp.ClientSession(base_url=trial.gateway.url) as http,
        http.post("/v1/chat/completions", json=CHAT) as response,
    ):
        body = await response.json()
    assert body["choices"][0]["message"]["content"] == "One END"
    assert body["dslm"]["resumed"] == 1
    assert response.headers["x-dslm-node"] == CAROL


async def test_models_are_listed_and_retrieved(trial: Trial, http: aiohttp.ClientSession) -> None:
    async with http.get("/v1/models") as response:
        body = await response.json()
    assert body["object"] == "list"
    assert [model["id"] for model in body["data"]] == ["auto", "smollm2-135m", SPECIALIST]
    math = body["data"][2]
    assert math["object"] == "model"
    assert math["created"] == 1_700_000_000
    assert (math["owned_by"], math["name"], math["parent"]) == ("lab", "math-135m", "smollm2-135m")
    assert math["context_length"] == 8_192
    assert math["dslm"]["peers"] == [BOB, CAROL]
    assert math["dslm"]["nodes"] == 2
    for path in (f"/v1/models/{SPECIALIST}", "/v1/models/lab%2Fmath-135m"):
        async with http.get(URL(trial.gateway.url + path, encoded=True)) as response:
            assert await response.json() == math


async def test_an_unknown_model_gets_the_nearest_names(http: aiohttp.ClientSession) -> None:
    async with http.get("/v1/models/smollm2-130m") as response:
        assert response.status == 404
        error = await error_of(response)
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert "smollm2-135m" in str(error["message"])


async def test_an_empty_swarm_lists_nothing_and_is_not_ready() -> None:
    async with (
        open_trial(SPEECH, FixedView()) as trial,
        aiohttp.ClientSession(base_url=trial.gateway.url) as http,
    ):
        async with http.get("/v1/models") as response:
            assert (await response.json())["data"] == []
        async with http.get("/ready") as response:
            assert response.status == 503
            assert int(response.headers["Retry-After"]) >= 1
            assert "dslm join" in str((await error_of(response))["message"])
        async with http.get("/health") as response:
            assert response.status == 200


async def test_health_ready_version_metrics(trial: Trial, http: aiohttp.ClientSession) -> None:
    for path, expected in [
        ("/health", {"status": "ok"}),
        ("/ready", {"status": "ready"}),
        (
            "/version",
            {
                "version": versions.SOFTWARE,
                "protocols": list(versions.ALL),
                "schema_version": 1,
            },
        ),
    ]:
        async with http.get(path) as response:
            assert (response.status, await response.json()) == (200, expected)
    async with http.get("/metrics") as response:
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert "dslm_peers 1" in await response.text()
    trial.view.draining = True
    async with http.get("/ready") as response:
        assert (response.status, (await error_of(response))["code"]) == (503, "draining")


async def test_admin_routes_give_the_views_shapes(http: aiohttp.ClientSession) -> None:
    async with http.get("/api/v1/state") as response:
        assert (await response.json())["peer"] == ALICE
    async with http.get("/api/v1/peers") as response:
        assert [peer["peer"] for peer in (await response.json())["peers"]] == [ALICE, BOB, CAROL]
    async with http.get("/api/v1/models") as response:
        assert (await response.json())["models"][1]["id"] == SPECIALIST
    async with http.post("/api/v1/ping", json={"peer": BOB, "count": 2}, headers=OWNER) as response:
        assert (await response.json())["samples_ms"] == [1.0, 1.0]
    async with http.post("/api/v1/ping", json={"peer": BOB, "count": 0}, headers=OWNER) as response:
        assert response.status == 400
        assert (await error_of(response))["param"] == "count"


async def test_what_is_thought_of_a_card_is_told_to_the_owner_only() -> None:
    view = swarm_view()
    view.known_cards = (CardState(b"sealed", is_local=False, trust=0.5, agreement=0.9),)
    async with (
        open_trial(Speech(BOB, ["One"]), view) as trial,
        aiohttp.ClientSession(base_url=trial.gateway.url) as http,
    ):
        async with http.get("/api/v1/cards?specialist=law") as response:
            (card,) = (await response.json())["cards"]
            assert (card["sealed"], card["trust"], card["agreement"]) == ("c2VhbGVk", None, None)
        async with http.get("/api/v1/cards", headers=OWNER) as response:
            (card,) = (await response.json())["cards"]
            assert (card["trust"], card["agreement"]) == (0.5, 0.9)


async def test_answers_say_who_can_read_the_prompt() -> None:
    view = swarm_view()
    view.swarm_readers += (SwarmReaders("lab", "private", False, "Its members."),)
    cases = [
        ({}, "any", "public", "anyone-who-serves"),
        ({"X-DSLM-Route": "trusted"}, "trusted", "public", "trusted-peers"),
        ({"X-DSLM-Route": "local"}, "local", "public", "local"),
        ({"X-DSLM-Swarm": "lab"}, "any", "lab", "members"),
        ({"X-DSLM-Swarm": "lab", "X-DSLM-Route": "trusted"}, "trusted", "lab", "members"),
        ({"X-DSLM-Swarm": "lab", "X-DSLM-Route": "local"}, "local", "lab", "local"),
    ]
    async with (
        open_trial(SPEECH, view) as trial,
        aiohttp.ClientSession(base_url=trial.gateway.url) as http,
    ):
        for headers, *expected in cases:
            for stream in (False, True):
                body = CHAT | {"stream": stream}
                async with http.post(
                    "/v1/chat/completions", json=body, headers=headers
                ) as response:
                    found = [response.headers[f"x-dslm-{n}"] for n in ("route", "swarm", "readers")]
                    assert found == expected
                asked = trial.source.asked[-1]
                assert [asked.route, asked.swarm] == expected[:2]


async def test_the_configured_route_is_the_default() -> None:
    config = replace(TRIAL_CONFIG, route=Route.LOCAL)
    async with (
        open_trial(SPEECH, config=config) as trial,
        aiohttp.ClientSession(base_url=trial.gateway.url) as http,
    ):
        for headers, expected in [({}, Route.LOCAL), ({"X-DSLM-Route": "any"}, Route.ANY)]:
            async with http.post("/v1/chat/completions", json=CHAT, headers=headers) as response:
                assert response.headers["x-dslm-route"] == expected
            assert trial.source.asked[-1].route is expected
        async with http.get("/api/v1/readers") as response:
            assert (await response.json())["route"] == "local"


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/auto", "/v1/chat/completions"])
async def test_a_swarm_that_the_node_is_not_in_is_refused(
    trial: Trial, http: aiohttp.ClientSession, path: str
) -> None:
    method, headers = "POST" if "chat" in path else "GET", {"X-DSLM-Swarm": "lab"}
    async with http.request(method, path, json=CHAT, headers=headers) as response:
        assert response.status == 404
        error = await error_of(response)
    assert error["code"] == "swarm_not_found"
    assert "'lab'" in str(error["message"])
    assert "public" in str(error["message"])
    assert trial.source.asked == []


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "unknown_url"),
        ("POST", "/v1/responses", 404, "unknown_url"),
        ("POST", "/v1/embeddings", 404, "unknown_url"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("POST", "/", 405, "method_not_allowed"),
    ],
)
async def test_wrong_places_answer_in_openais_shape(
    http: aiohttp.ClientSession, method: str, path: str, status: int, code: str
) -> None:
    async with http.request(method, path) as response:
        assert response.status == status
        error = await error_of(response)
        assert ("Allow" in response.headers) == (status == 405)
    assert (error["type"], error["code"]) == ("invalid_request_error", code)


async def test_too_large_a_body_is_refused(http: aiohttp.ClientSession) -> None:
    body = io.BytesIO(b" " * (TRIAL_CONFIG.body_bytes_max + 1))
    async with http.post("/v1/chat/completions", data=body) as response:
        assert response.status == 413
        assert (await error_of(response))["code"] == "request_too_large"


async def test_a_damaged_body_is_the_callers_fault(http: aiohttp.ClientSession) -> None:
    async with http.post(
        "/v1/chat/completions",
        data=b"this is not gzip",
        headers={"Content-Encoding": "gzip", "Content-Type": "application/json"},
    ) as response:
        assert response.status == 400
        assert (await error_of(response))["type"] == "invalid_request_error"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (UnknownModel("lab/x", ("lab/math-135m",)), 404, "model_not_found"),
        (TooLong(8192, 9000), 400, "context_length_exceeded"),
        (Busy("full", 2), 429, "queue_full"),
    ],
)
async def test_an_early_error_has_its_status_streamed_or_not(
    error: DslmError, status: int, code: str, *, stream: bool
) -> None:
    async def script(request: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:
        if request.budget < 0:
            yield SPEECH.end(0)
        raise error

    async with (
        open_trial(script) as trial,
        aiohttp.ClientSession(base_url=trial.gateway.url) as http,
        http.post("/v1/chat/completions", json=CHAT | {"stream": stream}) as response,
    ):
        assert response.status == status
        assert (await error_of(response))["code"] == code
        assert response.headers.get("Retry-After") == ("2" if status == 429 else None)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_defect_of_ours_tells_the_requests_id_and_nothing_else(
    caplog: pytest.LogCaptureFixture, *, stream: bool
) -> None:
    async def script(request: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:
        if request.budget < 0:
            yield SPEECH.end(0)
        raise ZeroDivisionError("secret detail")

    async with (
        open_trial(script) as trial,
        aiohttp.ClientSession(base_url=trial.gateway.url) as http,
        http.post("/v1/chat/completions", json=CHAT | {"stream": stream}) as response,
    ):
        assert response.status == 500
        error = await error_of(response)
    assert response.headers["x-should-retry"] == "false"
    assert response.headers["x-request-id"] in str(error["message"])
    assert "secret" not in str(error)
    # The log says where, but not what the error says: that may be part of a prompt.
    assert f"{response.headers['x-request-id']} failed: ZeroDivisionError at " in caplog.text
    assert "secret detail" not in caplog.text


async def test_a_defect_in_the_view_has_a_shape_too(
    trial: Trial, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> str:
        raise KeyError("secret")

    monkeypatch.setattr(FixedView, "metrics", lambda self: broken())  # noqa: ARG005
    async with http.get("/metrics") as response:
        assert (response.status, (await error_of(response))["code"]) == (500, "internal_error")
    assert trial.gateway.running == 0


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:7777", 200),
        ("LOCALHOST.", 200),
        ("127.9.9.9:1", 200),
        ("[::1]:7777", 200),
        ("chat.localhost", 200),
        ("evil.example", 403),
        ("evil.example:7777", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("192.168.1.7:7777", 403),
        ("[oops", 403),
        ("", 403),
    ],
)
async def test_a_name_that_is_not_ours_is_refused(
    http: aiohttp.ClientSession, host: str, status: int
) -> None:
    async with http.get("/v1/models", headers={"Host": host}) as response:
        assert response.status == status
        if status == 403:
            assert (await error_of(response))["type"] == "permission_error"


@pytest.mark.parametrize(
    ("origin", "is_friend"),
    [
        ("http://localhost:3000", True),
        ("http://127.0.0.1", True),
        ("https://evil.example", False),
        ("http://localhost.evil.example", False),
        ("null", False),
        ("file://localhost", False),
        ("chrome-extension://localhost", False),
    ],
)
async def test_foreign_pages_are_kept_out(
    trial: Trial, http: aiohttp.ClientSession, origin: str, *, is_friend: bool
) -> None:
    headers = {"Origin": origin}
    async with http.post("/v1/chat/completions", json=CHAT, headers=headers) as response:
        assert response.status == (200 if is_friend else 403)
        allowed = response.headers.get("Access-Control-Allow-Origin")
        assert allowed == (origin if is_friend else None)
    assert len(trial.source.asked) == int(is_friend)
    headers |= {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
    }
    async with http.options("/v1/chat/completions", headers=headers) as response:
        assert response.status == (204 if is_friend else 403)
        allowed = response.headers.get("Access-Control-Allow-Headers")
        assert allowed == ("authorization,content-type,x-stainless-os" if is_friend else None)


async def test_the_nodes_own_page_is_a_friend(trial: Trial, http: aiohttp.ClientSession) -> None:
    headers = {"Origin": trial.gateway.url}
    async with http.post("/v1/chat/completions", json=CHAT, headers=headers) as response:
        assert response.status == 200


async def test_a_taken_port_says_what_to_do(trial: Trial) -> None:
    port = int(trial.gateway.url.rpartition(":")[2])
    with pytest.raises(AddressInUse, match=f"Port {port} .*dslm status.*DSLM_API_LISTEN"):
        async with open_trial(SPEECH, config=replace(TRIAL_CONFIG, port=port)):
            pytest.fail("two gateways on one port")
    assert isinstance(trial.gateway, Gateway)


async def test_an_address_that_cannot_be_had_says_so() -> None:
    with pytest.raises(ConfigError, match=r"api\.listen"):
        async with open_trial(SPEECH, config=replace(TRIAL_CONFIG, host="192.0.2.1")):
            pytest.fail("listening on an address of nobody's")


async def test_stopping_twice_is_harmless_and_frees_the_port(trial: Trial) -> None:
    url = trial.gateway.url
    await trial.gateway.stop()
    await trial.gateway.stop()
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.ClientConnectorError):
            await http.get(f"{url}/health")


async def test_many_answers_at_once_do_not_mix() -> None:
    async def script(request: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:
        async for event in Speech(BOB, [request.model] * 5)(request):
            await asyncio.sleep(0)
            yield event

    async with (
        open_trial(script) as trial,
        aiohttp.ClientSession(base_url=trial.gateway.url) as http,
    ):

        async def ask(name: str) -> str:
            async with http.post("/v1/chat/completions", json=CHAT | {"model": name}) as response:
                text: str = (await response.json())["choices"][0]["message"]["content"]
                return text

        names = [f"m{number}" for number in range(40)]
        assert await asyncio.gather(*map(ask, names)) == [name * 5 for name in names]
    ids = {request.request_id for request in trial.source.asked}
    assert len(ids) == 40


def test_json_stays_on_one_line_for_every_reader() -> None:
    text = "a\u2028b\u2029c\u0085d\ne\u00e9\U0001f308"
    data = encode({"text": text})
    assert len(data.decode().splitlines()) == 1
    assert json.loads(data) == {"text": text}
