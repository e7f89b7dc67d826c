"""`GET /`: the chat page, one file, under a policy that lets it load and run nothing else.

Knows the file and its security headers; must not know what the page does.
"""

import base64
import hashlib
import re
from importlib import resources

from aiohttp import web

_INLINE = re.compile(rb"<(script|style)>(.*?)</\1>", re.DOTALL)


def content_security_policy(page: bytes) -> str:
    """A policy that allows exactly the inline scripts and styles of `page`, and calls to home."""
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for kind, content in _INLINE.findall(page):
        digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
        hashes[kind.decode()].append(f"'sha256-{digest}'")
    return (
        f"default-src 'none'; script-src {' '.join(hashes['script'])}; "
        f"style-src {' '.join(hashes['style'])}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
    )


class PageRoutes:
    """The endpoint. The file is read once."""

    def __init__(self) -> None:
        self._page = (resources.files("node.gateway") / "web" / "index.html").read_bytes()
        self._headers = {
            "Content-Security-Policy": content_security_policy(self._page),
            "Cache-Control": "no-cache",
            "Referrer-Policy": "no-referrer",
            "X-Frame-Options": "DENY",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
        }

    def routes(self) -> list[web.RouteDef]:
        """What the server adds."""
        return [web.get("/", self._get)]

    async def _get(self, request: web.Request) -> web.Response:  # noqa: ARG002  (a handler)
        return web.Response(
            body=self._page, content_type="text/html", charset="utf-8", headers=self._headers
        )
