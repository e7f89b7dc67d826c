"""`dslm up`: start the node in the background, wait until it works, say what it found.

Knows the order of a start; must not know how the node works.
"""

import subprocess
import time
from typing import Annotated

import typer

from node.cli.client import Client
from node.cli.exits import Exit, exit_of
from node.cli.join import exit_of_join, join_through, read_target
from node.cli.output import show, show_json, tell
from node.cli.ownership import require_own_names
from node.cli.preparing import require_api_keys, require_free_ports, with_model_files
from node.cli.progress import Bars
from node.cli.settings import (
    ApiFlag,
    ListenFlag,
    ModelFlag,
    NameFlag,
    PrecisionFlag,
    SetFlag,
    SettingFlags,
)
from node.cli.status import describe, invitation, problems
from node.cli.verb import Invocation, own_client, verb
from node.config import NodeConfig
from node.process import find, start_background, tail
from node.state import NodeState, ReadersState
from protocols.errors import DeadlineExceeded, DslmError, UserError

EPILOG = """\b
Examples:
  dslm up
  dslm up --join dslm:g6dja...
  dslm up --model ./my-model.gguf --name bob-3090
  dslm up --precision auto        as small as free memory asks for
  dslm up --model none            host nothing, only ask

\b
Does nothing but report if the node runs already. `dslm down` stops it.
"""
_POLL_SECONDS = 0.2
_LOG_LINES = 15


@verb
def up(  # noqa: PLR0913, PLR0917  (Typer reads the flags from the signature)
    invocation: Invocation,
    join: Annotated[str, typer.Option(help="An invite, or the address of a peer.")] = "",
    model: ModelFlag = [],  # noqa: B006  (never changed)
    listen: ListenFlag = "",
    api: ApiFlag = "",
    name: NameFlag = "",
    precision: PrecisionFlag = "",
    set_: SetFlag = [],  # noqa: B006
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for the start.")] = 180,
) -> None:
    """Start the node in the background and wait until it works."""
    flags = SettingFlags(model, listen, api, name, set_, precision)
    config = invocation.load(flags.pairs(), tuple(model)).config
    join = read_target(join) if join else ""
    running = find(config.paths.pid_file)
    if running is None:
        _start(config, flags.arguments(invocation), timeout)
    elif not invocation.quiet:
        tell(f"already running as pid {running.pid}; flags that set something were not used")
    found = find(config.paths.pid_file)
    if found is None:
        raise UserError(f"the node has ended; its log is {config.paths.log_file}")
    client = own_client(config.paths, found)
    code = _join(client, join) if join else Exit.OK
    _report(client, invocation, config)
    if code is not Exit.OK:
        raise typer.Exit(code)


def _start(config: NodeConfig, arguments: list[str], timeout: float) -> None:
    require_own_names()
    require_api_keys(config)
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
    path = "/ready" if config.models else "/health"
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


def _join(client: Client, target: str) -> Exit:
    try:
        report = join_through(client, target)
    except DslmError as error:
        tell(f"error: not joined: {error}")
        return exit_of(error)
    return Exit.OK if report.joined else exit_of_join(report)


def _report(client: Client, invocation: Invocation, config: NodeConfig) -> None:
    state = client.get("/api/v1/state", NodeState)
    if invocation.json:
        show_json(state)
        return
    if invocation.quiet:
        return
    swarms = client.get("/api/v1/readers", ReadersState).swarms
    for problem in problems(state):
        show(f"# {problem}")
    if config.network.bootstrap and state.known_peers <= 1:
        tried = " ".join(config.network.bootstrap)
        show(f"# no peer of network.bootstrap could be reached, trying again: {tried}")
    show("the node is up")
    for line in describe(state, swarms):
        show(line)
    if invite := invitation(state, swarms):
        where = "here, and there what it prints" if "invite" in invite else "there"
        show(f"\nto invite another machine, run {where}:\n  {invite}")
    show(f"\ntalk: dslm chat    stop: dslm down    log: {config.paths.log_file} (dslm logs -f)")
