"""Adapters are loaded and unloaded by the owner's word, and refusals say why."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from node.gateway.fake import Speech
from node.gateway.trial import BOB, OWNER, open_trial, swarm_view


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with (
        open_trial(Speech(BOB, ["x"]), swarm_view()) as trial,
        aiohttp.ClientSession(base_url=trial.gateway.url, headers=OWNER) as session,
    ):
        yield session


async def ids_of(response: aiohttp.ClientResponse) -> list[str]:
    assert response.status == 200, await response.text()
    body = await response.json()
    assert body["schema_version"] == 1
    return [one["id"] for one in body["adapters"]]


async def test_adapters_come_and_go(http: aiohttp.ClientSession) -> None:
    wanted = {"folder": "/a", "id": "lab/tax", "domains": ["law/tax"]}
    async with http.post("/api/v1/adapters", json=wanted) as response:
        assert await ids_of(response) == ["lab/tax"]
    async with http.post("/api/v1/adapters", json={"folder": "/b"}) as response:
        assert await ids_of(response) == ["lab/tax", "own"]
    async with http.post("/api/v1/adapters/remove", json={"id": "lab/tax"}) as response:
        assert await ids_of(response) == ["own"]
    async with http.get("/api/v1/adapters") as response:
        assert await ids_of(response) == ["own"]


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("", {"folder": "nothing"}, "there is no adapter in nothing"),
        ("", {}, "folder"),
        ("", {"folder": ""}, "folder"),
        ("", {"folder": "/a", "domains": ["x"] * 9}, "domains"),
        ("/remove", {"id": "nobody"}, "hosts no 'nobody'"),
        ("/remove", {}, "id"),
    ],
)
async def test_what_cannot_be_is_a_400(
    http: aiohttp.ClientSession, path: str, body: dict[str, object], said: str
) -> None:
    async with http.post(f"/api/v1/adapters{path}", json=body) as response:
        assert response.status == 400
        assert said in (await response.json())["error"]["message"]
