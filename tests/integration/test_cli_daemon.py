"""`dslm` with a real node behind it: start, use, mistakes, stop."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from node.paths import paths_below
from node.process import find, stop

pytestmark = pytest.mark.integration
NOBODY = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


class Home:
    """A home folder, and `dslm` commands with it; no other settings of the person leak in."""

    def __init__(self, folder: Path, models_dir: Path) -> None:
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DSLM_")}
        api = f"127.0.0.1:{_free_port()}"
        self.variables = kept | {
            "DSLM_HOME": str(folder),
            "DSLM_MODELS_DIR": str(models_dir),
            "DSLM_API_LISTEN": api,
            "DSLM_NETWORK_LISTEN": "/ip4/127.0.0.1/tcp/0",
            "DSLM_ROUTER_ENCODER": "off",
        }
        self.url = f"http://{api}"

    def __call__(self, *arguments: str, stdin: str = "") -> Ended:
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-m", "node", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env=self.variables,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Ended(done.returncode, done.stdout, done.stderr)

    def processes(self) -> list[str]:
        """Command lines of all processes that name this home or what is in it."""
        wanted = {str(self.folder), str(paths_below(self.folder).runtime)}
        found = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if any(part in line for part in wanted):
                found.append(line)
        return found


@pytest.fixture
def home(models_dir: Path) -> Iterator[Home]:
    with tempfile.TemporaryDirectory(prefix="dh") as folder:
        yield from _home(Path(folder) / "home", models_dir)


def _home(folder: Path, models_dir: Path) -> Iterator[Home]:
    made = Home(folder, models_dir)
    yield made
    stop(paths_below(made.folder).pid_file)
    give_up = time.monotonic() + 5
    while made.processes() and time.monotonic() < give_up:
        time.sleep(0.05)
    assert made.processes() == []


@pytest.mark.slow
def test_a_node_that_hosts_nothing(home: Home) -> None:
    up = home("up", "--model", "none", "--name", "clover")
    assert up.code == 0, up.err
    for part in ("hosting  nothing", "memory free", f"{home.url}/v1", "dslm join /ip4/127.0.0.1"):
        assert part in up.out
    running = find(paths_below(home.folder).pid_file)
    assert running is not None

    again = home("up", "--json")
    assert again.code == 0
    assert json.loads(again.out)["pid"] == running.pid
    assert f"already running as pid {running.pid}" in again.err
    second = home("serve")
    assert second.code == 1
    assert f"already running as pid {running.pid}" in second.err

    status = home("status", "--json")
    assert json.loads(status.out)["name"] == "clover"
    for model, code in (("auto", 5), ("smollm2", 4)):
        refused = home("run", model, "hi")
        assert (refused.code, refused.out) == (code, "")
        assert refused.err.startswith("error: ")
        assert "dslm " in refused.err

    unreachable = home("join", f"/ip4/127.0.0.1/tcp/9/p2p/{NOBODY}")
    assert unreachable.code == 5
    assert "connection refused" in unreachable.err
    assert home("ping", "nobody").code == 4
    assert "ready" in home("logs").out

    down = home("down")
    assert (down.code, "stopped" in down.err) == (0, True)
    assert home("status").code == home("down").code == 3
    identity = paths_below(home.folder).identity_file
    assert identity.stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_a_node_whose_friends_are_away_starts_and_says_so(home: Home) -> None:
    address = f"/ip4/127.0.0.1/tcp/9/p2p/{NOBODY}"
    up = home("up", "--model", "none", "--set", f"network.bootstrap={address}")
    assert up.code == 0, up.err
    assert f"no peer of network.bootstrap could be reached, trying again: {address}" in up.out


@pytest.mark.slow
def test_the_default_model(home: Home, smollm2_path: Path) -> None:
    assert smollm2_path.is_file()
    up = home("up")
    assert up.code == 0, up.err
    assert "smollm2 (int4" in up.out
    answer = home("run", "smollm2", "Say hi.", "--max-tokens", "4", "--temperature", "0")
    assert answer.code == 0
    assert answer.out.strip()
    too_long = home("run", "smollm2", stdin="word " * 5000)
    assert (too_long.code, too_long.out) == (1, "")
    assert "maximum context length is 2048 tokens" in too_long.err
    unknown = home("run", "smollm3", "hi")
    assert unknown.code == 4
    assert "Did you mean: smollm2" in unknown.err
    assert json.loads(home("ps", "--json").out)["models"][0]["id"] == "smollm2"


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["up", "serve"])
def test_starts_that_fail_say_why_and_leave_nothing(home: Home, tmp_path: Path, verb: str) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(b"no model")
    cases = [
        (["--model", "/nowhere/x.gguf"], "there is no model at /nowhere/x.gguf"),
        (["--model", str(damaged)], "no GGUF file"),
        (["--model", "smolm2"], "Did you mean: smollm2"),
        (["--set", "api.listen=0.0.0.0:1"], "needs a key"),
        (["--set", "nonsense"], "SECTION.KEY=VALUE"),
        (["--config", "/nowhere.toml"], "/nowhere.toml does not exist"),
    ]
    for arguments, said in cases:
        ended = home(verb, *arguments)
        assert ended.code in (1, 2)
        assert ended.out == ""
        assert said in ended.err
    assert not paths_below(home.folder).data.exists()


@pytest.mark.slow
def test_a_damaged_model_file_fails_the_start_with_its_name(home: Home, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(b"GGUF" + b"\xff" * 100)
    ended = home("up", "--model", str(damaged))
    assert ended.code == 1
    assert "the node did not start: " in ended.err
    assert "damaged" in ended.err


@pytest.mark.parametrize("key", ["api.listen", "network.listen"])
def test_a_port_that_is_taken(home: Home, key: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        value = f"127.0.0.1:{port}" if key == "api.listen" else f"/ip4/127.0.0.1/tcp/{port}"
        for verb in ("up", "serve"):
            ended = home(verb, "--model", "none", "--set", f"{key}={value}")
            assert ended.code == 1
            assert f"cannot listen on 127.0.0.1 port {port} ({key})" in ended.err
            assert "choose another port" in ended.err
