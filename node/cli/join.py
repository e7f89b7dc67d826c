"""`dslm join`: enter a swarm through one of its peers.

Knows how a join is told to people; the node does it.
"""

import re
from typing import Annotated

import typer

from node.cli.client import Client
from node.cli.exits import Exit, UsageError
from node.cli.output import show_json, tell
from node.cli.verb import Invocation, verb
from node.state import JoinReport

EPILOG = """\b
Examples:
  dslm join /ip4/192.0.2.7/tcp/7779/p2p/12D3KooWQ9...
  dslm up --join /dns4/node.example.org/tcp/7779/p2p/12D3KooWQ9...

\b
`dslm up` and `dslm status` on a machine of the swarm print its address.
"""
_ADDRESS = re.compile(r"/(ip4|ip6|dns|dns4|dns6|dnsaddr)/\S+/p2p/[1-9A-HJ-NP-Za-km-z]+")


@verb
def join(
    invocation: Invocation,
    address: Annotated[str, typer.Argument(help="Address of any peer of the swarm.")],
) -> None:
    """Enter the swarm of another machine."""
    require_address(address)
    report = join_through(invocation.client(), address)
    if invocation.json:
        show_json(report)
    else:
        show_join(report)
    if not report.joined:
        raise typer.Exit(Exit.NO_CAPACITY)


def require_address(address: str) -> None:
    """`UsageError` unless `address` has the form of a peer's address."""
    if not _ADDRESS.fullmatch(address):
        raise UsageError(
            f"{address!r} is no peer address: it looks like /ip4/192.0.2.7/tcp/7779/p2p/12D3Koo... "
            "and `dslm status` prints it on the other machine"
        )


def join_through(client: Client, address: str) -> JoinReport:
    """Have the node dial `address`; errors as of `Client.get`."""
    return client.post("/api/v1/join", {"address": address}, JoinReport)


def show_join(report: JoinReport) -> None:
    """One line for each step, and what to do about those that failed."""
    for check in report.checks:
        tell(f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {check.detail}")
        if not check.ok and check.fix:
            tell(f"     {check.fix}")
    tell(f"joined through {report.peer}" if report.joined else "error: not joined")
