"""`dslm swarm`: make, list, choose and leave swarms, and see who is in them.

Knows how swarms are told to people; what only an owner may do is in `node.cli.swarm_owner`.
"""

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from node.cli import swarm_owner
from node.cli.exits import UsageError
from node.cli.output import short_peer, show, show_json, show_table, table_lines, tell
from node.cli.passphrase import PassphraseFlag, choose_passphrase
from node.cli.swarm_home import SwarmHome, choose, home_of, unix_now
from node.cli.verb import Invocation, verb
from node.quantities import format_duration
from node.state import SCHEMA_VERSION, SwarmState

if TYPE_CHECKING:
    from node.swarms.founding import Founded

EPILOG = """\b
Examples:
  dslm swarm create lab --private
  dslm invite lab --role node --uses 3
  dslm swarm ls
  dslm swarm members lab
  dslm swarm revoke 12D3KooWQ9

\b
Without a running node, the verbs read and write this machine's folders; what an owner signs is
told to the others when the node starts.
"""
_CREATE_EPILOG = """\b
Examples:
  dslm swarm create lab --private
  dslm swarm create commons --public
  dslm swarm create lab --private --passphrase-file ./passphrase

\b
The owner's key signs who may make certificates and who is out. It is written to a file, encrypted
with the passphrase: move it to a place of its own. Nobody can replace it.
"""
Name = Annotated[str, typer.Argument(help="Name of the swarm.")]
Optional = Annotated[str, typer.Argument(help="Name of the swarm; the current one by default.")]

app = typer.Typer(
    help="Make, list, choose and leave swarms; decide who is in yours.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("create", epilog=_CREATE_EPILOG)
@verb
def create(
    invocation: Invocation,
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits and . _ -")],
    private: Annotated[bool, typer.Option("--private", help="Only who was invited.")] = False,
    public: Annotated[bool, typer.Option("--public", help="Anybody who comes.")] = False,
    passphrase_file: PassphraseFlag = None,
) -> None:
    """Make a swarm, its owner's key, and this node its first member."""
    from node.swarms.founding import Founder, check_new, found
    from node.swarms.owner_key import check_passphrase

    if private == public:
        raise UsageError("say who may come: --private or --public")
    paths = invocation.load().config.paths
    check_new(name, paths)
    passphrase = choose_passphrase(
        passphrase_file, f"the owner's key of {name}", lambda text: check_passphrase(text, name)
    )
    founder = Founder(paths, unix_now(), os.urandom)
    founded = found(name, is_private=private, passphrase=passphrase, founder=founder)
    home = home_of(invocation)
    home.load(name)
    home.use(name)
    if invocation.json:
        show_json(_created(founded))
    else:
        _tell_created(founded, is_quiet=invocation.quiet)


@app.command("ls", epilog="\b\nExamples:\n  dslm swarm ls\n  dslm swarm ls --json")
@verb
def list_swarms(invocation: Invocation) -> None:
    """List the swarms that this node is in; * is where requests go that name none."""
    state = home_of(invocation).state()
    if invocation.json:
        show_json(state)
        return
    if not state.swarms:
        tell("in no swarm of its own: `dslm swarm create NAME --private`, `dslm join INVITE`")
        return
    titles = ("", "NAME", "KIND", "ROLES", "CERTIFICATE", "MEMBERS", "REVOKED", "NETWORK")
    show_table(titles, [_row(one) for one in state.swarms])


@app.command("info", epilog="\b\nExamples:\n  dslm swarm info\n  dslm swarm info lab --json")
@verb
def info(invocation: Invocation, name: Optional = "") -> None:
    """Tell all that is known about a swarm."""
    found = choose(home_of(invocation), name)
    if invocation.json:
        show_json({"schema_version": SCHEMA_VERSION, "swarm": found})
        return
    for line in table_lines(describe(found)):
        show(line)


@app.command("use", epilog="\b\nExamples:\n  dslm swarm use lab")
@verb
def use(invocation: Invocation, name: Name) -> None:
    """Send requests that name no swarm to this one from now on."""
    home_of(invocation).use(name)
    if not invocation.quiet:
        tell(f"requests go to {name} from now on")


@app.command("leave", epilog="\b\nExamples:\n  dslm swarm leave lab\n  dslm swarm leave lab --yes")
@verb
def leave(
    invocation: Invocation,
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Take part in a swarm no more, and delete this node's key and papers for it."""
    if not yes:
        _confirm(
            f"delete this node's key and papers for {name}? To come back it needs a new invite."
        )
    home_of(invocation).leave(name)
    if not invocation.quiet:
        tell(f"left {name}")


@app.command("members", epilog="\b\nExamples:\n  dslm swarm members\n  dslm swarm members lab -v")
@verb
def members(invocation: Invocation, name: Optional = "") -> None:
    """List who is in a swarm, as this node knows it."""
    home = home_of(invocation)
    state = home.members(_named(home, name))
    if invocation.json:
        show_json(state)
        return
    rows = [
        (
            one.name or "-",
            one.peer if invocation.verbose else short_peer(one.peer),
            "self" if one.is_self else one.state,
            ",".join(one.roles) or "-",
            short_peer(one.issuer) if one.issuer else "-",
            _left(one.expires_in),
        )
        for one in state.members
    ]
    show_table(("NAME", "PEER", "STATE", "ROLES", "ISSUER", "CERTIFICATE"), rows)


for _name, _function, _epilog in swarm_owner.VERBS:
    app.command(_name, epilog=_epilog)(_function)


def describe(state: SwarmState) -> list[tuple[str, str]]:
    """A swarm on a few lines."""
    rows = [
        ("swarm", f"{state.name} ({state.kind}){', current' if state.is_current else ''}"),
        ("id", state.swarm),
        ("network", state.network),
        ("this node", state.peer),
        ("roles", ", ".join(state.roles) or "-"),
        ("members", f"{state.members} seen, {state.revoked} revoked, list {state.epoch}"),
        ("addresses", " ".join(state.addresses) or "-"),
        ("reachable", " ".join(state.reachable) or "nobody has reached this node yet"),
        ("readers", state.readers or "-"),
    ]
    if state.kind == "private":
        rows.insert(5, ("certificate", _left(state.certificate_expires_in)))
        rows.insert(6, ("may issue", _left(state.delegation_expires_in)))
        rows.insert(7, ("issuers", " ".join(state.issuers) or "-"))
    if state.owner_key:
        rows.append(("owner's key", f"{state.owner_key}: move it to a place of its own"))
    return rows


def _named(home: SwarmHome, name: str) -> str:
    return name or choose(home, "").name


def _row(state: SwarmState) -> tuple[str, ...]:
    return (
        "*" if state.is_current else "",
        state.name,
        state.kind,
        ",".join(state.roles) or "-",
        _left(state.certificate_expires_in) if state.kind == "private" else "-",
        str(state.members),
        str(state.revoked),
        state.network,
    )


def _left(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"for {format_duration(seconds)}" if seconds > 0 else "expired"


def _confirm(question: str) -> None:
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError("this cannot be undone: say --yes if it is meant")
    typer.confirm(question, abort=True)


def _created(founded: "Founded") -> dict[str, object]:
    charter = founded.charter
    return {
        "schema_version": SCHEMA_VERSION,
        "name": charter.name,
        "kind": "private" if charter.is_private else "public",
        "swarm": charter.swarm,
        "owner": charter.owner,
        "owner_key": str(founded.owner_key),
        "peer": founded.peer,
    }


def _tell_created(founded: "Founded", *, is_quiet: bool) -> None:
    charter = founded.charter
    if is_quiet:
        show(charter.swarm)
        return
    kind = "private" if charter.is_private else "public"
    show(f"made the {kind} swarm {charter.name}; requests go there from now on")
    rows = [("id", charter.swarm), ("this node", founded.peer), ("key", str(founded.owner_key))]
    for line in table_lines(rows):
        show(f"  {line}")
    show(
        "\nMove the owner's key to a place of its own, on another medium, and keep the passphrase\n"
        "elsewhere: whoever has both owns the swarm, and nobody can replace them. It is needed to\n"
        "revoke members and, in a private swarm, to appoint issuers again within 90 days."
    )
    show(f"\nto invite another machine:\n  dslm invite {charter.name}")
