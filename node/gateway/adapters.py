"""`/api/v1/adapters`: specialists that the owner loads and unloads while the node runs.

Knows the shapes of `node.adapter_state`; must not know how adapters are read. All is the owner's.
"""

from typing import Annotated

from aiohttp import web
from msgspec import Meta, Struct

from node.adapter_state import NAME_MAX, AdapterOrder
from node.gateway import wire
from node.gateway.access import require_owner
from node.gateway.bodies import decode_body
from node.state import NodeView


class RemoveBody(Struct, frozen=True):
    """The specialist to offer no more."""

    id: Annotated[str, Meta(min_length=1, max_length=NAME_MAX)]


class AdapterRoutes:
    """The endpoints."""

    def __init__(self, view: NodeView) -> None:
        self._view = view

    def routes(self) -> list[web.RouteDef]:
        """What the server adds."""
        return [
            web.get("/api/v1/adapters", self._list),
            web.post("/api/v1/adapters", self._add),
            web.post("/api/v1/adapters/remove", self._remove),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        require_owner(request)
        return wire.json_response(self._view.adapters())

    async def _add(self, request: web.Request) -> web.Response:
        require_owner(request)
        await self._view.add_adapter(decode_body(await request.read(), AdapterOrder))
        return wire.json_response(self._view.adapters())

    async def _remove(self, request: web.Request) -> web.Response:
        require_owner(request)
        await self._view.remove_adapter(decode_body(await request.read(), RemoveBody).id)
        return wire.json_response(self._view.adapters())
