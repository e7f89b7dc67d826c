"""Keeps other people's web pages out: the Host and Origin of a request, and the CORS headers.

Knows browsers' rules; must not know any endpoint. A page elsewhere can make a browser send requests
to this node; where no key is asked for, only its place tells such a request from the user's own.
"""

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from aiohttp import web

from node.gateway import wire
from node.gateway.config import GatewayConfig, listens_on_loopback
from node.gateway.errors import Forbidden

_EXPOSED = (
    "x-request-id, x-dslm-node, x-dslm-model, x-dslm-swarm, x-dslm-route, x-dslm-readers, "
    "retry-after"
)
_HEADERS_BYTES_MAX = 1_000


def is_loopback(host: str) -> bool:
    """Whether `host` (a name or an address, brackets allowed) means this machine."""
    name = _plain(host)
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_address(host: str) -> bool:
    """Whether `host` is an address, so that no DNS server was asked for it."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class Guard:
    """Checks requests to a server with these settings.

    A server on loopback is called by its loopback names, one elsewhere by any address of the
    machine too; both by the names that the settings list.
    """

    def __init__(self, config: GatewayConfig) -> None:
        self._is_private = listens_on_loopback(config.host)
        self._names = frozenset(_plain(name) for name in (config.host, *config.hosts))

    @web.middleware
    async def check(self, request: web.Request, handler: wire.Handler) -> web.StreamResponse:
        """`Forbidden` for a foreign Host or Origin; answers CORS preflights."""
        self._check_host(request)
        origin = request.headers.get("Origin")
        if origin is not None and not self._is_friend(origin, request):
            raise Forbidden(
                f"Pages from {origin[:200]} may not use this node: only its own page and pages "
                "from localhost may."
            )
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            return web.Response(status=204, headers=_preflight_headers(request.headers))
        return await handler(request)

    async def add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        """Signal `on_response_prepare`: headers that every response has, streams and errors too."""
        response.headers["x-request-id"] = request.get(wire.REQUEST_ID, "")
        response.headers["X-Content-Type-Options"] = "nosniff"
        origin = request.headers.get("Origin")
        response.headers.add("Vary", "Origin")
        if origin is not None and self._is_friend(origin, request):
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = _EXPOSED

    def _check_host(self, request: web.Request) -> None:
        """A name that an attacker's DNS points at this machine is not ours (DNS rebinding)."""
        host = _host_name(f"//{request.headers.get('Host', '')}")
        if is_loopback(host) or _plain(host) in self._names:
            return
        if self._is_private or not is_address(host):
            raise Forbidden(
                f"This node is not called {host[:200]!r}. If it should be, its owner adds that "
                "name to api.hosts."
            )

    def _is_friend(self, origin: str, request: web.Request) -> bool:
        if not origin.startswith(("http://", "https://")):
            return False
        is_own = origin.partition("://")[2] == request.headers.get("Host")
        return is_own or is_loopback(_host_name(origin))


def _plain(name: str) -> str:
    return name.strip("[]").rstrip(".").lower()


def _host_name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _preflight_headers(headers: Mapping[str, str]) -> dict[str, str]:
    wanted = headers.get("Access-Control-Request-Headers", "")
    return {
        "Access-Control-Allow-Methods": "GET, POST",
        "Access-Control-Allow-Headers": wanted if len(wanted) <= _HEADERS_BYTES_MAX else "",
        "Access-Control-Max-Age": "600",
    }
