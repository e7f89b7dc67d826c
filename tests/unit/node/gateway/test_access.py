"""Who gets in: keys, the owner's token, and the names by which a node may be called."""

from collections.abc import AsyncIterator
from dataclasses import replace
from unittest.mock import Mock

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from yarl import URL

from node.gateway.access import Access, Door, require_owner
from node.gateway.admin_token import AdminToken
from node.gateway.config import GatewayConfig, listens_on_loopback
from node.gateway.errors import Forbidden
from node.gateway.fake import Speech
from node.gateway.keys import NoKeys
from node.gateway.trial import (
    ADMIN_TOKEN,
    BOB,
    OWNER,
    TRIAL_CONFIG,
    Trial,
    TrialKeys,
    open_trial,
)
from protocols.errors import ConfigError

CHAT = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
SPEECH = Speech(BOB, ["One"])
KEYS = TrialKeys({"dslm-right": "phone"})
OPEN = ("/", "/health", "/ready")
CLOSED = (
    "/version",
    "/metrics",
    "/v1/models",
    "/v1/models/auto",
    "/api/v1/state",
    "/api/v1/peers",
    "/api/v1/models",
    "/api/v1/cards",
    "/api/v1/readers",
    "/api/v1/swarms",
    "/nowhere",
    "//health",
    "/health/",
    "/%68ealth/../v1/models",
)
ALL = "0.0.0.0"  # noqa: S104  (what the settings may say)
VERBS: tuple[tuple[str, str, object], ...] = (
    ("POST", "/api/v1/join", {"target": "dslm:x"}),
    ("POST", "/api/v1/ping", {"peer": BOB}),
    ("GET", "/api/v1/swarms", None),
    ("GET", "/api/v1/adapters", None),
    ("POST", "/api/v1/adapters", {"folder": "/adapter", "id": "lab/tax"}),
    ("POST", "/api/v1/adapters/remove", {"id": "lab/tax"}),
    ("POST", "/api/v1/swarms/load", {"name": "lab"}),
    ("GET", "/api/v1/swarms/public/members", None),
    ("POST", "/api/v1/swarms/public/invite", {"roles": ["node"], "uses": 1, "lifetime": 60}),
    ("POST", "/api/v1/swarms/public/withdraw", {"invite": "dslm:trial"}),
    ("POST", "/api/v1/swarms/public/use", {}),
    ("POST", "/api/v1/swarms/public/leave", {}),
    ("GET", "/api/v1/swarms/public/documents", None),
    ("POST", "/api/v1/swarms/public/documents", {"documents": ["AAAA"]}),
)


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@pytest.fixture
async def closed() -> AsyncIterator[aiohttp.ClientSession]:
    """A client of a node that asks for keys."""
    config = replace(TRIAL_CONFIG, require_key=True)
    async with (
        open_trial(SPEECH, config=config, keys=KEYS) as trial,
        aiohttp.ClientSession(base_url=trial.gateway.url) as http,
    ):
        yield http


async def test_without_a_key_only_monitors_and_the_page_are_served(
    closed: aiohttp.ClientSession,
) -> None:
    for path in OPEN:
        async with closed.get(path) as response:
            assert response.status == 200, path
    async with closed.get("/health") as response:
        home = str(response.url.origin())
    for path in CLOSED:
        url = URL(home + path, encoded=True)
        for headers in ({}, bearer("dslm-wrong"), bearer(""), {"Authorization": "Basic x"}):
            async with closed.get(url, headers=headers) as response:
                assert response.status == 401, path
                error = (await response.json())["error"]
                assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")
                assert response.headers["WWW-Authenticate"].startswith("Bearer")
                assert response.headers["x-request-id"]
    for path in ("/v1/chat/completions", "/api/v1/route"):
        async with closed.post(path, json=CHAT) as response:
            assert response.status == 401, path


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER "])
async def test_with_a_key_all_is_served_but_the_owners_verbs(
    closed: aiohttp.ClientSession, scheme: str
) -> None:
    headers = {"Authorization": f"{scheme} dslm-right"}
    async with closed.post("/v1/chat/completions", json=CHAT, headers=headers) as response:
        assert response.status == 200
    for path in ("/version", "/metrics", "/v1/models", "/api/v1/state", "/api/v1/readers"):
        async with closed.get(path, headers=headers) as response:
            assert response.status == 200, path
    for method, path, body in VERBS:
        async with closed.request(method, path, json=body, headers=headers) as response:
            assert response.status == 403, path


async def test_the_owners_token_is_as_good_as_a_key(closed: aiohttp.ClientSession) -> None:
    async with closed.post("/v1/chat/completions", json=CHAT, headers=OWNER) as response:
        assert response.status == 200


@pytest.mark.parametrize(("method", "path", "body"), VERBS, ids=[path for _, path, _ in VERBS])
async def test_the_owners_verbs_need_the_token(method: str, path: str, body: object) -> None:
    async with (
        open_trial(SPEECH) as trial,
        aiohttp.ClientSession(base_url=trial.gateway.url) as http,
    ):
        for headers in ({}, bearer("dslm-right"), bearer(ADMIN_TOKEN[:-1]), bearer("")):
            async with http.request(method, path, json=body, headers=headers) as response:
                assert response.status == 403
                error = (await response.json())["error"]
                assert error["code"] == "forbidden"
                assert "admin.token" in error["message"]
        async with http.request(method, path, json=body, headers=OWNER) as response:
            assert response.status == 200


async def test_every_route_of_the_admin_side_is_known_to_be_open_or_closed() -> None:
    """A new verb without a check fails here."""
    names = ("state", "peers", "models", "cards", "readers", "stats", "route")
    readable = {f"/api/v1/{name}" for name in names}
    checked = {path.replace("/public/", "/{name}/") for _, path, _ in VERBS}
    async with open_trial(SPEECH) as trial:
        application = trial.gateway._runner.app
        found = {
            route.resource.canonical for route in application.router.routes() if route.resource
        }
    assert {path for path in found if path.startswith("/api/")} == readable | checked


async def test_a_wrong_key_is_no_harm_where_none_is_asked_for() -> None:
    async with (
        open_trial(SPEECH) as trial,
        aiohttp.ClientSession(base_url=trial.gateway.url) as http,
        http.post("/v1/chat/completions", json=CHAT, headers=bearer("any")) as response,
    ):
        assert response.status == 200


async def test_others_learn_no_addresses_and_no_faults() -> None:
    async with (
        open_trial(SPEECH) as trial,
        aiohttp.ClientSession(base_url=trial.gateway.url) as http,
    ):
        known = trial.view.known_peers
        trial.view.known_peers = tuple(
            msgspec.structs.replace(one, last_error="x") for one in known
        )
        seen: dict[bool, list[dict[str, object]]] = {}
        for is_owner in (False, True):
            headers = OWNER if is_owner else {}
            async with http.get("/api/v1/peers", headers=headers) as response:
                seen[is_owner] = (await response.json())["peers"]
            async with http.get("/api/v1/state", headers=headers) as response:
                assert bool((await response.json())["addresses"]) is is_owner
        assert all(peer["addresses"] and peer["last_error"] for peer in seen[True])
        assert not any(peer["addresses"] or peer["last_error"] for peer in seen[False])
        assert [peer["name"] for peer in seen[False]] == [peer["name"] for peer in seen[True]]


@pytest.mark.parametrize(
    ("config", "is_needed"),
    [
        (GatewayConfig(), False),
        (GatewayConfig(host="::1"), False),
        (GatewayConfig(host="[::1]"), False),
        (GatewayConfig(host="127.0.0.9"), False),
        (GatewayConfig(host="localhost"), False),
        (GatewayConfig(host="0.0.0.0"), True),  # noqa: S104
        (GatewayConfig(host="::"), True),
        (GatewayConfig(host="192.168.1.7"), True),
        (GatewayConfig(host="a-name"), True),
        (GatewayConfig(host="evil.localhost"), True),
        (GatewayConfig(host=""), True),
        (GatewayConfig(require_key=True), True),
        (GatewayConfig(hosts=("chat.example",)), True),
    ],
)
def test_keys_are_needed_wherever_others_might_call(
    config: GatewayConfig, *, is_needed: bool
) -> None:
    assert config.needs_key is is_needed
    assert listens_on_loopback(config.host) or is_needed


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (replace(TRIAL_CONFIG, host=ALL), r"api\.listen is 0\.0\.0\.0"),
        (replace(TRIAL_CONFIG, require_key=True), r"api\.require_key"),
        (replace(TRIAL_CONFIG, hosts=("chat.example",)), r"api\.hosts"),
    ],
)
async def test_without_a_key_a_node_that_needs_one_does_not_start(
    config: GatewayConfig, why: str
) -> None:
    with pytest.raises(ConfigError, match=rf"{why}.*dslm key create NAME"):
        async with open_trial(SPEECH, config=config, keys=NoKeys()):
            pytest.fail("listening without a key")


@pytest.fixture
async def public() -> AsyncIterator[Trial]:
    """A node that listens everywhere; it is called on loopback, for there is nothing else here."""
    config = replace(TRIAL_CONFIG, host=ALL, hosts=("chat.example", "Node.LAN."))
    async with open_trial(SPEECH, config=config, keys=KEYS) as trial:
        yield trial


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("192.168.1.7:7777", 200),
        ("[fd00::7]:7777", 200),
        ("0.0.0.0:7777", 200),
        ("localhost:7777", 200),
        ("chat.example", 200),
        ("CHAT.EXAMPLE.:7777", 200),
        ("node.lan", 200),
        ("evil.example", 403),
        ("chat.example.evil.example", 403),
        ("xchat.example", 403),
        ("192.168.1.7.evil.example", 403),
        ("3232235783", 403),
        ("", 403),
    ],
)
async def test_beyond_loopback_a_node_is_called_by_addresses_and_its_own_names(
    public: Trial, host: str, status: int
) -> None:
    """A name that is none of these may be an attacker's, pointed here (DNS rebinding)."""
    port = public.gateway.url.rpartition(":")[2]
    async with (
        aiohttp.ClientSession(base_url=f"http://127.0.0.1:{port}") as http,
        http.get("/v1/models", headers=bearer("dslm-right") | {"Host": host}) as response,
    ):
        assert response.status == status
        if status == 403:
            assert "api.hosts" in (await response.json())["error"]["message"]


@pytest.mark.parametrize(
    ("host", "origin", "is_friend"),
    [
        ("chat.example", "https://chat.example", True),
        ("192.168.1.7:7777", "http://192.168.1.7:7777", True),
        ("192.168.1.7:7777", "http://localhost:3000", True),
        ("192.168.1.7:7777", "http://192.168.1.8:7777", False),
        ("192.168.1.7:7777", "http://chat.example", False),
        ("chat.example", "https://evil.example", False),
        ("chat.example", "null", False),
    ],
)
async def test_beyond_loopback_only_the_nodes_own_page_may_call(
    public: Trial, host: str, origin: str, *, is_friend: bool
) -> None:
    port = public.gateway.url.rpartition(":")[2]
    headers = {"Host": host, "Origin": origin}
    async with aiohttp.ClientSession(base_url=f"http://127.0.0.1:{port}") as http:
        async with http.post(
            "/v1/chat/completions", json=CHAT, headers=headers | bearer("dslm-right")
        ) as response:
            assert response.status == (200 if is_friend else 403)
        async with http.post("/v1/chat/completions", json=CHAT, headers=headers) as response:
            # A page must be able to read that a key is wanted.
            assert response.status == (401 if is_friend else 403)
            allowed = response.headers.get("Access-Control-Allow-Origin")
            assert allowed == (origin if is_friend else None)
        preflight = headers | {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization",
        }
        async with http.options("/v1/chat/completions", headers=preflight) as response:
            assert response.status == (204 if is_friend else 403)
    assert len(public.source.asked) == int(is_friend)


async def test_holders_of_keys_are_told_apart_without_being_named() -> None:
    config = replace(TRIAL_CONFIG, hosts=("chat.example",))
    keys = TrialKeys({"dslm-right": "phone", "dslm-other": "laptop"})
    tenants = []
    async with (
        open_trial(SPEECH, config=config, keys=keys) as trial,
        aiohttp.ClientSession(base_url=trial.gateway.url) as http,
    ):
        for key in ("dslm-right", "dslm-other", "dslm-right"):
            headers = bearer(key) | {"Host": "chat.example"}
            async with http.post("/v1/chat/completions", json=CHAT, headers=headers) as response:
                assert response.status == 200
            tenants.append(trial.source.asked[-1].tenant)
    assert tenants[0] == tenants[2] != tenants[1]
    assert all(len(tenant) == 16 for tenant in tenants)
    assert not any(word in tenant for tenant in tenants for word in ("dslm", "phone", "laptop"))


async def test_a_name_of_its_own_is_allowed_behind_a_proxy_and_asks_for_keys() -> None:
    config = replace(TRIAL_CONFIG, hosts=("chat.example",))
    async with (
        open_trial(SPEECH, config=config, keys=KEYS) as trial,
        aiohttp.ClientSession(base_url=trial.gateway.url) as http,
    ):
        for host, secret, status in [
            ("chat.example", "dslm-right", 200),
            ("chat.example", "", 401),
            ("localhost", "", 401),
            ("evil.example", "dslm-right", 403),
            ("192.168.1.7", "dslm-right", 403),
        ]:
            headers = {"Host": host} | bearer(secret)
            async with http.get("/v1/models", headers=headers) as response:
                assert response.status == status, host


@pytest.mark.parametrize(
    ("peer", "own", "is_here"),
    [
        (("127.0.0.1", 5), ("127.0.0.1", 7777), True),
        (("::1", 5, 0, 0), ("::1", 7777, 0, 0), True),
        (("192.168.1.7", 5), ("192.168.1.7", 7777), True),
        (("192.168.1.8", 5), ("192.168.1.7", 7777), False),
        (("fe80::1%eth0", 5, 0, 2), ("fe80::2%eth0", 7777, 0, 2), False),
        ("", "/run/a.sock", False),
        (None, None, False),
    ],
)
async def test_the_owners_token_counts_on_the_nodes_own_machine_only(
    peer: object, own: object, *, is_here: bool
) -> None:
    transport = Mock()
    transport.get_extra_info = {"peername": peer, "sockname": own}.get
    request = make_mocked_request("GET", "/api/v1/swarms", OWNER, transport=transport)
    door = Door(Access(admin=AdminToken(ADMIN_TOKEN)), GatewayConfig())

    async def handler(request: web.Request) -> web.StreamResponse:
        require_owner(request)
        return web.Response()

    if is_here:
        assert (await door.check(request, handler)).status == 200
    else:
        with pytest.raises(Forbidden):
            await door.check(request, handler)
