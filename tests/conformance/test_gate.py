"""Transports and record stores ask the gate before they do anything, whichever they are."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from protocols import versions
from protocols.adapters.clock import SystemClock
from protocols.errors import DslmError, NotAdmitted
from protocols.ports import RecordStore, Stream, Transport
from protocols.signing import Identity
from tests.conformance.fake_gate import FakeGate

TOLD = "/test/told/1"


@dataclass(frozen=True)
class Guarded:
    """A peer with a gate."""

    transport: Transport
    records: RecordStore
    gate: FakeGate


@asynccontextmanager
async def memory_peers() -> AsyncIterator[tuple[Guarded, Guarded]]:
    from protocols.adapters.memory import MemoryNetwork

    async with MemoryNetwork(7, SystemClock()) as network:
        peers = []
        for _ in range(2):
            gate = FakeGate()
            peer = network.join(Identity.generate(), gate)
            peers.append(Guarded(peer.transport, peer.records, gate))
        yield peers[0], peers[1]
        assert all(isinstance(defect, LookupError) for defect in network.defects)


@asynccontextmanager
async def libp2p_peers() -> AsyncIterator[tuple[Guarded, Guarded]]:
    from protocols.adapters.libp2p.network import Libp2pConfig, Libp2pNetwork

    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        peers = []
        for _ in range(2):
            gate = FakeGate()
            config = Libp2pConfig(Identity.generate(), ("/ip4/127.0.0.1/tcp/0",), folder)
            network = Libp2pNetwork(config, SystemClock(), gate)
            await stack.enter_async_context(network)
            peers.append(Guarded(network.transport, network.records, gate))
        yield peers[0], peers[1]


@pytest.fixture(
    params=[
        pytest.param(memory_peers, id="memory"),
        pytest.param(libp2p_peers, id="libp2p", marks=(pytest.mark.integration, pytest.mark.slow)),
    ]
)
async def peers(request: pytest.FixtureRequest) -> AsyncGenerator[tuple[Guarded, Guarded], None]:
    """A client that is connected to a server, both with a gate."""
    make: Callable[[], AbstractAsyncContextManager[tuple[Guarded, Guarded]]] = request.param
    async with make() as (client, server):
        await server.transport.serve("/test/any/1", _nothing)
        await client.transport.connect(server.transport.addresses()[0])
        yield client, server


class Secret:
    """A handler that tells a secret, and counts how often it was run."""

    def __init__(self) -> None:
        self.runs = 0

    async def __call__(self, stream: Stream) -> None:
        self.runs += 1
        await stream.send(b"secret")
        while await stream.receive():
            pass


async def _nothing(_stream: Stream) -> None:
    return


async def ask(client: Guarded, server: Guarded) -> bytes:
    """What a stream of the secret protocol gives; `b""` if it is broken off or ends."""
    stream = await client.transport.open_stream(server.transport.peer_id, TOLD)
    try:
        async with asyncio.timeout(5):
            return await stream.receive()
    except DslmError:
        return b""
    finally:
        stream.abort()


async def test_a_greeting_comes_before_the_first_stream(peers: tuple[Guarded, Guarded]) -> None:
    client, server = peers
    handler = Secret()
    await server.transport.serve(TOLD, handler)
    assert await ask(client, server) == b"secret"
    assert await ask(client, server) == b"secret"
    assert client.transport.peer_id in server.gate.inside
    assert handler.runs == 2
    assert client.gate.asked_for("forget") == 0


async def test_a_stranger_gets_no_byte_and_no_handler(peers: tuple[Guarded, Guarded]) -> None:
    client, server = peers
    handler = Secret()
    await server.transport.serve(TOLD, handler)
    client.gate.word = b"wrong"
    with pytest.raises(NotAdmitted):
        await ask(client, server)
    client.gate.greeted.add(server.transport.peer_id)  # so it skips the greeting
    assert await ask(client, server) == b""
    assert handler.runs == 0
    assert ("admits", client.transport.peer_id, TOLD) in server.gate.asked


async def test_a_gate_with_a_defect_refuses(peers: tuple[Guarded, Guarded]) -> None:
    client, server = peers
    handler = Secret()
    await server.transport.serve(TOLD, handler)
    assert await ask(client, server) == b"secret"
    server.gate.is_broken = True
    assert await ask(client, server) == b""
    client.gate.is_broken, server.gate.is_broken = True, False
    with pytest.raises(NotAdmitted, match="gate failed"):
        await ask(client, server)
    assert handler.runs == 1


async def test_a_server_that_forgot_us_is_greeted_anew(peers: tuple[Guarded, Guarded]) -> None:
    client, server = peers
    await server.transport.serve(TOLD, Secret())
    assert await ask(client, server) == b"secret"
    server.gate.inside.clear()
    assert await ask(client, server) == b""
    assert await ask(client, server) == b"secret"
    assert client.gate.asked_for("forget") == 1


async def test_the_open_protocols_are_open(peers: tuple[Guarded, Guarded]) -> None:
    client, server = peers
    stream = await client.transport.open_stream(server.transport.peer_id, versions.HELLO)
    await stream.send(server.gate.word)
    assert await stream.receive() == b"welcome"
    await stream.close()
    assert client.gate.asked_for("greet") == 0
    assert ("admits", client.transport.peer_id, versions.HELLO) not in server.gate.asked


async def test_drop_ends_the_streams_at_both_ends(peers: tuple[Guarded, Guarded]) -> None:
    client, server = peers
    ended = asyncio.Event()

    async def hold(stream: Stream) -> None:
        await stream.send(b"held")
        try:
            while await stream.receive():
                pass
        finally:
            ended.set()

    await server.transport.serve(TOLD, hold)
    stream = await client.transport.open_stream(server.transport.peer_id, TOLD)
    assert await stream.receive() == b"held"
    await server.transport.drop(client.transport.peer_id)
    async with asyncio.timeout(5):
        await ended.wait()
        with contextlib.suppress(DslmError):
            assert await stream.receive() == b""
    await server.transport.drop(Identity.generate().peer_id)  # nobody: harmless


async def test_records_pass_the_gate(peers: tuple[Guarded, Guarded]) -> None:
    client, server = peers
    await _meet(client, server)
    end = SystemClock().now() + 60
    subkey = client.transport.peer_id
    assert await client.records.put("a", subkey, b"value", end)
    assert (await server.records.get("a"))[subkey].value == b"value"


async def test_a_stranger_neither_stores_nor_finds(peers: tuple[Guarded, Guarded]) -> None:
    client, server = peers
    await _meet(client, server)
    end = SystemClock().now() + 60
    theirs, ours = server.transport.peer_id, client.transport.peer_id
    client.gate.inside.clear()
    server.gate.inside.clear()
    server.gate.greeted.clear()
    client.gate.word = server.gate.word + b"?"  # neither knows the other's word
    await server.records.put("b", theirs, b"value", end)
    await client.records.put("c", ours, b"value", end)
    assert await client.records.get("b") == {}
    client.gate.greeted.add(theirs)  # so it skips the greeting
    await client.records.put("d", ours, b"value", end)
    assert await client.records.get("b") == {}
    assert client.gate.asked_for("forget") > 0, "the server was not even asked"
    for key in ("c", "d"):
        assert await server.records.get(key) == {}
    assert theirs in await server.records.get("b")


async def test_records_survive_being_forgotten(peers: tuple[Guarded, Guarded]) -> None:
    client, server = peers
    await _meet(client, server)
    end = SystemClock().now() + 60
    assert await client.records.get("e") == {}
    server.gate.inside.clear()
    subkey = client.transport.peer_id
    assert await client.records.put("e", subkey, b"value", end)
    client.gate.inside.clear()
    assert (await server.records.get("e"))[subkey].value == b"value"
    assert client.gate.asked_for("forget") >= 1


async def _meet(client: Guarded, server: Guarded) -> None:
    """Have both know each other's part of the record store."""
    from protocols.adapters.memory.records import MemoryRecords

    for one, other in ((client, server), (server, client)):
        if not isinstance(one.records, MemoryRecords):
            await one.records.meet([other.transport.peer_id])  # type: ignore[attr-defined]
