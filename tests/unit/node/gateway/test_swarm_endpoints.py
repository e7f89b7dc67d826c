"""The verbs of swarms, and joins that tell each check as it is done."""

import asyncio
import base64
from collections.abc import AsyncGenerator, AsyncIterator

import aiohttp
import msgspec
import pytest

from node.gateway.fake import FixedView, Speech
from node.gateway.trial import ALICE, BOB, CAROL, OWNER, Trial, open_trial, swarm_view
from node.state import SCHEMA_VERSION, Check, JoinReport, SwarmReaders
from protocols.errors import PeerUnreachable

LAB = SwarmReaders("lab", "private", False, "Its members.")


@pytest.fixture
async def trial() -> AsyncIterator[Trial]:
    view = swarm_view()
    view.swarm_readers += (LAB,)
    async with open_trial(Speech(BOB, ["x"]), view) as opened:
        yield opened


@pytest.fixture
async def http(trial: Trial) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(base_url=trial.gateway.url, headers=OWNER) as session:
        yield session


async def names_of(response: aiohttp.ClientResponse) -> dict[str, bool]:
    assert response.status == 200, await response.text()
    return {one["name"]: one["is_current"] for one in (await response.json())["swarms"]}


async def test_swarms_are_listed_used_loaded_and_left(http: aiohttp.ClientSession) -> None:
    async with http.get("/api/v1/swarms") as response:
        assert await names_of(response) == {"public": True, "lab": False}
    async with http.post("/api/v1/swarms/lab/use") as response:
        assert await names_of(response) == {"public": False, "lab": True}
    async with http.get("/api/v1/readers") as response:
        body = await response.json()
    assert (body["schema_version"], body["route"]) == (1, "any")
    assert body["swarms"][1] == {
        "name": "lab",
        "kind": "private",
        "is_current": True,
        "readers": "Its members.",
    }
    async with http.post("/api/v1/swarms/load", json={"name": "club"}) as response:
        assert "club" in await names_of(response)
    async with http.post("/api/v1/swarms/lab/leave", json={}) as response:
        assert await names_of(response) == {"public": True, "club": False}


async def test_members_and_invites(http: aiohttp.ClientSession) -> None:
    async with http.get("/api/v1/swarms/lab/members") as response:
        body = await response.json()
    assert body["swarm"] == "lab"
    assert [one["peer"] for one in body["members"]] == [ALICE, BOB, CAROL]
    wanted = {"roles": ["user", "node"], "uses": 3, "lifetime": 3600}
    async with http.post("/api/v1/swarms/lab/invite", json=wanted) as response:
        body = await response.json()
    assert (body["roles"], body["uses"], body["expires_at"]) == (["user", "node"], 3, 3600.0)
    async with http.post("/api/v1/swarms/lab/withdraw", json={"invite": body["invite"]}) as taken:
        assert (await taken.json())["swarm"] == "lab"
    async with http.post("/api/v1/swarms/lab/withdraw", json={"invite": "dslm:other"}) as refused:
        assert refused.status == 400


@pytest.mark.parametrize(
    ("path", "body", "parameter"),
    [
        ("lab/invite", {"roles": ["king"], "uses": 1, "lifetime": 1}, "roles[0]"),
        ("lab/invite", {"roles": ["node"], "uses": 0, "lifetime": 1}, "uses"),
        ("lab/invite", {"roles": ["node"], "uses": 1, "lifetime": 0}, "lifetime"),
        ("lab/invite", {"roles": ["node"], "uses": 1, "lifetime": 1e12}, "lifetime"),
        ("lab/invite", {"uses": 1, "lifetime": 1}, "roles"),
        ("lab/withdraw", {}, "invite"),
        ("load", {}, "name"),
        ("load", {"name": "x" * 97}, "name"),
        ("lab/documents", {"documents": []}, "documents"),
        ("lab/documents", {"documents": ["not base64!"]}, "documents[0]"),
        ("lab/documents", {"documents": [""]}, "documents[0]"),
        ("lab/documents", {"documents": ["AAAA"] * 99}, "documents"),
    ],
)
async def test_bodies_are_checked(
    http: aiohttp.ClientSession, path: str, body: object, parameter: str
) -> None:
    async with http.post(f"/api/v1/swarms/{path}", json=body) as response:
        assert response.status == 400
        assert (await response.json())["error"]["param"] == parameter


async def test_documents_go_both_ways_byte_by_byte(
    trial: Trial, http: aiohttp.ClientSession
) -> None:
    documents = (bytes(range(256)), b"\x00")
    body = {"documents": [base64.b64encode(one).decode() for one in documents]}
    async with http.post("/api/v1/swarms/lab/documents", json=body) as response:
        assert response.status == 200
    assert trial.view.published == {"lab": documents}
    async with http.get("/api/v1/swarms/lab/documents") as response:
        assert await response.json() == {"schema_version": 1, "swarm": "lab"} | body


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "swarms/none/members"),
        ("POST", "swarms/none/invite"),
        ("POST", "swarms/none/use"),
        ("POST", "swarms/none/leave"),
        ("GET", "swarms/none/documents"),
        ("POST", "swarms/none/documents"),
        ("GET", "state?swarm=none"),
        ("GET", "peers?swarm=none"),
        ("GET", "models?swarm=none"),
    ],
)
async def test_a_swarm_that_the_node_is_not_in(
    http: aiohttp.ClientSession, method: str, path: str
) -> None:
    async with http.request(method, f"/api/v1/{path}") as response:
        assert response.status == 404
        error = (await response.json())["error"]
    assert error["code"] == "swarm_not_found"
    assert "public, lab" in error["message"]


@pytest.mark.parametrize("path", ["state", "peers", "models"])
async def test_one_can_look_into_each_swarm(
    trial: Trial, http: aiohttp.ClientSession, path: str
) -> None:
    for query, name in [("", "public"), ("?swarm=lab", "lab")]:
        async with http.get(f"/api/v1/{path}{query}") as response:
            assert response.status == 200
        assert trial.view.asked_swarms[-1] == name


async def test_a_join_ends_with_its_report(trial: Trial, http: aiohttp.ClientSession) -> None:
    target = f"/ip4/127.0.0.1/tcp/1/p2p/{BOB}"
    async with http.post("/api/v1/join", json={"target": target}) as response:
        assert response.content_type == "application/x-ndjson"
        lines = [msgspec.json.decode(line) for line in (await response.text()).splitlines()]
    checks = [
        {"name": name, "ok": True, "detail": "good", "fix": ""} for name in ("invite", "dial")
    ]
    assert lines[:2] == checks
    assert lines[2] == {"schema_version": 1, "joined": True, "peer": BOB, "checks": checks}
    assert trial.view.joined == [target]


async def test_each_check_comes_when_it_is_done() -> None:
    go = asyncio.Event()

    class SlowView(FixedView):
        async def join(self, target: str) -> AsyncGenerator[Check | JoinReport, None]:
            yield Check("invite", True, target)
            await go.wait()
            yield JoinReport(SCHEMA_VERSION, False, "", ())

    async with (
        open_trial(Speech(BOB, ["x"]), SlowView()) as trial,
        aiohttp.ClientSession(base_url=trial.gateway.url, headers=OWNER) as http,
        http.post("/api/v1/join", json={"target": "dslm:x"}) as response,
    ):
        async with asyncio.timeout(10):
            assert b'"invite"' in await response.content.readline()
        go.set()
        assert b'"joined":false' in await response.content.readline()
        assert await response.content.read() == b""


async def test_a_client_that_leaves_ends_the_join() -> None:
    ended = asyncio.Event()

    class EndlessView(FixedView):
        async def join(self, target: str) -> AsyncGenerator[Check | JoinReport, None]:
            try:
                yield Check("invite", True, target)
                await asyncio.Event().wait()
            finally:
                ended.set()

    async with (
        open_trial(Speech(BOB, ["x"]), EndlessView()) as trial,
        aiohttp.ClientSession(base_url=trial.gateway.url, headers=OWNER) as http,
    ):
        async with http.post("/api/v1/join", json={"target": "dslm:x"}) as response:
            await response.content.readline()
            response.close()
        async with asyncio.timeout(10):
            await ended.wait()


@pytest.mark.parametrize(
    ("target", "code"),
    [("nonsense", "user_error"), ("", "invalid_value"), ("x" * 7_000, "invalid_value")],
)
async def test_a_join_that_cannot_begin_has_a_status(
    http: aiohttp.ClientSession, target: str, code: str
) -> None:
    async with http.post("/api/v1/join", json={"target": target}) as response:
        assert response.status == 400
        assert (await response.json())["error"]["code"] == code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PeerUnreachable("nobody is there"), "peer_unreachable"),
        (KeyError("dslm:secret"), "internal_error"),
    ],
)
async def test_a_join_that_breaks_off_says_so_in_its_last_line(
    trial: Trial, http: aiohttp.ClientSession, error: Exception, code: str
) -> None:
    trial.view.join_breaks = error
    async with http.post("/api/v1/join", json={"target": "dslm:x"}) as response:
        assert response.status == 200
        first, last = (await response.text()).splitlines()
    assert msgspec.json.decode(first)["name"] == "invite"
    told = msgspec.json.decode(last)["error"]
    assert (told["code"], set(told)) == (code, {"message", "type", "param", "code"})
    assert "secret" not in last
