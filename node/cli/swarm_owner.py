"""What only a swarm's owner can do: `dslm swarm revoke`, `rotate` and `appoint`.

Knows where the key is and how peers are named; the documents are made in `node.swarms.owner_acts`,
and the node, if it runs, only gets what is signed.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node.cli.output import show, show_json, tell
from node.cli.passphrase import PassphraseFlag, read_passphrase
from node.cli.swarm_home import StoppedHome, SwarmHome, choose, home_of, unix_now
from node.cli.verb import Invocation, verb
from node.state import SCHEMA_VERSION, MemberState, SwarmState
from protocols.errors import ProtocolError, UnknownPeer, UserError
from protocols.ids import PeerId, parse_peer_id

if TYPE_CHECKING:
    from node.swarms.owner_acts import InForce, Owner

_REVOKE_EPILOG = """\b
Examples:
  dslm swarm revoke 12D3KooWQ9            by peer id, or a start or end that is unique
  dslm swarm revoke bob-3090 --swarm lab  by name
  dslm swarm revoke bob-3090 --owner-key /media/stick/lab.key

\b
Everybody who hears of it drops the peer at once. A revoked issuer's certificates are void too.
"""
_ROTATE_EPILOG = """\b
Examples:
  dslm swarm rotate
  dslm swarm rotate lab

\b
All certificates and invites so far become void two minutes later; members that are not revoked get
new certificates by themselves. For the day on which an issuer's key or an invite got around.
"""
_APPOINT_EPILOG = """\b
Examples:
  dslm swarm appoint bob-3090
  dslm swarm appoint 12D3KooWQ9 --swarm lab

\b
Two issuers are better than one: when the only one is gone for a day, nobody can renew. Appoint an
issuer again before its 90 days are over; `dslm swarm info` tells how long that is.
"""
PeerArgument = Annotated[str, typer.Argument(help="Name, peer id, or its start or end.")]
SwarmOption = Annotated[str, typer.Option(help="Name of the swarm; the current one by default.")]
KeyOption = Annotated[
    Path | None, typer.Option("--owner-key", help="The owner's key file, if it was moved.")
]


@dataclass(frozen=True, slots=True)
class _Keys:
    """How to get at the owner's key."""

    file: Path | None
    passphrase_file: Path | None


@verb
def revoke(
    invocation: Invocation,
    peer: PeerArgument,
    swarm: SwarmOption = "",
    owner_key: KeyOption = None,
    passphrase_file: PassphraseFlag = None,
) -> None:
    """Shut a member out for good."""
    home = home_of(invocation)
    state = choose(home, swarm)
    target = find_member(peer, home.members(state.name).members)
    if target == state.peer:
        raise UserError(
            "this is this node itself: `dslm swarm leave` takes it out, or revoke it from another "
            "node of the owner"
        )

    def act(owner: "Owner", now: float) -> Sequence[bytes]:
        return owner.revoke(target, now)

    in_force = _act(invocation, home, state, _Keys(owner_key, passphrase_file), act)
    _report(invocation, state, {"revoked": target}, f"revoked {target}", home)
    if state.kind == "private" and not set(in_force.issuers(unix_now())) - {target}:
        tell("nobody is left who may make certificates: appoint somebody within a day")


@verb
def rotate(
    invocation: Invocation,
    name: Annotated[str, typer.Argument(help="The swarm; the current one by default.")] = "",
    owner_key: KeyOption = None,
    passphrase_file: PassphraseFlag = None,
) -> None:
    """Make all certificates and invites so far void; members get new ones by themselves."""
    home = home_of(invocation)
    state = choose(home, name)
    keys = _Keys(owner_key, passphrase_file)
    in_force = _act(invocation, home, state, keys, lambda owner, now: owner.rotate(now))
    issuers = in_force.issuers(unix_now())
    said = f"rotated {state.name}; {len(issuers)} issuers go on"
    _report(invocation, state, {"issuers": issuers}, said, home)


@verb
def appoint(
    invocation: Invocation,
    peer: PeerArgument,
    swarm: SwarmOption = "",
    owner_key: KeyOption = None,
    passphrase_file: PassphraseFlag = None,
) -> None:
    """Let a member make invites and certificates for 90 days."""
    home = home_of(invocation)
    state = choose(home, swarm)
    target = find_member(peer, home.members(state.name).members)

    def act(owner: "Owner", now: float) -> Sequence[bytes]:
        return owner.appoint(target, now)

    _act(invocation, home, state, _Keys(owner_key, passphrase_file), act)
    said = f"{target} may make certificates for 90 days"
    _report(invocation, state, {"appointed": target}, said, home)


VERBS: Sequence[tuple[str, Callable[..., None], str]] = (
    ("revoke", revoke, _REVOKE_EPILOG),
    ("rotate", rotate, _ROTATE_EPILOG),
    ("appoint", appoint, _APPOINT_EPILOG),
)


def find_member(wanted: str, members: Iterable[MemberState]) -> PeerId:
    """The peer whose name or id is `wanted`, or the only one whose id starts or ends with it.

    A whole peer id need not be known. `UnknownPeer` if it fits none or several.
    """
    rows = tuple(members)
    exact = [one.peer for one in rows if wanted in (one.peer, one.name)]
    partial = [one.peer for one in rows if one.peer.startswith(wanted) or one.peer.endswith(wanted)]
    found = exact or partial
    if len(found) == 1:
        return PeerId(found[0])
    if found:
        raise UnknownPeer(
            f"{wanted!r} fits {len(found)} members: {', '.join(found[:4])}. Give more of the id"
        )
    try:
        return parse_peer_id(wanted)
    except ProtocolError:
        raise UnknownPeer(
            f"no member {wanted!r} is known; `dslm swarm members -v` lists them. A peer that was "
            "not seen since the node started is named by its whole peer id"
        ) from None


def _act(
    invocation: Invocation,
    home: SwarmHome,
    state: SwarmState,
    keys: _Keys,
    act: Callable[["Owner", float], Sequence[bytes]],
) -> "InForce":
    """Have the owner sign something and publish it; what was in force before."""
    from node.swarms.owner_acts import Owner, read_documents
    from node.swarms.owner_key import OwnerKeyFile

    if state.kind == "open":
        raise UserError(f"{state.name} belongs to nobody: nobody can decide who is in it")
    default = invocation.load().config.paths.owners / f"{state.name}.key"
    file = OwnerKeyFile(keys.file or default)
    charter = file.charter()
    if charter.swarm != state.swarm:
        raise UserError(f"{file.path} is the key of another swarm, {charter.name}: see --owner-key")
    in_force = read_documents(charter, home.documents(state.name))
    passphrase = read_passphrase(keys.passphrase_file, f"the owner's key of {state.name}")
    documents = act(Owner(file.unlock(passphrase), in_force), unix_now())
    home.publish(state.name, documents)
    return in_force


def _report(
    invocation: Invocation, state: SwarmState, facts: dict[str, object], said: str, home: SwarmHome
) -> None:
    is_spread = not isinstance(home, StoppedHome)
    if invocation.json:
        about = {"schema_version": SCHEMA_VERSION, "swarm": state.name, "spread": is_spread}
        show_json(about | facts)
        return
    if not invocation.quiet:
        show(said)
    if not is_spread:
        tell("the node is not running: the others are told when it starts (dslm up)")
