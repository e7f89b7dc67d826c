"""`dslm invite`: one string that lets another machine in, and the way to take it back.

Knows how an invite is asked for and told; the node, which must be an issuer, makes it.
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer
from msgspec import Struct

from node.cli.exits import UsageError
from node.cli.output import show, show_json, tell
from node.cli.swarm_home import RunningHome, choose
from node.cli.verb import Invocation, verb
from node.quantities import parse_duration
from node.state import InviteReport, WithdrawalReport

EPILOG = """\b
Examples:
  dslm invite                                one node, within 24 hours, current swarm
  dslm invite lab --role node --uses 3 --for 7d
  dslm invite lab --role user                may ask, may not host
  ssh bob dslm join "$(dslm invite -q)"
  dslm invite --withdraw dslm:g6dja...       nobody may use it any more; who joined stays

\b
Whoever has the string can use it: send it by a way that only the invited can read. In a public
swarm it is no secret, and --role, --uses and --for mean nothing.
"""


class RoleName(StrEnum):
    """What an invite can make of a peer."""

    NODE = "node"
    USER = "user"
    TRAINER = "trainer"


class WithdrawRequest(Struct, frozen=True):
    """The body of a withdrawal."""

    invite: str


class InviteRequest(Struct, frozen=True):
    """The body of the request; `lifetime` in seconds."""

    roles: tuple[str, ...]
    uses: int
    lifetime: float


@verb
def invite(
    invocation: Invocation,
    swarm: Annotated[str, typer.Argument(help="Name; the current one by default.")] = "",
    role: Annotated[
        list[RoleName],
        typer.Option(help="node hosts and asks, user asks, trainer trains; repeatable."),
    ] = [RoleName.NODE],  # noqa: B006  (never changed)
    uses: Annotated[int, typer.Option(min=1, max=1_000, help="How many may join by it.")] = 1,
    lifetime: Annotated[str, typer.Option("--for", help="How long it holds.")] = "24h",
    withdraw: Annotated[
        str, typer.Option(metavar="INVITE", help="Take this invite back (string or id).")
    ] = "",
) -> None:
    """Make an invite and print the command that uses it, or take one back."""
    if withdraw:
        _withdraw(invocation, swarm, withdraw)
        return
    seconds = parse_duration(lifetime)
    if seconds <= 0:
        raise UsageError("an invite must hold for some time, as in --for 24h")
    client = invocation.client()
    name = choose(RunningHome(client), swarm).name
    body = InviteRequest(tuple(dict.fromkeys(one.value for one in role)), uses, seconds)
    report = client.post(f"/api/v1/swarms/{name}/invite", body, InviteReport)
    if invocation.json:
        show_json(report)
    elif invocation.quiet:
        show(report.invite)
    else:
        tell(_about(report))
        show(f"dslm join {report.invite}")


def _withdraw(invocation: Invocation, swarm: str, invite: str) -> None:
    from protocols.membership.invite import PREFIX, parse_invite  # here: it loads cryptography

    if not swarm and invite.startswith(PREFIX):
        swarm = parse_invite(invite).charter.name
    client = invocation.client()
    name = choose(RunningHome(client), swarm).name
    body = WithdrawRequest(invite)
    report = client.post(f"/api/v1/swarms/{name}/withdraw", body, WithdrawalReport)
    if invocation.json:
        show_json(report)
    else:
        tell(f"nobody can join {report.swarm} by this invite any more; who has joined stays")


def _about(report: InviteReport) -> str:
    if not report.expires_at:
        return f"anybody may join {report.swarm}; run there:"
    until = datetime.fromtimestamp(report.expires_at, UTC).astimezone()
    times = "once" if report.uses == 1 else f"{report.uses} times"
    return (
        f"can be used {times}, until {until:%a %d %b %H:%M}, to join {report.swarm} as "
        f"{', '.join(report.roles)}; whoever has it can use it. Run there:"
    )
