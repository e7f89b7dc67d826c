"""The page's file and its security policy; `tests/integration/test_web_page.py` drives it."""

import base64
import hashlib
import re
from importlib import resources

import aiohttp
import pytest

from node.gateway.fake import Speech
from node.gateway.page import content_security_policy
from node.gateway.trial import BOB, open_trial


@pytest.fixture
def page() -> str:
    return (resources.files("node.gateway") / "web" / "index.html").read_text("utf-8")


async def test_the_page_comes_with_a_strict_policy(page: str) -> None:
    async with (
        open_trial(Speech(BOB, ["x"])) as trial,
        aiohttp.ClientSession(base_url=trial.gateway.url) as http,
        http.get("/") as response,
    ):
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/html; charset=utf-8"
        assert await response.text() == page
        policy = response.headers["Content-Security-Policy"]
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "connect-src 'self'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


def test_the_policy_names_the_inline_parts_by_their_hashes() -> None:
    def digest(text: bytes) -> str:
        return base64.b64encode(hashlib.sha256(text).digest()).decode()

    policy = content_security_policy(
        b"<style>a{}</style><script>run()</script><script>go()</script>"
    )
    assert f"script-src 'sha256-{digest(b'run()')}' 'sha256-{digest(b'go()')}';" in policy
    assert f"style-src 'sha256-{digest(b'a{}')}';" in policy


def test_the_page_stands_alone_and_never_reads_text_as_markup(page: str) -> None:
    assert len(page.splitlines()) < 450
    assert not re.search(r"https?://|//cdn|@import|\bsrc=|url\(", page)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", page)
    assert not re.search(r"\son\w+=|\sstyle=", page)  # inline handlers and styles: the policy's no
