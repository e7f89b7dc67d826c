"""`/api/v1/swarms`: the swarms of this node, and the verbs of their members.

Knows the shapes of `node.state`; must not know what makes a member. All of it is the owner's.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated

from aiohttp import web
from msgspec import Meta, Struct

from node.gateway import wire
from node.gateway.access import require_owner
from node.gateway.bodies import decode_body
from node.gateway.swarm_choice import choose_swarm
from node.state import SCHEMA_VERSION, DocumentsState, NodeView
from protocols import limits
from protocols.membership.documents import Role

_LIFETIME_SECONDS_MAX = 10 * 365 * 24 * 3_600.0


class InviteBody(Struct, frozen=True):
    """What an invite allows; `lifetime` is in seconds."""

    roles: Annotated[tuple[Role, ...], Meta(max_length=len(Role))]
    uses: Annotated[int, Meta(ge=1, le=limits.INVITE_USES_MAX)]
    lifetime: Annotated[float, Meta(gt=0, le=_LIFETIME_SECONDS_MAX)]


class WithdrawBody(Struct, frozen=True):
    """An invite string, or the id that was told when it was made."""

    invite: Annotated[str, Meta(min_length=1, max_length=2 * limits.INVITE_BYTES_MAX)]


class LoadBody(Struct, frozen=True):
    """The swarm whose folder is there."""

    name: Annotated[str, Meta(min_length=1, max_length=96)]


class DocumentsBody(Struct, frozen=True):
    """Signed documents, base64 in JSON."""

    documents: Annotated[
        tuple[Annotated[bytes, Meta(min_length=1, max_length=limits.REVOCATIONS_BYTES_MAX)], ...],
        Meta(min_length=1, max_length=limits.DELEGATIONS_MAX + 1),
    ]


Verb = Callable[[str, web.Request], Awaitable[web.Response]]


class SwarmRoutes:
    """The endpoints."""

    def __init__(self, view: NodeView) -> None:
        self._view = view

    def routes(self) -> list[web.RouteDef]:
        """What the server adds."""
        one = "/api/v1/swarms/{name}"
        return [
            web.get("/api/v1/swarms", self._list),
            web.post("/api/v1/swarms/load", self._load),
            web.get(f"{one}/members", self._for_one(self._members)),
            web.post(f"{one}/invite", self._for_one(self._invite)),
            web.post(f"{one}/withdraw", self._for_one(self._withdraw)),
            web.post(f"{one}/use", self._for_one(self._use)),
            web.post(f"{one}/leave", self._for_one(self._leave)),
            web.get(f"{one}/documents", self._for_one(self._documents)),
            web.post(f"{one}/documents", self._for_one(self._publish)),
        ]

    def _for_one(self, verb: Verb) -> wire.Handler:
        """`verb` for the owner, with the name of a swarm that the node is in."""

        async def handler(request: web.Request) -> web.Response:
            require_owner(request)
            return await verb(choose_swarm(self._view, request.match_info["name"]).name, request)

        return handler

    async def _list(self, request: web.Request) -> web.Response:
        require_owner(request)
        return await self._swarms()

    async def _swarms(self) -> web.Response:
        return wire.json_response(await self._view.swarms())

    async def _load(self, request: web.Request) -> web.Response:
        require_owner(request)
        await self._view.load(decode_body(await request.read(), LoadBody).name)
        return await self._swarms()

    async def _members(self, name: str, request: web.Request) -> web.Response:  # noqa: ARG002
        return wire.json_response(await self._view.members(name))

    async def _invite(self, name: str, request: web.Request) -> web.Response:
        body = decode_body(await request.read(), InviteBody)
        roles = tuple(role.value for role in body.roles)
        return wire.json_response(await self._view.invite(name, roles, body.uses, body.lifetime))

    async def _withdraw(self, name: str, request: web.Request) -> web.Response:
        body = decode_body(await request.read(), WithdrawBody)
        return wire.json_response(await self._view.withdraw(name, body.invite))

    async def _use(self, name: str, request: web.Request) -> web.Response:  # noqa: ARG002
        await self._view.use(name)
        return await self._swarms()

    async def _leave(self, name: str, request: web.Request) -> web.Response:  # noqa: ARG002
        await self._view.leave(name)
        return await self._swarms()

    async def _documents(self, name: str, request: web.Request) -> web.Response:  # noqa: ARG002
        documents = await self._view.documents(name)
        return wire.json_response(DocumentsState(SCHEMA_VERSION, name, documents))

    async def _publish(self, name: str, request: web.Request) -> web.Response:
        body = decode_body(await request.read(), DocumentsBody)
        await self._view.publish(name, body.documents)
        return await self._swarms()
