"""Which swarm a request is for, and who can read what is sent there.

Knows the node's own swarms by name; must not know how requests are answered.
"""

from typing import Literal, assert_never

from aiohttp import web

from coordinator.answer import Route
from node.gateway.errors import UnknownSwarm
from node.state import NodeView, SwarmReaders

ReadersCode = Literal["local", "members", "trusted-peers", "anyone-who-serves"]
"""Who can read a prompt: this machine, members of a private swarm, peers that the owner named (and
this machine), any peer of a public swarm."""

_SHOWN = 8


def choose_swarm(view: NodeView, name: str | None) -> SwarmReaders:
    """The swarm `name` of this node, or the current one; `UnknownSwarm` if it is not in it."""
    known = view.readers()
    for one in known:
        if one.is_current if name is None else one.name == name:
            return one
    if name is None:
        raise UnknownSwarm("This node is in no swarm at the moment.")
    names = ", ".join(one.name for one in known[:_SHOWN])
    raise UnknownSwarm(f"This node is in no swarm called {name[:100]!r}. It is in: {names}.")


def queried_swarm(view: NodeView, request: web.Request) -> str:
    """The name of the swarm that `?swarm=` names, or of the current one."""
    return choose_swarm(view, request.query.get("swarm")).name


def headed_swarm(view: NodeView, request: web.Request) -> SwarmReaders:
    """The swarm that the header `X-DSLM-Swarm` names, or the current one."""
    return choose_swarm(view, request.headers.get("X-DSLM-Swarm"))


def readers_code(route: Route, swarm: SwarmReaders) -> ReadersCode:
    """Who can read a prompt that is sent to `swarm` by `route`."""
    match route:
        case Route.LOCAL:
            return "local"
        case _ if swarm.kind == "private":
            return "members"
        case Route.TRUSTED:
            return "trusted-peers"
        case Route.ANY:
            return "anyone-who-serves"
        case _:
            assert_never(route)
