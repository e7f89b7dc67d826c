"""`/api/v1`: the node's state for the CLI and the page, and the verbs that change it.

Knows the shapes of `node.state`; must not know how the node carries the verbs out. Whoever may send
prompts may see who is there; addresses, faults and verbs are the owner's.
"""

from typing import Annotated

from aiohttp import web
from msgspec import Meta, Struct
from msgspec.structs import replace

from coordinator.answer import Route
from node.gateway import wire
from node.gateway.access import require_owner
from node.gateway.bodies import decode_body
from node.gateway.swarm_choice import queried_swarm
from node.state import (
    SCHEMA_VERSION,
    CardsState,
    NodeState,
    NodeView,
    PeersState,
    ReadersState,
)


class PingBody(Struct, frozen=True):
    """Whom to measure, and how often."""

    peer: Annotated[str, Meta(min_length=1, max_length=96)]
    count: Annotated[int, Meta(ge=1, le=100)] = 4


class AdminRoutes:
    """The endpoints. `route` is what requests get that name none."""

    def __init__(self, view: NodeView, route: Route) -> None:
        self._view = view
        self._route = route

    def routes(self) -> list[web.RouteDef]:
        """What the server adds."""
        return [
            web.get("/api/v1/state", self._state),
            web.get("/api/v1/peers", self._peers),
            web.get("/api/v1/models", self._models),
            web.get("/api/v1/cards", self._cards),
            web.get("/api/v1/readers", self._readers),
            web.get("/api/v1/stats", self._stats),
            web.post("/api/v1/ping", self._ping),
        ]

    async def _state(self, request: web.Request) -> web.Response:
        state = self._view.state(queried_swarm(self._view, request))
        return wire.json_response(state if request[wire.IS_OWNER] else _public_state(state))

    async def _peers(self, request: web.Request) -> web.Response:
        peers = self._view.peers(queried_swarm(self._view, request))
        return wire.json_response(peers if request[wire.IS_OWNER] else _public_peers(peers))

    async def _models(self, request: web.Request) -> web.Response:
        return wire.json_response(self._view.specialists(queried_swarm(self._view, request)))

    async def _cards(self, request: web.Request) -> web.Response:
        swarm = queried_swarm(self._view, request)
        cards = self._view.cards(request.query.get("specialist", ""), swarm)
        return wire.json_response(cards if request[wire.IS_OWNER] else _public_cards(cards))

    async def _readers(self, request: web.Request) -> web.Response:  # noqa: ARG002  (a handler)
        return wire.json_response(ReadersState(SCHEMA_VERSION, self._route, self._view.readers()))

    async def _stats(self, request: web.Request) -> web.Response:  # noqa: ARG002  (a handler)
        return wire.json_response(self._view.stats())

    async def _ping(self, request: web.Request) -> web.Response:
        require_owner(request)
        body = decode_body(await request.read(), PingBody)
        return wire.json_response(await self._view.ping(body.peer, body.count))


def _public_state(state: NodeState) -> NodeState:
    return replace(state, addresses=())


def _public_cards(state: CardsState) -> CardsState:
    """Without what this node thinks of them."""
    cards = tuple(replace(card, trust=None, agreement=None) for card in state.cards)
    return replace(state, cards=cards)


def _public_peers(state: PeersState) -> PeersState:
    """Without where the peers are, and what went wrong with them."""
    peers = tuple(replace(peer, addresses=(), last_error="") for peer in state.peers)
    return replace(state, peers=peers)
