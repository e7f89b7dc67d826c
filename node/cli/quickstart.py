"""`scripts/quickstart` and `dslm quickstart`: three nodes, and one answer through them.

Two of them host the base and, between them, the specialists that ship with dslm; the third hosts
nothing and is asked. Knows the order of the show. stdout gets the answer and one closing line;
stderr all else.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Annotated

import typer

from node.cli.answering import (
    ChatMessage,
    ChatRequest,
    ask_streaming,
    closing_line,
    heading_shower,
)
from node.cli.exits import Exit, exit_of
from node.cli.explaining import report_lines
from node.cli.output import show, show_piece, tell
from node.cli.preparing import with_model_files
from node.cli.progress import Bars
from node.cli.run import show_note
from node.cli.trial_swarm import TrialNode, TrialSwarm, address_of
from node.config import DEFAULT_MODEL, NodeConfig, environment
from node.config_reader import Overrides, load_process_config
from node.shipped import models_toml, share_out, shipped_specialists
from node.state import PeersState
from protocols.errors import DslmError

EPILOG = """\b
Examples:
  dslm quickstart "Why is the sky blue?"
  dslm quickstart "Is a verbal agreement a binding contract?"

\b
Two of them share out the specialists that ship with dslm; the third hosts nothing and is asked.
Needs 4 GB of memory. Your own node, if one runs, has no part in it.
"""
HOSTS = ("alder", "birch")
ASKER = "clover"
_MAX_TOKENS = 192
_START_SECONDS = 180.0
_MEET_SECONDS = 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the show for the script; the exit code."""
    return _show(_prompt(arguments))


def quickstart(
    prompt: Annotated[str, typer.Argument(help="What to ask.", show_default=False)],
) -> None:
    """Start three nodes on this machine, ask one of them, stop them all."""
    if not prompt.strip():
        raise typer.BadParameter("the prompt is empty")
    raise typer.Exit(_show(prompt))


def _show(prompt: str) -> int:
    """The exit code. Whatever ends it, nothing that it started stays behind."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        config = load_process_config(Overrides(models=(DEFAULT_MODEL,))).config
        with Bars() as bars:
            ready = with_model_files(config, bars)
        _play(prompt, ready)
    except DslmError as error:
        tell(f"error: {error}")
        return exit_of(error)
    except KeyboardInterrupt:
        tell("interrupted; everything is stopped")
        return Exit.INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return Exit.FAILED
    return Exit.OK


def _play(prompt: str, config: NodeConfig) -> None:
    with TrialSwarm(config.paths.models, environment()) as swarm, Bars() as bars:
        asker = _start(swarm, bars)
        _meet(swarm, asker, bars)
        _answer(asker, prompt)
        tell("stopping the nodes ...")


def _start(swarm: TrialSwarm, bars: Bars) -> TrialNode:
    """The node that hosts nothing is up first, since it loads nothing; the others join it."""
    bars.start_count("start the nodes", 1 + len(HOSTS))
    asker = swarm.start(ASKER, "none")
    swarm.wait_ready([asker], _START_SECONDS)
    bars.advance_to(1)
    shares = share_out(shipped_specialists(), HOSTS)
    address = address_of(asker)
    hosts = [
        swarm.start(name, DEFAULT_MODEL, [address], models_toml(share) if share else "")
        for name, share in shares.items()
    ]
    for name, share in shares.items():
        if share:
            tell(f"{name} hosts {', '.join(one.name for one in share)}")
    for count, host in enumerate(hosts, start=2):
        swarm.wait_ready([host], _START_SECONDS)
        bars.advance_to(count)
    bars.finish()
    return asker


def _meet(swarm: TrialSwarm, asker: TrialNode, bars: Bars) -> None:
    bars.start_count("find each other through the DHT", 1)
    names = [one.name for one in shipped_specialists()]
    swarm.wait_met(asker, len(HOSTS), _MEET_SECONDS, names)
    bars.advance_to(1)
    bars.finish()


def _answer(asker: TrialNode, prompt: str) -> None:
    tell(f"asking at {asker.name}, which hosts nothing")
    request = ChatRequest(
        model="auto",
        messages=[ChatMessage("user", prompt)],
        max_tokens=_MAX_TOKENS,
        temperature=0.0,
    )
    answer = ask_streaming(asker.client, request, show_piece, show_note, heading_shower())
    show("")
    known = asker.client.get("/api/v1/peers", PeersState).peers
    for line in report_lines(answer.report):
        tell(line)
    show(closing_line(answer.report, {peer.peer: peer.name for peer in known}))


def _prompt(arguments: Sequence[str] | None) -> str:
    parser = argparse.ArgumentParser(
        prog="scripts/quickstart",
        description="Start three nodes on this machine, ask one of them, stop them all.",
        epilog='example: scripts/quickstart "Why is the sky blue?"',
    )
    parser.add_argument("prompt", help="what to ask")
    prompt: str = parser.parse_args(arguments).prompt
    if not prompt.strip():
        parser.error("the prompt is empty")
    return prompt


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  (a signal handler)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
