"""A few nodes on loopback as processes of their own, in a temporary folder, all ended afterwards.

Knows how to start, watch and end them; must not know what they are asked.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from node.cli.client import Client
from node.gateway.admin_token import read_token
from node.identity import load_or_create
from node.paths import paths_below
from node.process import tail
from node.state import NodeState, PeersState, SpecialistsState
from protocols.errors import DeadlineExceeded, DslmError, UserError
from protocols.ids import PeerId

_POLL_SECONDS = 0.2
_STOP_SECONDS = 12.0
_LOG_LINES = 12


@dataclass(frozen=True, slots=True)
class TrialNode:
    """One node: its process, which leads a process group of its own, and its API."""

    name: str
    process: "subprocess.Popen[bytes]"
    client: Client
    log: Path


@dataclass(slots=True)
class TrialSwarm:
    """Nodes that end with the `with` block, and by the kernel's hand if this process is killed.

    `variables` is the environment for the nodes, `precision` what they hold weights in.
    """

    models_dir: Path
    variables: Mapping[str, str]
    precision: str = "auto"
    nodes: list[TrialNode] = field(default_factory=list)
    _folder: Path | None = None
    _friends: Sequence[PeerId] = ()

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="dslm-"))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def befriend(self, names: Sequence[str]) -> None:
        """Nodes that are started under these names, and from now on, will trust each other."""
        files = [paths_below(self._home(name)).identity_file for name in names]
        self._friends = [load_or_create(file).peer_id for file in files]

    def start(
        self, name: str, model: str, bootstrap: Sequence[str] = (), models_toml: str = ""
    ) -> TrialNode:
        """Start a node that hosts `model` (`none`: nothing), joining through `bootstrap`.

        With `models_toml`, the `[[models]]` of a configuration file, `model` is not looked at.
        """
        home = self._home(name)
        api = f"127.0.0.1:{_free_port()}"
        settings = {
            "api.listen": api,
            "node.name": name,
            "network.listen": "/ip4/127.0.0.1/tcp/0",
            "swarm.newcomers": "welcome",  # they are all ours
            "network.bootstrap": ",".join(bootstrap),
            "network.announce": "",
            "swarm.name": "trial",
            "engine.precision": self.precision,
            "router.trusted": ",".join(self._friends),
        }
        command = [sys.executable, "-m", "node", "serve", "--home", str(home)]
        command += ["--with-parent", str(os.getpid())]
        for key, value in settings.items():
            command += ["--set", f"{key}={value}"]
        if models_toml:
            (home / "config.toml").write_text(models_toml, encoding="utf-8")
        else:
            command += ["--model", model]
        log = home / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603  (our own interpreter and arguments)
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._variables(),
                start_new_session=True,
            )
        node = TrialNode(name, process, Client(f"http://{api}", timeout=60.0), log)
        self.nodes.append(node)
        return node

    def _home(self, name: str) -> Path:
        if self._folder is None:
            raise UserError("a trial swarm is used in a with block")
        home = self._folder / name
        home.mkdir(exist_ok=True)
        return home

    def wait_ready(self, nodes: Sequence[TrialNode], seconds: float) -> None:
        """Until each of `nodes` answers; `UserError` with its log when one ends instead."""

        def ready() -> bool:
            return all(node.client.is_answering("/api/v1/state") for node in nodes)

        names = ", ".join(node.name for node in nodes)
        self._wait(ready, seconds, f"{names} did not start")

    def wait_met(
        self, asker: TrialNode, hosts: int, seconds: float, specialists: Collection[str] = ()
    ) -> None:
        """Until `asker` knows all nodes of this swarm, a specialist on `hosts` of them, and all of
        `specialists`.
        """

        def met() -> bool:
            peers = asker.client.get("/api/v1/peers", PeersState).peers
            models = asker.client.get("/api/v1/models", SpecialistsState).models
            is_hosted = any(len(model.peers) >= hosts for model in models)
            is_known = {model.id for model in models}.issuperset(specialists)
            return len(peers) >= len(self.nodes) and is_hosted and is_known

        self._wait(met, seconds, "the nodes did not find each other")

    def kill(self, node: TrialNode) -> None:
        """End `node` and all that it started, at once, as if the machine had died."""
        os.killpg(node.process.pid, signal.SIGKILL)
        node.process.wait()
        self.nodes.remove(node)

    def stop(self) -> None:
        """End every node: SIGTERM, after 12 s SIGKILL; then remove the folder. May be repeated.

        Signals to this process wait meanwhile, so that an impatient second Ctrl-C leaves nothing.
        """
        numbers = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        try:
            for node in self.nodes:
                if node.process.poll() is None:
                    node.process.terminate()
            self._end_unnoted()
            give_up = time.monotonic() + _STOP_SECONDS
            for node in self.nodes:
                _end(node.process, give_up)
            self.nodes.clear()
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _end_unnoted(self) -> None:
        """End what an interrupt between the start of a process and its noting has left."""
        noted = {node.process.pid for node in self.nodes}
        for child in psutil.Process().children():
            with suppress(psutil.Error):
                if child.pid not in noted and str(self._folder) in " ".join(child.cmdline()):
                    child.kill()
                    child.wait(_STOP_SECONDS)

    def _wait(self, is_done: Callable[[], bool], seconds: float, trouble: str) -> None:
        give_up = time.monotonic() + seconds
        while not _succeeds(is_done):
            for node in self.nodes:
                if node.process.poll() is not None:
                    raise UserError(f"node {node.name} has ended. {_end_of(node)}")
            if time.monotonic() > give_up:
                logs = "\n".join(_end_of(node) for node in self.nodes)
                raise DeadlineExceeded(f"{trouble} within {seconds:g} s. {logs}")
            time.sleep(_POLL_SECONDS)

    def _variables(self) -> dict[str, str]:
        """Settings of the person's own node must not leak into the trial."""
        kept = {name: v for name, v in self.variables.items() if not name.startswith("DSLM_")}
        return kept | {"DSLM_MODELS_DIR": str(self.models_dir)}


def address_of(node: TrialNode) -> str:
    """An address by which others can join through `node`; told to its owner only."""
    token = read_token(paths_below(node.log.parent).admin_token_file)
    state = Client(node.client.url, secret=token).get("/api/v1/state", NodeState)
    if not state.addresses:
        raise UserError(f"node {node.name} listens nowhere: {state.network}")
    address = state.addresses[0]
    return address if "/p2p/" in address else f"{address}/p2p/{state.peer}"


def _succeeds(is_done: Callable[[], bool]) -> bool:
    try:
        return is_done()
    except DslmError:
        return False


def _end_of(node: TrialNode) -> str:
    lines = "\n".join(f"  {line}" for line in tail(node.log, _LOG_LINES))
    return f"The end of the log of {node.name}:\n{lines}"


def _end(process: "subprocess.Popen[bytes]", give_up: float) -> None:
    try:
        process.wait(max(0.1, give_up - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    try:
        os.killpg(process.pid, signal.SIGKILL)  # What a killed node may have left in its group.
    except ProcessLookupError:
        return


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
