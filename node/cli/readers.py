"""A prompt as a command gets it, and who can read it, told before it leaves this machine.

Knows the words and standard input; who is who is the node's knowledge.
"""

import sys

from node.cli.answering import RouteName
from node.cli.client import Client
from node.cli.exits import UnknownSwarm, UsageError
from node.cli.output import tell
from node.state import ReadersState, SwarmReaders


def with_input(prompt: str, usage: str) -> str:
    """`prompt`, and what is piped in after it. `UsageError`, naming `usage`, if that is nothing."""
    piped = "" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.read()
    text = "\n".join(part for part in (prompt, piped) if part.strip())
    if not text:
        raise UsageError(f"there is nothing to ask: {usage}, or pipe a text in")
    return text


def tell_readers(client: Client, route: RouteName | None, swarm: str) -> None:
    """One line on who can read what is asked by `route` in `swarm` (the node's defaults if empty).

    `UnknownSwarm` if the node is not in that swarm, and the errors of `Client.get`.
    """
    state = client.get("/api/v1/readers", ReadersState)
    tell(describe(find_swarm(state, swarm), route or state.route))


def find_swarm(state: ReadersState, name: str) -> SwarmReaders:
    """The swarm `name`, or the current one."""
    for one in state.swarms:
        if one.name == name if name else one.is_current:
            return one
    names = ", ".join(one.name for one in state.swarms) or "none"
    raise UnknownSwarm(f"this node is in no swarm {name!r}; it is in: {names}")


def describe(swarm: SwarmReaders, route: str) -> str:
    """Who can read prompts, as a sentence."""
    where = f"swarm {swarm.name} ({swarm.kind}), route {route}"
    if route == "local":
        return f"{where}: prompts stay on this node, nobody else can read them"
    if route == "trusted" and swarm.kind != "private":
        return (
            f"{where}: this node and the peers named in its setting router.trusted can read prompts"
        )
    return f"{where}: {swarm.readers}"
