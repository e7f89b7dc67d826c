"""Small things that all endpoints share: JSON bytes, a request's id, where a prompt stands in it.

Knows aiohttp and msgspec; must not know any endpoint's shapes.
"""

from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

REQUEST_ID = web.RequestKey("request_id", str)
TENANT = web.RequestKey("tenant", str)
"""Names the request in the `x-request-id` header, in logs and to the coordinator."""

IS_OWNER = web.RequestKey("is_owner", bool)
"""Whether the request shows the admin token, from this machine."""

_LINE_BREAKS = (
    (b"\xe2\x80\xa8", b"\\u2028"),
    (b"\xe2\x80\xa9", b"\\u2029"),
    (b"\xc2\x85", b"\\u0085"),
)


def encode(value: object) -> bytes:
    """`value` as JSON on one line, also for readers that take Unicode's line breaks for one.

    httpx and others split event streams with `str.splitlines`, which breaks a frame at U+0085,
    U+2028 and U+2029; JSON may carry those as escapes.
    """
    data = msgspec.json.encode(value)
    for character, escape in _LINE_BREAKS:
        data = data.replace(character, escape)
    return data


def json_response(value: object, headers: dict[str, str] | None = None) -> web.Response:
    """`value` as a 200 response."""
    return web.Response(body=encode(value), content_type="application/json", headers=headers)


def prompt_parameter(request: web.Request) -> str:
    """The field that holds the prompt, for errors about its length."""
    return "prompt" if request.path == "/v1/completions" else "messages"
