"""`/health`, `/ready`, `/version` and `/metrics`: what watches a node asks.

Knows the node's view; must not wait for anything.
"""

from aiohttp import web
from msgspec import Struct

from node.gateway import wire
from node.gateway.errors import Draining
from node.state import SCHEMA_VERSION, NodeView
from protocols import versions
from protocols.errors import NoCapacity

PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"


class Health(Struct, frozen=True):
    """The answer to both questions, when it is good."""

    status: str


class Version(Struct, frozen=True):
    """What runs here and what it speaks."""

    version: str
    protocols: tuple[str, ...]
    schema_version: int = SCHEMA_VERSION


class HealthRoutes:
    """The endpoints."""

    def __init__(self, view: NodeView) -> None:
        self._view = view

    def routes(self) -> list[web.RouteDef]:
        """What the server adds."""
        return [
            web.get("/health", self._health),
            web.get("/ready", self._ready),
            web.get("/version", self._version),
            web.get("/metrics", self._metrics),
        ]

    async def _health(self, request: web.Request) -> web.Response:  # noqa: ARG002  (a handler)
        return wire.json_response(Health("ok"))

    async def _ready(self, request: web.Request) -> web.Response:  # noqa: ARG002  (a handler)
        state = self._view.state()
        if state.draining:
            raise Draining
        if not self._view.specialists().models:
            raise NoCapacity(
                "No specialist is known yet. Host one, or join a swarm: dslm join ADDRESS."
            )
        return wire.json_response(Health("ready"))

    async def _version(self, request: web.Request) -> web.Response:  # noqa: ARG002  (a handler)
        return wire.json_response(Version(versions.SOFTWARE, versions.ALL))

    async def _metrics(self, request: web.Request) -> web.Response:  # noqa: ARG002  (a handler)
        return web.Response(
            body=self._view.metrics().encode(), headers={"Content-Type": PROMETHEUS_TEXT}
        )
