"""`POST /api/v1/join`: a join's checks as they are done, one line of JSON each.

Knows when lines go out; must not know what is checked.
"""

import logging
from contextlib import aclosing
from typing import Annotated

from aiohttp import web
from msgspec import Meta, Struct

from node.gateway import wire
from node.gateway.access import require_owner
from node.gateway.bodies import decode_body
from node.gateway.errors import failure_of, unexpected_failure
from node.state import NodeView
from protocols import limits
from protocols.defects import describe
from protocols.errors import DslmError

_log = logging.getLogger(__name__)
_HEADERS = {
    "Content-Type": "application/x-ndjson",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}


class JoinBody(Struct, frozen=True):
    """An invite, or a multiaddress that ends in `/p2p/<peer id>`."""

    target: Annotated[str, Meta(min_length=1, max_length=3 * limits.INVITE_BYTES_MAX)]


class JoinRoutes:
    """The endpoint; the owner's."""

    def __init__(self, view: NodeView) -> None:
        self._view = view

    def routes(self) -> list[web.RouteDef]:
        """What the server adds."""
        return [web.post("/api/v1/join", self._post)]

    async def _post(self, request: web.Request) -> web.StreamResponse:
        """Lines of `Check`, then one of `JoinReport`, or of an error body if it broke off."""
        require_owner(request)
        body = decode_body(await request.read(), JoinBody)
        lines = _Lines(request)
        try:
            async with aclosing(self._view.join(body.target)) as found:
                async for one in found:
                    await lines.write(one)
        except ConnectionError:
            raise  # The client is gone: there is nobody to tell.
        except DslmError as error:
            if not lines.is_started:
                raise
            await lines.write(failure_of(error).body)
        except Exception as error:
            if not lines.is_started:
                raise
            _log.error("request %s failed: %s", request[wire.REQUEST_ID], describe(error))
            await lines.write(unexpected_failure(request[wire.REQUEST_ID]).body)
        return lines.response


class _Lines:
    """A response that starts with its first line, so that an early error has a status."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self.response = web.StreamResponse(headers=_HEADERS)

    @property
    def is_started(self) -> bool:
        return self.response.prepared

    async def write(self, value: object) -> None:
        if not self.is_started:
            await self.response.prepare(self._request)
        await self.response.write(wire.encode(value) + b"\n")
