"""`dslm status`: what this node is doing, problems first.

Knows how a node's state is told to people; must not know how it came about.
"""

from collections.abc import Sequence

from node.cli.output import short_peer, show, show_json, table_lines
from node.cli.settings import SwarmFlag, in_swarm
from node.cli.verb import Invocation, verb
from node.quantities import format_device, format_duration, format_size
from node.state import HostedState, NodeState, ReadersState, SwarmReaders

EPILOG = """\b
Examples:
  dslm status
  dslm status --json
  dslm status || dslm up
"""
_LOOPBACK = ("/ip4/127.", "/ip6/::1/")


@verb
def status(invocation: Invocation, swarm: SwarmFlag = "") -> None:
    """Tell what this node is doing. Exits with 3 if it is not running."""
    client = invocation.client()
    state = client.get(in_swarm("/api/v1/state", swarm), NodeState)
    if invocation.json:
        show_json(state)
        return
    for problem in problems(state):
        show(f"# {problem}")
    for line in describe(state, client.get("/api/v1/readers", ReadersState).swarms):
        show(line)


def problems(state: NodeState) -> list[str]:
    """What a person should know first."""
    found = []
    if state.network != "up":
        found.append(f"network: {state.network}")
    if state.draining:
        found.append("on its way down: takes no new work")
    if state.known_peers <= 1:
        found.append("no other peer is known: `dslm join INVITE`, or invite one (below)")
    if state.known_specialists == 0:
        found.append("no specialist is known: nothing can be asked yet")
    return found


def describe(state: NodeState, swarms: Sequence[SwarmReaders] = ()) -> list[str]:
    """The node on a few lines, in one of its `swarms`."""
    copies: dict[str, list[HostedState]] = {}
    for model in state.hosted:
        copies.setdefault(model.copy or model.id, []).append(model)
    hosted = "; ".join(_copy(models) for models in copies.values())
    rows = [
        ("node", f"{state.name or short_peer(state.peer)}, dslm {state.software}, pid {state.pid}"),
        ("up", format_duration(state.uptime)),
        ("swarm", _swarm_line(state.swarm, swarms)),
        ("device", format_device(state.device)),
        ("hosting", hosted or "nothing"),
        ("knows", f"{state.known_peers} peers, {state.known_specialists} specialists"),
        ("served", f"{state.served_requests} requests, {state.served_tokens} tokens"),
        ("drafts", f"{state.accepted_tokens} of {state.drafted_tokens} tokens were right"),
        ("router", "by sentence encoder" if state.encoder else "auto means the plain base"),
        ("API", f"{state.api_url}/v1"),
        ("web", f"{state.api_url}/"),
        ("peer", state.peer),
    ]
    if invite := invitation(state, swarms):
        rows.append(("invite", invite))
    return [f"  {line}" for line in table_lines(rows)]


def _copy(models: Sequence[HostedState]) -> str:
    """A model in memory, and the specialists that are adapters on it."""
    first = min(models, key=lambda model: model.own)
    weights = first.weights - first.own
    line = (
        f"{first.id} ({first.precision}, {format_size(weights)}, "
        f"context {first.context_length}, {first.slots} slots{_kernels(first)})"
    )
    more = [model for model in models if model is not first]
    if not more:
        return line
    own = format_size(sum(model.own for model in more))
    return f"{line}, and on it {', '.join(model.id for model in more)} ({own})"


def _kernels(model: HostedState) -> str:
    return f", {model.kernels}" if model.kernels else ""


def invitation(state: NodeState, swarms: Sequence[SwarmReaders] = ()) -> str:
    """The command that brings another machine into the swarm, or makes the one that does.

    In an open swarm an address is enough; one that other machines can reach is preferred. Empty if
    there is none.
    """
    if any(one.name == state.swarm and one.kind != "open" for one in swarms):
        return f"dslm invite {state.swarm}"
    if not state.addresses:
        return ""
    ordered = sorted(state.addresses, key=lambda address: address.startswith(_LOOPBACK))
    address = ordered[0]
    whole = address if "/p2p/" in address else f"{address}/p2p/{state.peer}"
    return f"dslm join {whole}"


def _swarm_line(name: str, swarms: Sequence[SwarmReaders]) -> str:
    kinds = [f" ({one.kind})" for one in swarms if one.name == name]
    others = [one.name for one in swarms if one.name != name]
    also = f"; also in {', '.join(others)}" if others else ""
    return f"{name}{kinds[0] if kinds else ''}{also}"
