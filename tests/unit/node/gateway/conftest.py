"""A gateway on a loopback port with a scripted source behind it."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import aiohttp
import msgspec
import pytest

from coordinator.answer import AnswerEvent, AnswerRequest
from node.gateway.config import GatewayConfig
from node.gateway.fake import FixedView, Script, ScriptedAnswers, peer_state, specialist_state
from node.gateway.server import Gateway
from protocols.ids import PeerId, peer_id_from_public_key

ALICE, BOB, CAROL = (peer_id_from_public_key(bytes([number]) * 32) for number in (1, 2, 3))


@dataclass(frozen=True, slots=True)
class Peers:
    """Three peer ids; `alice` is the node under test."""

    alice: PeerId = ALICE
    bob: PeerId = BOB
    carol: PeerId = CAROL


class LoopClock:
    """Real time, on the event loop's time line."""

    def now(self) -> float:
        return time.time()  # noqa: TID251  (a clock)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


def swarm_view() -> FixedView:
    """Three peers that host a base, two of them a specialist with a slash in its id."""
    return FixedView(
        (
            peer_state(ALICE, "me", is_self=True),
            peer_state(BOB, "bob-3090"),
            peer_state(CAROL, "carol"),
        ),
        (
            specialist_state("smollm2-135m", ALICE, BOB, CAROL),
            specialist_state("lab/math-135m", BOB, CAROL, is_base=False),
        ),
    )


class Service:
    """A running gateway, its fake outside, and a client to talk to it."""

    def __init__(
        self, gateway: Gateway, source: ScriptedAnswers, view: FixedView, http: aiohttp.ClientSession
    ) -> None:
        self.gateway = gateway
        self.source = source
        self.view = view
        self.http = http

    def chat(self, **fields: object) -> "aiohttp.client._RequestContextManager":
        """Post a chat; `fields` replace or add to the simplest body."""
        body: dict[str, object] = {
            "model": "auto",
            "messages": [{"role": "user", "content": "hi"}],
        }
        return self.http.post(
            f"{self.gateway.url}/v1/chat/completions",
            data=msgspec.json.encode(body | fields),
            headers={"Content-Type": "application/json"},
        )

    def get(self, path: str, **headers: str) -> "aiohttp.client._RequestContextManager":
        """Get a path."""
        return self.http.get(f"{self.gateway.url}{path}", headers=headers)


Serve = Callable[..., "asyncio.Future[Service]"]


async def _silence(request: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:  # noqa: ARG001
    raise AssertionError("nothing should be asked")
    yield  # pragma: no cover


@pytest.fixture
def peers() -> Peers:
    return Peers()


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., object]]:
    """`await serve(script, view=..., **config)` starts a gateway that ends with the test."""
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())

        async def start(
            script: Script = _silence, view: FixedView | None = None, **settings: object
        ) -> Service:
            config = msgspec.convert({"port": 0, "drain": 0.1, **settings}, GatewayConfig)
            source, known = ScriptedAnswers(script), view or swarm_view()
            gateway = Gateway(
                source, known, config, clock=LoopClock(), rng=random.Random(7)
            )
            await gateway.start()
            stack.push_async_callback(gateway.stop)
            return Service(gateway, source, known, http)

        yield start
