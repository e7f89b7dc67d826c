"""Pairs of peers to run the conformance suite over, one pair per implementation of the ports."""

import contextlib
import importlib.util
import os
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from protocols.adapters.clock import SystemClock
from protocols.ports import Clock, RecordStore, Transport
from protocols.signing import Identity

if TYPE_CHECKING:
    from protocols.adapters.libp2p.network import Libp2pNetwork

ONLY_PYLIBP2P = "DSLM_CONFORMANCE_PYLIBP2P"
"""Holds the address of a `peer_process` in the process in which py-libp2p is tested.

hivemind may not be imported there."""

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Pair:
    """A client that can reach a server at `address`; `server` is None if it is another process."""

    client: Transport
    server: Transport | None
    address: str


PairContext = AbstractAsyncContextManager[Pair]


@dataclass(frozen=True)
class Stores:
    """The record stores of three peers that know each other, and the clock they go by."""

    stores: tuple[RecordStore, ...]
    clock: Clock
    pass_time: Callable[[float], None] | None


def _load_behaviours() -> ModuleType:
    spec = importlib.util.spec_from_file_location("peer_process", HERE / "peer_process.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def behaviours() -> ModuleType:
    return _load_behaviours()


@asynccontextmanager
async def memory_pair(behaviours: ModuleType) -> AsyncIterator[Pair]:
    from protocols.adapters.memory import MemoryNetwork

    async with MemoryNetwork(7, SystemClock()) as network:
        client, server = network.join(Identity.generate()), network.join(Identity.generate())
        await behaviours.serve_all(server.transport)
        yield Pair(client.transport, server.transport, server.transport.addresses()[0])


@asynccontextmanager
async def libp2p_pair(behaviours: ModuleType) -> AsyncIterator[Pair]:
    async with libp2p_networks(2) as (client, server):
        await behaviours.serve_all(server.transport)
        yield Pair(client.transport, server.transport, server.transport.addresses()[0])


@asynccontextmanager
async def libp2p_networks(count: int) -> AsyncIterator["tuple[Libp2pNetwork, ...]"]:
    from protocols.adapters.libp2p.network import Libp2pConfig, Libp2pNetwork

    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        networks = []
        for _ in range(count):
            config = Libp2pConfig(Identity.generate(), ("/ip4/127.0.0.1/tcp/0",), folder)
            networks.append(await stack.enter_async_context(Libp2pNetwork(config, SystemClock())))
        yield tuple(networks)


@asynccontextmanager
async def pylibp2p_pair(_behaviours: ModuleType) -> AsyncIterator[Pair]:
    from protocols.adapters.pylibp2p import PyLibp2pTransport

    async with PyLibp2pTransport(Identity.generate()) as client:
        yield Pair(client, None, os.environ[ONLY_PYLIBP2P])


if os.environ.get(ONLY_PYLIBP2P):
    TRANSPORTS = [pytest.param(pylibp2p_pair, id="pylibp2p", marks=pytest.mark.integration)]
else:
    TRANSPORTS = [
        pytest.param(memory_pair, id="memory"),
        pytest.param(libp2p_pair, id="libp2p", marks=pytest.mark.integration),
    ]


@pytest.fixture(scope="module", params=TRANSPORTS)
def make_pair(request: pytest.FixtureRequest) -> Callable[[ModuleType], PairContext]:
    make: Callable[[ModuleType], PairContext] = request.param
    return make


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(
    make_pair: Callable[[ModuleType], PairContext], behaviours: ModuleType
) -> AsyncGenerator[Pair, None]:
    """One for all tests, as a node has one transport for all that it does: it costs two daemons."""
    async with make_pair(behaviours) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def fresh_pair(
    make_pair: Callable[[ModuleType], PairContext], behaviours: ModuleType
) -> AsyncGenerator[Pair, None]:
    """One that has not met yet, and that may be broken."""
    async with make_pair(behaviours) as made:
        yield made


SLOW_OVER_LIBP2P = (pytest.mark.integration, pytest.mark.slow)
"""Three daemons for each test take seconds; by default the records of the network in memory do."""


@asynccontextmanager
async def memory_stores() -> AsyncIterator[Stores]:
    from protocols.adapters.clock import ManualClock
    from protocols.adapters.memory import MemoryNetwork

    clock = ManualClock()
    async with MemoryNetwork(7, clock) as network:
        peers = [network.join(Identity.generate()) for _ in range(3)]
        for peer in peers[1:]:
            await peer.transport.connect(peers[0].transport.addresses()[0])
        yield Stores(tuple(peer.records for peer in peers), clock, clock.advance)


@asynccontextmanager
async def libp2p_stores() -> AsyncIterator[Stores]:
    async with libp2p_networks(3) as networks:
        for network in networks[1:]:
            report = await network.join(networks[0].transport.addresses())
            assert not report.unreachable
        yield Stores(tuple(network.records for network in networks), SystemClock(), None)


@pytest.fixture(
    params=[
        pytest.param(memory_stores, id="memory"),
        pytest.param(libp2p_stores, id="libp2p", marks=SLOW_OVER_LIBP2P),
    ]
)
async def stores(request: pytest.FixtureRequest) -> AsyncGenerator[Stores, None]:
    make: Callable[[], AbstractAsyncContextManager[Stores]] = request.param
    async with make() as made:
        yield made
