"""A running node against another user of the same machine, and what it says in its logs.

The node is real but for a model: a private swarm with its keys, API keys, sockets, a log.
"""

import asyncio
import json
import logging
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from node.app import running_node
from node.config import NodeConfig
from node.config_reader import Overrides, load
from node.gateway.admin_token import read_token
from node.gateway.keys import KeyFile
from node.paths import Paths
from node.process import RunningNode, hold
from node.swarms.founding import Founder, found, owner_key_file
from protocols.adapters.clock import SystemClock
from protocols.errors import UserError

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as a second user"),
]
INTRUDER = Path(__file__).with_name("intruder.py")
NOBODY = 65534
PASSPHRASE = "marker correct horse battery staple"  # noqa: S105
WRONG_PASSPHRASE = "marker wrong horse battery staple"  # noqa: S105
REQUESTS: list[tuple[str, str, object]] = [
    ("GET", "/api/v1/swarms", None),
    ("GET", "/api/v1/swarms/lab/members", None),
    ("GET", "/api/v1/swarms/lab/documents", None),
    ("POST", "/api/v1/swarms/lab/documents", {"documents": ["AAAA"]}),
    ("POST", "/api/v1/swarms/lab/invite", {"roles": ["node"], "uses": 9, "lifetime": 999}),
    ("POST", "/api/v1/swarms/lab/use", {}),
    ("POST", "/api/v1/swarms/lab/leave", {}),
    ("POST", "/api/v1/swarms/load", {"name": "lab"}),
    ("GET", "/api/v1/adapters", None),
    ("POST", "/api/v1/adapters", {"folder": "/adapter"}),
    ("POST", "/api/v1/adapters/remove", {"id": "lab/tax"}),
    ("POST", "/api/v1/join", {"target": "dslm:AAAA"}),
    ("POST", "/api/v1/ping", {"peer": "x"}),
]


@dataclass(frozen=True, slots=True)
class Running:
    """A node and where it is."""

    url: str
    port: int
    paths: Paths
    key: str


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder that everybody may enter: only the node itself keeps others out below it."""
    folder = Path(tempfile.mkdtemp(prefix="dl"))
    folder.chmod(0o755)
    previous = os.umask(0o022)
    yield folder
    os.umask(previous)
    shutil.rmtree(folder)


@asynccontextmanager
async def node_below(home: Path, **variables: str) -> AsyncIterator[Running]:
    """A node with a private swarm and an API key."""
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    config = settings(home, port, variables)
    paths = config.paths
    await asyncio.to_thread(home.mkdir, 0o755)
    found(
        "lab",
        is_private=True,
        passphrase=PASSPHRASE,
        founder=Founder(paths, SystemClock().now(), os.urandom),
    )
    key = KeyFile(paths.api_keys_file).create("phone")
    with hold(paths.pid_file, RunningNode(os.getpid(), config.api.url, "test")):
        paths.log_file.write_text("what a node in the background writes\n")
        async with running_node(config) as node:
            yield Running(node.gateway.url, port, paths, key)


def settings(home: Path, port: int, variables: dict[str, str]) -> NodeConfig:
    """Nothing of the person's own settings leaks in."""
    given = {
        "DSLM_HOME": str(home),
        "DSLM_API_LISTEN": f"127.0.0.1:{port}",
        "DSLM_NETWORK_LISTEN": "/ip4/127.0.0.1/tcp/0",
        "DSLM_ROUTER_ENCODER": "off",
        "DSLM_MODELS": "none",
    }
    return load(Overrides(), given | variables, home / "no-system.toml").config


def intrude(wanted: dict[str, object]) -> dict[str, Any]:
    """What another user gets of `wanted`."""
    troubles = []
    for python in dict.fromkeys((sys.executable, "/usr/bin/python3")):
        try:
            done = subprocess.run(  # noqa: S603
                [python, "-I", "-c", INTRUDER.read_text("utf-8")],
                input=json.dumps(wanted),
                capture_output=True,
                text=True,
                check=True,
                timeout=120,
                user=NOBODY,
                group=NOBODY,
                extra_groups=[],
                cwd="/",
                env={},
            )
        except (OSError, subprocess.CalledProcessError) as error:
            troubles.append(f"{python}: {error} {getattr(error, 'stderr', '')}")
            continue
        got: dict[str, Any] = json.loads(done.stdout)
        assert got["uid"] == NOBODY
        return got
    pytest.fail("another user cannot run Python: " + "; ".join(troubles))


@dataclass(frozen=True, slots=True)
class Found:
    """All that lies in some folders, by kind."""

    files: list[str]
    sockets: list[str]
    folders: list[str]


def everything_in(*roots: Path) -> Found:
    """Links are not followed."""
    found_here = Found([], [], [])
    for root in roots:
        for path in (root, *root.rglob("*")):
            mode = path.lstat().st_mode
            if stat.S_ISSOCK(mode):
                found_here.sockets.append(str(path))
            elif stat.S_ISDIR(mode):
                found_here.folders.append(str(path))
            else:
                found_here.files.append(str(path))
    return found_here


def own_processes() -> list[psutil.Process]:
    """This one and its daemons."""
    me = psutil.Process()
    return [me, *(child for child in me.children(recursive=True) if "p2pd" in child.name())]


async def test_another_user_gets_nothing(base: Path) -> None:
    open_file, open_socket = base / "open", base / "open.sock"
    open_file.write_text("for everybody")
    listening = socket.socket(socket.AF_UNIX)
    with closing(listening):
        listening.bind(str(open_socket))
        open_socket.chmod(0o777)
        listening.listen(1)
        async with node_below(base / "home") as node:
            paths = node.paths
            here = everything_in(paths.data, paths.state, paths.runtime)
            processes = own_processes()
            names = {Path(path).name for path in (*here.files, *here.sockets)}
            assert {"admin.token", "api.keys", "lab.key", "identity.key", "dslm.pid"} <= names
            assert len(here.sockets) >= 2
            assert len(processes) >= 2
            got = await asyncio.to_thread(
                intrude,
                {
                    "files": [*here.files, str(open_file)],
                    "sockets": [*here.sockets, str(open_socket)],
                    "folders": [one for one in here.folders if one != str(paths.data)],
                    "port": node.port,
                    "requests": [
                        *((one, path, json.dumps(body)) for one, path, body in REQUESTS),
                        ("GET", "/health", ""),
                    ],
                    "pids": [process.pid for process in processes],
                },
            )
            secrets = [read_token(paths.admin_token_file), node.key, PASSPHRASE]
    assert got["read"] == [str(open_file)], "only what is for everybody"
    assert got["written"] == []
    assert got["connected"] == [str(open_socket)]
    assert got["statuses"] == [403] * len(REQUESTS) + [200]
    assert "p2pd" in got["arguments"]
    assert all(secrets)
    assert not any(secret in got["arguments"] + got["environment"] for secret in secrets)


async def test_nothing_of_a_node_listens_elsewhere(base: Path) -> None:
    """Sockets without a file, or control ports on TCP, would be open to everybody here."""
    async with node_below(base / "home") as node:
        inside = str(node.paths.runtime)
        unix, tcp = [], []
        for process in own_processes():
            for one in process.net_connections(kind="unix"):
                if one.laddr:
                    unix.append(str(one.laddr))
            for one in process.net_connections(kind="tcp"):
                if one.status == psutil.CONN_LISTEN:
                    tcp.append((process.name(), one.laddr.ip, one.laddr.port))
    assert unix
    assert all(path.startswith(inside) for path in unix), unix
    daemons = [port for name, _, port in tcp if "p2pd" in name]
    assert [port for name, _, port in tcp if "p2pd" not in name] == [node.port]
    assert len(daemons) == len({port for _, _, port in tcp}) - 1, "one port each for other peers"
    assert all(ip == "127.0.0.1" for _, ip, _ in tcp)


async def test_the_owner_has_the_token_of_this_run_only(base: Path) -> None:
    home = base / "home"
    async with node_below(home) as node, aiohttp.ClientSession(base_url=node.url) as http:
        token = read_token(node.paths.admin_token_file)
        for secret, status in [("", 403), (node.key, 403), (token[:-1], 403), (token, 200)]:
            headers = {"Authorization": f"Bearer {secret}"}
            async with http.get("/api/v1/swarms", headers=headers) as response:
                assert response.status == status
        assert stat.S_IMODE(node.paths.admin_token_file.stat().st_mode) == 0o600
        assert stat.S_IMODE(node.paths.state.stat().st_mode) == 0o700
    shutil.rmtree(home)
    async with node_below(home) as node, aiohttp.ClientSession(base_url=node.url) as http:
        headers = {"Authorization": f"Bearer {token}"}
        async with http.get("/api/v1/swarms", headers=headers) as response:
            assert response.status == 403


PROMPT, INVITE, WRONG_KEY = "marker-prompt", "marker-invite", "dslm-marker-key"


async def test_logs_and_errors_hold_no_prompt_key_invite_or_passphrase(
    base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    errors: list[str] = []
    async with (
        node_below(base / "home", DSLM_API_REQUIRE_KEY="true") as node,
        aiohttp.ClientSession(base_url=node.url) as http,
    ):
        token = read_token(node.paths.admin_token_file)

        async def post(path: str, body: object, secret: str) -> Any:
            headers = {"Authorization": f"Bearer {secret}"}
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            async with http.post(path, data=data, headers=headers) as response:
                text = await response.text()
                if response.status >= 400 or '"error"' in text:
                    errors.append(text)
                return json.loads(text.splitlines()[-1])

        chat = {"model": "auto", "messages": [{"role": "user", "content": PROMPT}]}
        for secret in (node.key, WRONG_KEY, token):
            await post("/v1/chat/completions", chat, secret)
            await post("/v1/completions", {"model": "auto", "prompt": PROMPT}, secret)
        for body in _broken_bodies():
            await post("/v1/chat/completions", body, node.key)
        wanted = {"roles": ["node"], "uses": 1, "lifetime": 60}
        invite = (await post("/api/v1/swarms/lab/invite", wanted, token))["invite"]
        targets = (invite, invite[:-3], INVITE, f"dslm:{INVITE}", f"/ip4/127.0.0.1/tcp/9/{INVITE}")
        for target in targets:
            await post("/api/v1/join", {"target": target}, token)
        for line in (f"GET /{PROMPT} HTTP/9.9", "GET / HTTP/1.1", f"{PROMPT}"):
            await _raw(
                node.port, f"{line}\r\nAuthorization: Bearer {node.key}\0\r\nX\x01: y\r\n\r\n"
            )
        await _raw(node.port, f"GET / HTTP/1.1\r\nAuthorization: Bearer {node.key * 999}\r\n\r\n")
        with pytest.raises(UserError) as refused:
            owner_key_file(node.paths, "lab").unlock(WRONG_PASSPHRASE)
        errors.append(str(refused.value))
    assert len(errors) >= 12
    secrets = [PROMPT, WRONG_KEY, node.key, token, invite[10:-3], PASSPHRASE, WRONG_PASSPHRASE]
    told = [("log", caplog.text), *(("error", text) for text in errors)]
    for where, text in told:
        for secret in secrets:
            assert secret not in text, (where, secret, text[:2_000])
    assert all(INVITE not in text for text in (caplog.text, *errors))


def _broken_bodies() -> list[object]:
    user = {"role": "user", "content": PROMPT}
    return [
        json.dumps({"model": "auto", "messages": [user]})[:-3].encode(),
        PROMPT.encode(),
        json.dumps(PROMPT).encode(),
        {"model": "auto", "messages": PROMPT},
        {"model": "auto", "messages": [PROMPT]},
        {"model": "auto", "messages": [{"role": "user", "content": {"text": PROMPT}}]},
        {"model": "auto", "messages": [user], "temperature": "hot"},
        {"model": "auto", "messages": [user], "tools": [PROMPT]},
        {"model": "auto", "messages": [user], "stop": [PROMPT * 100]},
        {"model": "auto", "messages": [{"role": "user", "content": PROMPT * 30_000}]},
        b'{"model": "auto", "messages": [{"role": "user", "content": "' + PROMPT.encode() + b"\xff",
    ]


async def _raw(port: int, text: str) -> None:
    """Send what is no HTTP. (aiohttp tells its sender, and nobody else, which part is wrong.)"""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text.encode())
    async with asyncio.timeout(10):
        assert b" 400 " in await reader.readline()
    writer.close()
