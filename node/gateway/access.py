"""Who may use the gateway: everybody on this machine, holders of a key, the node's owner.

Knows bearer credentials and where a connection comes from; must not know any endpoint but those
that are open to all.
"""

import ipaddress
from dataclasses import dataclass, field
from hashlib import blake2b

from aiohttp import web

from node.gateway import wire
from node.gateway.admin_token import AdminToken
from node.gateway.config import GatewayConfig
from node.gateway.errors import Forbidden, InvalidKey
from node.gateway.keys import Keys, NoKeys

OPEN_PATHS = frozenset({"/", "/health", "/ready"})
"""The page is the same for everybody, and asks for a key itself; monitors have none."""


@dataclass(frozen=True, slots=True)
class Access:
    """Whose word counts. Without a token nobody is the owner."""

    keys: Keys = field(default_factory=NoKeys)
    admin: AdminToken | None = None


class Door:
    """Lets requests in that `config` and `access` allow."""

    def __init__(self, access: Access, config: GatewayConfig) -> None:
        self._access = access
        self._config = config

    @web.middleware
    async def check(self, request: web.Request, handler: wire.Handler) -> web.StreamResponse:
        """`InvalidKey` unless the request may be answered; notes whether it is the owner's."""
        secret = _bearer(request)
        is_owner = self._is_owner(request, secret)
        request[wire.IS_OWNER] = is_owner
        if self._config.needs_key and request.path not in OPEN_PATHS and not is_owner:
            self._require_key(secret)
            request[wire.TENANT] = tenant_of(secret)
        return await handler(request)

    def _require_key(self, secret: str) -> None:
        if not secret:
            raise InvalidKey(
                "This node asks for an API key: send it as 'Authorization: Bearer KEY'. "
                "`dslm key create NAME` on the node's machine makes one."
            )
        if self._access.keys.check(secret) is None:
            raise InvalidKey("This API key is not known here. It may have been removed.")

    def _is_owner(self, request: web.Request, secret: str) -> bool:
        admin = self._access.admin
        return admin is not None and admin.matches(secret) and _is_this_machine(request)


def require_owner(request: web.Request) -> None:
    """`Forbidden` unless the request shows the admin token, and comes from this machine."""
    if not request[wire.IS_OWNER]:
        raise Forbidden(
            "Only the owner of this node may ask this, on its own machine: `dslm` commands show "
            "the token in the file admin.token, which no other user can read."
        )


def _bearer(request: web.Request) -> str:
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""


def _is_this_machine(request: web.Request) -> bool:
    """Whether the other end is on this machine: on loopback, or on the very address it called."""
    if request.transport is None:
        return False
    peer, own = (request.transport.get_extra_info(name) for name in ("peername", "sockname"))
    try:
        return ipaddress.ip_address(peer[0]).is_loopback or bool(peer[0] == own[0])
    except (TypeError, IndexError, ValueError):
        return False


def tenant_of(secret: str) -> str:
    """A name for whoever holds a key, from which nobody learns the key or its name."""
    return blake2b(secret.encode(), digest_size=8, person=b"dslm-tenant").hexdigest()
