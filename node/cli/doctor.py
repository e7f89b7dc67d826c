"""`dslm doctor`: what could keep a node from working, with what to do about it.

Knows the checks; each looks at one thing and changes nothing.
"""

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import typer

from node.cli import computing
from node.cli.client import Client
from node.cli.exits import Exit
from node.cli.output import show, show_json
from node.cli.ownership import require_own_names
from node.cli.preparing import require_api_keys, require_free_ports
from node.cli.verb import Invocation, own_client, verb
from node.config import NodeConfig
from node.hosting.fetch import default_encoder_paths, is_present
from node.paths import Paths
from node.process import RunningNode, find
from node.quantities import format_duration, format_size
from node.state import SCHEMA_VERSION, Check, NodeState, SwarmsState
from node.swarms.folder import SwarmFolder, swarm_names
from protocols.errors import DslmError

EPILOG = """\b
Examples:
  dslm doctor
  dslm doctor --json
"""
_NEEDED = ("torch", "hivemind", "transformers", "aiohttp", "msgspec", "onnxruntime")
_DISK_BYTES = 2 * 1000**3
_MEMORY_BYTES = 2 * 1000**3


@verb
def doctor(invocation: Invocation) -> None:
    """Look for what could keep a node from working. Exits with 1 if something does."""
    checks = list(_checks(invocation))
    if invocation.json:
        show_json({"schema_version": SCHEMA_VERSION, "checks": checks})
    else:
        for check in checks:
            show(f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {check.detail}")
            if not check.ok and check.fix:
                show(f"     {check.fix}")
    if not all(check.ok for check in checks):
        raise typer.Exit(Exit.FAILED)


def _checks(invocation: Invocation) -> Iterator[Check]:
    yield _try("names", require_own_names, "the three import names are ours")
    yield _packages()
    yield _network_daemon()
    try:
        config = invocation.load().config
    except DslmError as error:
        yield Check("settings", False, str(error), "`dslm config path` says which file is read")
        return
    yield Check("settings", True, str(config.paths.config_file))
    yield from map(_folder, (config.paths.data, config.paths.state, config.paths.models))
    yield _disk(config.paths.models)
    yield _memory()
    yield from _models(config)
    yield _try("API keys", lambda: require_api_keys(config), "as many as the settings ask for")
    yield from _swarms(config.paths)
    yield from _running(config, find(config.paths.pid_file))


def _try(name: str, look: Callable[[], None], good: str) -> Check:
    try:
        look()
    except DslmError as error:
        return Check(name, False, str(error))
    return Check(name, True, good)


def _packages() -> Check:
    versions, missing = [], []
    for name in _NEEDED:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        fix = "run scripts/setup, or `pip install dslm` anew"
        return Check("packages", False, f"not installed: {', '.join(missing)}", fix)
    return Check("packages", True, f"Python {sys.version.split()[0]}, {', '.join(versions)}")


def _network_daemon() -> Check:
    """Finds the package without importing it: that would take seconds."""
    found = importlib.util.find_spec("hivemind")
    root = Path(found.origin).parent if found and found.origin else None
    daemon = root / "hivemind_cli" / "p2pd" if root else None
    if daemon is None or not os.access(daemon, os.X_OK):
        fix = "install hivemind from its Linux x86-64 wheel, which brings the program p2pd"
        return Check("network daemon", False, f"no program p2pd in {root}", fix)
    return Check("network daemon", True, str(daemon))


def _folder(path: Path) -> Check:
    """The folder, or the nearest one above it that exists, must let us write."""
    nearest = path
    while not nearest.exists():
        nearest = nearest.parent
    if nearest.is_dir() and os.access(nearest, os.W_OK):
        return Check("folder", True, str(path))
    if not nearest.is_dir():
        return Check("folder", False, f"{path}: {nearest} is a file", "use --home FOLDER")
    fix = f"make it yours: sudo chown -R $USER {nearest}; or use --home FOLDER"
    return Check("folder", False, f"{path} cannot be written", fix)


def _disk(path: Path) -> Check:
    while not path.exists():
        path = path.parent
    free = shutil.disk_usage(path).free
    fix = "make room, or set DSLM_MODELS_DIR to a folder on another disk"
    return Check("disk", free >= _DISK_BYTES, f"{format_size(free)} free for models", fix)


def _memory() -> Check:
    import psutil

    free = psutil.virtual_memory().available
    fix = "close other programs, or host nothing: dslm up --model none"
    return Check("memory", free >= _MEMORY_BYTES, f"{format_size(free)} free", fix)


def _models(config: NodeConfig) -> Iterator[Check]:
    for model in config.models:
        here = is_present(model.path, config.paths.models)
        detail = f"{model.id}: {model.path}" + ("" if here else " is not on this machine")
        yield Check("model", here, detail, f"dslm pull {model.path}")
    if config.router.encoder == "auto":
        here = default_encoder_paths(config.paths.models).exist
        detail = "is here" if here else "is not here: auto means the plain base until `dslm up`"
        yield Check("sentence encoder", True, detail)


def _swarms(paths: Paths) -> Iterator[Check]:
    """Each folder is read whole: damage shows here first, and not when a certificate is due."""
    for name in swarm_names(paths.swarms):
        try:
            folder = SwarmFolder.load(paths.swarms / name)
            folder.check()
        except DslmError as error:
            yield Check(f"swarm {name}", False, str(error))
            continue
        yield Check(f"swarm {name}", True, f"as {folder.identity.peer_id}")
    for key in sorted(paths.owners.glob("*.key")):
        detail = f"{key}: works, but belongs on another medium: who has it can try passphrases"
        yield Check("owner's key", True, detail)


def _memberships(client: Client) -> Iterator[Check]:
    """What the running node says about each of its swarms."""
    for one in client.get("/api/v1/swarms", SwarmsState).swarms:
        name = f"swarm {one.name}"
        left = one.certificate_expires_in
        if one.kind == "private":
            fix = "no issuer could be reached: `dslm swarm info` names them, or ask for an invite"
            said = f"certificate for {format_duration(left)}" if left else "no valid certificate"
            yield Check(name, bool(left and left > 0), said, fix)
        reached = " ".join(one.reachable)
        said = f"reached at {reached}" if reached else "nobody has reached this node from outside"
        alone = "" if reached or one.members > 1 else "; nobody else is there to try"
        fix = "let the port through: in the firewall, and in the router to this machine"
        yield Check(f"{name} reachability", bool(reached) or one.members <= 1, said + alone, fix)


def _running(config: NodeConfig, running: RunningNode | None) -> Iterator[Check]:
    if running is None:
        free = "no node runs, and its ports are free"
        yield _try("ports", lambda: require_free_ports(config), free)
        yield from computing.checks(config)
        return
    try:
        client = own_client(config.paths, running, timeout=5.0)
        state = client.get("/api/v1/state", NodeState)
        memberships = list(_memberships(client))
    except DslmError as error:
        yield Check("node", False, f"pid {running.pid}: {error}", "dslm down && dslm up")
        return
    yield Check("node", True, f"pid {running.pid} at {running.api_url}")
    network_fix = "`dslm logs` tells more; `dslm down && dslm up` starts afresh"
    yield from computing.checks_of(state.device, state.hosted)
    yield Check("network", state.network == "up", state.network, network_fix)
    yield from memberships
    others = max(0, state.known_peers - 1)
    alone = "" if others else "; `dslm join INVITE` enters the swarm of another machine"
    yield Check("peers", True, f"{others} other peers known{alone}")
    ask_fix = "host one (dslm up --model smollm2) or join a swarm that does"
    known = state.known_specialists
    yield Check("specialists", known > 0, f"{known} specialists known", ask_fix)
