"""`dslm join`: enter a swarm by an invite, or an open one through one of its peers.

Knows how a join is told to people; the node does it.
"""

import re
import sys
from typing import Annotated

import typer
from msgspec import Struct

from node.cli.client import Client
from node.cli.exits import Exit, UsageError
from node.cli.output import show_json, tell
from node.cli.verb import Invocation, verb
from node.state import SCHEMA_VERSION, Check, JoinReport
from protocols.errors import PeerLost, UserError

EPILOG = """\b
Examples:
  dslm join dslm:g6dja...                             an invite, as `dslm invite` prints it
  dslm join - < invite.txt                            so that it is in no list of processes
  dslm join /ip4/192.0.2.7/tcp/7779/p2p/12D3KooWQ9... a peer of the open swarm
  dslm up --join dslm:g6dja...

\b
Exits with 6 if the swarm does not want this node, with 5 if nobody could be reached.
"""
_ADDRESS = re.compile(r"/(ip4|ip6|dns|dns4|dns6|dnsaddr)/\S+/p2p/[1-9A-HJ-NP-Za-km-z]+")
_INVITE_PREFIX = "dslm:"
_REFUSALS = frozenset({"invite", "membership", "admission"})
"""Checks that fail because this node has no right to come in."""
_TARGET_CHARACTERS_MAX = 8_192


class JoinRequest(Struct, frozen=True):
    """The body of the request."""

    target: str


class _Line(Struct, frozen=True):
    """A line of the answer: a check, or the report at the end."""

    name: str = ""
    ok: bool = False
    detail: str = ""
    fix: str = ""
    joined: bool | None = None
    peer: str = ""
    checks: tuple[Check, ...] = ()
    schema_version: int = SCHEMA_VERSION


@verb
def join(
    invocation: Invocation,
    target: Annotated[str, typer.Argument(help="An invite, - to read one, or a peer's address.")],
) -> None:
    """Enter a swarm; each check is told as it is done."""
    target = read_target(target)
    report = join_through(invocation.client(), target, is_quiet=invocation.json)
    if invocation.json:
        show_json(report)
    if not report.joined:
        raise typer.Exit(exit_of_join(report))


def read_target(text: str) -> str:
    """`text`, or standard input for `-`, checked; `UsageError` if nobody could join by it."""
    if text == "-":
        text = sys.stdin.read(_TARGET_CHARACTERS_MAX) if sys.stdin is not None else ""
    text = "".join(text.split()).removeprefix("dslmjoin")  # The whole command, as it was printed.
    if text.startswith(_INVITE_PREFIX):
        from protocols.membership.invite import parse_invite

        try:
            parse_invite(text)
        except UserError as error:
            raise UsageError(str(error)) from None
    elif not _ADDRESS.fullmatch(text):
        raise UsageError(
            f"{text[:80]!r} is neither an invite (dslm:...; `dslm invite` prints one on a machine "
            "of the swarm) nor a peer's address (/ip4/192.0.2.7/tcp/7779/p2p/12D3Koo...; in an "
            "open swarm `dslm status` prints it)"
        )
    return text


def join_through(client: Client, target: str, *, is_quiet: bool = False) -> JoinReport:
    """Have the node join, and tell each check as it comes; errors as of `Client.objects`."""
    for line in client.objects("/api/v1/join", JoinRequest(target), _Line):
        if line.joined is not None:
            report = JoinReport(line.schema_version, line.joined, line.peer, line.checks)
            if not is_quiet:
                tell(f"joined through {report.peer}" if report.joined else "error: not joined")
            return report
        if not is_quiet:
            show_check(Check(line.name, line.ok, line.detail, line.fix))
    raise PeerLost("the node ended the join without a result; `dslm logs` may tell why")


def show_check(check: Check) -> None:
    """What was found and, if it is bad, what to do next."""
    tell(f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {check.detail}")
    if not check.ok and check.fix:
        tell(f"     {check.fix}")


def exit_of_join(report: JoinReport) -> Exit:
    """Why a join failed, as an exit code."""
    failed = {check.name for check in report.checks if not check.ok}
    return Exit.REFUSED if failed & _REFUSALS else Exit.NO_CAPACITY
