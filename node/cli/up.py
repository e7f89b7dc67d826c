"""`dslm up`: start the node in the background, wait until it works, say what it found.

Knows the order of a start; must not know how the node works.
"""

import subprocess
import time
from typing import Annotated

import typer

from node.cli.client import Client
from node.cli.exits import Exit
from node.cli.join import join_through, require_address, show_join
from node.cli.output import show, show_json, tell
from node.cli.ownership import require_own_names
from node.cli.preparing import require_free_ports, with_model_files
from node.cli.progress import Bars
from node.cli.settings import ApiFlag, ListenFlag, ModelFlag, NameFlag, SetFlag, SettingFlags
from node.cli.status import describe, invitation, problems
from node.cli.verb import Invocation, verb
from node.config import NodeConfig
from node.process import RunningNode, find, start_background, tail
from node.state import NodeState
from protocols.errors import DeadlineExceeded, DslmError, UserError

EPILOG = """\b
Examples:
  dslm up
  dslm up --join /ip4/192.0.2.7/tcp/7779/p2p/12D3KooWQ9...
  dslm up --model ./my-model.gguf --name bob-3090
  dslm up --model none            host nothing, only ask

\b
Does nothing but report if the node runs already. `dslm down` stops it.
"""
_POLL_SECONDS = 0.2
_LOG_LINES = 15


@verb
def up(  # noqa: PLR0913, PLR0917  (Typer reads the flags from the signature)
    invocation: Invocation,
    join: Annotated[str, typer.Option(help="Address of a peer of the swarm to enter.")] = "",
    model: ModelFlag = [],  # noqa: B006  (never changed)
    listen: ListenFlag = "",
    api: ApiFlag = "",
    name: NameFlag = "",
    set_: SetFlag = [],  # noqa: B006
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for the start.")] = 180,
) -> None:
    """Start the node in the background and wait until it works."""
    flags = SettingFlags(model, listen, api, name, set_)
    config = invocation.load(flags.pairs(), tuple(model)).config
    if join:
        require_address(join)
    running = find(config.paths.pid_file)
    if running is None:
        _start(config, flags.arguments(invocation), timeout)
    elif not invocation.quiet:
        tell(f"already running as pid {running.pid}; flags that set something were not used")
    found = find(config.paths.pid_file)
    if found is None:
        raise UserError(f"the node has ended; its log is {config.paths.log_file}")
    is_joined = not join or _join(found, join)
    _report(Client(found.api_url).get("/api/v1/state", NodeState), invocation, config)
    if not is_joined:
        raise typer.Exit(Exit.NO_CAPACITY)


def _start(config: NodeConfig, arguments: list[str], timeout: float) -> None:
    require_own_names()
    require_free_ports(config)
    with Bars() as bars:
        with_model_files(config, bars)
        process = start_background(["serve", *arguments], config.paths.log_file)
        bars.start_count("start the node", 1)
        _wait_until_ready(process, config, timeout)
        bars.advance_to(1)


def _wait_until_ready(
    process: "subprocess.Popen[bytes]", config: NodeConfig, timeout: float
) -> None:
    """A node that hosts something is ready when it can answer; one that does not, when it talks."""
    client = Client(config.api.url, timeout=5.0)
    path = "/ready" if config.models else "/api/v1/state"
    give_up = time.monotonic() + timeout
    while not client.is_answering(path):
        if process.poll() is not None:
            raise UserError(_failure(config, process.returncode))
        if time.monotonic() > give_up:
            raise DeadlineExceeded(
                f"the node runs (pid {process.pid}) but was not ready within {timeout:g} s; "
                "`dslm logs -f` tells what it does, `dslm down` stops it"
            )
        time.sleep(_POLL_SECONDS)


def _failure(config: NodeConfig, code: int) -> str:
    lines = tail(config.paths.log_file, _LOG_LINES)
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if said:
        return f"the node did not start: {said[-1]}"
    how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    log = "\n".join(f"  {line}" for line in lines)
    return f"the node did not start ({how}). The end of {config.paths.log_file}:\n{log}"


def _join(running: RunningNode, address: str) -> bool:
    try:
        report = join_through(Client(running.api_url), address)
    except DslmError as error:
        tell(f"error: not joined: {error}")
        return False
    show_join(report)
    return report.joined


def _report(state: NodeState, invocation: Invocation, config: NodeConfig) -> None:
    if invocation.json:
        show_json(state)
        return
    if invocation.quiet:
        return
    for problem in problems(state):
        show(f"# {problem}")
    if config.network.bootstrap and state.known_peers <= 1:
        tried = " ".join(config.network.bootstrap)
        show(f"# no peer of network.bootstrap could be reached, trying again: {tried}")
    show("the node is up")
    for line in describe(state):
        show(line)
    if state.addresses:
        show(f"\nto invite another machine, run there:\n  {invitation(state)}")
    show(f"\ntalk: dslm chat    stop: dslm down    log: {config.paths.log_file} (dslm logs -f)")
