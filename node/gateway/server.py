"""The gateway as one thing to start and stop: routes, middlewares, the listening socket.

Knows all endpoints and aiohttp's life cycle; must not know what they do.
"""

import errno
import random
import socket

from aiohttp import web

from node.gateway import wire
from node.gateway.access import Access, Door
from node.gateway.adapters import AdapterRoutes
from node.gateway.admin import AdminRoutes
from node.gateway.answers import AnswerSender
from node.gateway.chat import ChatRoutes
from node.gateway.completions import CompletionRoutes
from node.gateway.config import GatewayConfig
from node.gateway.errors import shape_errors
from node.gateway.guard import Guard
from node.gateway.health import HealthRoutes
from node.gateway.http_log import HttpLog
from node.gateway.joins import JoinRoutes
from node.gateway.keys import require_keys
from node.gateway.models import ModelRoutes
from node.gateway.page import PageRoutes
from node.gateway.ports import AnswerSource
from node.gateway.requests import RequestReader
from node.gateway.routing import RouteRoutes
from node.gateway.running import Running
from node.gateway.swarms import SwarmRoutes
from node.state import NodeView
from protocols.errors import AddressInUse, ConfigError
from protocols.ports import Clock

_LAST_SECONDS = 1.0
"""For frames on their way out when a drain has ended."""


class Gateway:
    """The node's HTTP server.

    `rng` draws request ids and the seeds that requests leave open. `access` says whose word
    counts; without it there is no owner, and a node that needs keys does not start.
    """

    def __init__(
        self,
        answers: AnswerSource,
        view: NodeView,
        config: GatewayConfig,
        *,
        clock: Clock,
        rng: random.Random,
        access: Access | None = None,
    ) -> None:
        self._config = config
        self._access = access or Access()
        self._rng = rng
        self._running = Running()
        reader = RequestReader(config, view, rng)
        sender = AnswerSender(answers, config, clock, self._running)
        self._runner = web.AppRunner(
            self._application(
                ChatRoutes(reader, sender).routes()
                + CompletionRoutes(reader, sender).routes()
                + ModelRoutes(view, int(clock.now())).routes()
                + AdminRoutes(view, config.route).routes()
                + RouteRoutes(reader, answers, clock).routes()
                + AdapterRoutes(view).routes()
                + SwarmRoutes(view).routes()
                + JoinRoutes(view).routes()
                + HealthRoutes(view).routes()
                + PageRoutes().routes()
            ),
            handler_cancellation=True,
            access_log=None,
            logger=HttpLog(),
            shutdown_timeout=_LAST_SECONDS,
        )

    @property
    def url(self) -> str:
        """Where the gateway listens, without a slash at the end; started before."""
        host, port = self._runner.addresses[0][:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def running(self) -> int:
        """Answers in progress."""
        return len(self._running)

    async def start(self) -> None:
        """Listen. `AddressInUse` if the port is taken, `ConfigError` if it cannot be had.

        Also `ConfigError` if an API key is needed and nobody has one.
        """
        require_keys(self._config, self._access.keys)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._config.host, self._config.port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise _listen_error(error, self._config) from error

    async def stop(self) -> None:
        """Listen no more, let answers end for `config.drain` seconds, then cut them short.

        What is cut short ends with an error frame or a 503. Harmless when called again.
        """
        for site in self._runner.sites:
            await site.stop()
        await self._running.drain(self._config.drain)
        await self._runner.cleanup()

    def _application(self, routes: list[web.RouteDef]) -> web.Application:
        guard, door = Guard(self._config), Door(self._access, self._config)
        application = web.Application(
            middlewares=[self._name_request, shape_errors, guard.check, door.check],
            client_max_size=self._config.body_bytes_max,
        )
        application.add_routes(routes)
        application.on_response_prepare.append(guard.add_headers)
        return application

    @web.middleware
    async def _name_request(
        self, request: web.Request, handler: wire.Handler
    ) -> web.StreamResponse:
        request[wire.REQUEST_ID] = f"req_{self._rng.getrandbits(128):032x}"
        return await handler(request)


def _listen_error(error: OSError, config: GatewayConfig) -> ConfigError | AddressInUse:
    where = f"{config.host}, port {config.port}"
    if error.errno == errno.EADDRINUSE:
        return AddressInUse(
            f"Port {config.port} on {config.host} is taken. If a node runs already, `dslm status` "
            "shows it. Otherwise choose another address: [api] listen in config.toml, or "
            "DSLM_API_LISTEN."
        )
    if isinstance(error, socket.gaierror):
        return ConfigError(f"api.listen: {config.host!r} is not an address of this machine.")
    return ConfigError(f"api.listen: cannot listen on {where}: {error.strerror or error}.")
