"""`/api/v1`: the node's state for the CLI and the page, and the verbs that change it.

Knows the shapes of `node.state`; must not know how the node carries the verbs out.
"""

import ipaddress
from typing import Annotated

from aiohttp import web
from msgspec import Meta, Struct

from node.gateway import wire
from node.gateway.bodies import decode_body
from node.gateway.errors import Forbidden
from node.state import NodeView
from protocols import limits


class JoinBody(Struct, frozen=True):
    """Whom to dial: a multiaddress that ends in `/p2p/<peer id>`."""

    address: Annotated[str, Meta(min_length=1, max_length=limits.ADDRESS_BYTES_MAX)]


class PingBody(Struct, frozen=True):
    """Whom to measure, and how often."""

    peer: Annotated[str, Meta(min_length=1, max_length=96)]
    count: Annotated[int, Meta(ge=1, le=100)] = 4


class AdminRoutes:
    """The endpoints; the verbs answer to this machine only."""

    def __init__(self, view: NodeView) -> None:
        self._view = view

    def routes(self) -> list[web.RouteDef]:
        """What the server adds."""
        return [
            web.get("/api/v1/state", self._state),
            web.get("/api/v1/peers", self._peers),
            web.get("/api/v1/models", self._models),
            web.post("/api/v1/join", self._join),
            web.post("/api/v1/ping", self._ping),
        ]

    async def _state(self, request: web.Request) -> web.Response:  # noqa: ARG002  (a handler)
        return wire.json_response(self._view.state())

    async def _peers(self, request: web.Request) -> web.Response:  # noqa: ARG002  (a handler)
        return wire.json_response(self._view.peers())

    async def _models(self, request: web.Request) -> web.Response:  # noqa: ARG002  (a handler)
        return wire.json_response(self._view.specialists())

    async def _join(self, request: web.Request) -> web.Response:
        _require_this_machine(request)
        body = decode_body(await request.read(), JoinBody)
        return wire.json_response(await self._view.join(body.address))

    async def _ping(self, request: web.Request) -> web.Response:
        _require_this_machine(request)
        body = decode_body(await request.read(), PingBody)
        return wire.json_response(await self._view.ping(body.peer, body.count))


def _require_this_machine(request: web.Request) -> None:
    """`Forbidden` unless the connection comes from loopback."""
    try:
        is_local = ipaddress.ip_address(request.remote or "").is_loopback
    except ValueError:
        is_local = False
    if not is_local:
        raise Forbidden("This can only be asked from the machine that the node runs on.")
