"""Probing who answers at an address, against a real daemon and against servers that are none."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from protocols.adapters.clock import SystemClock
from protocols.adapters.libp2p import probe as probing
from protocols.adapters.libp2p.network import Libp2pConfig, Libp2pNetwork
from protocols.adapters.libp2p.probe import probe
from protocols.errors import PeerUnreachable
from protocols.signing import Identity

pytestmark = pytest.mark.integration

PEER = Identity(b"p" * 32).peer_id
MULTISTREAM = b"\x13/multistream/1.0.0\n\x07/noise\n"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(serve: Serve) -> AsyncIterator[str]:
    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except OSError:
            pass
        finally:
            writer.transport.abort()

    listening = await asyncio.start_server(run, "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        yield f"/ip4/127.0.0.1/tcp/{port}"


async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def deaf(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(10)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)
    await writer.drain()


async def flood(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(MULTISTREAM + b"\xff" * 65_536)
        await writer.drain()


async def endless_line(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"\x80" * 65_536)
        await writer.drain()


async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for byte in MULTISTREAM * 10:
        writer.write(bytes([byte]))
        await asyncio.sleep(0.05)


async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(MULTISTREAM + (200).to_bytes(2, "big") + bytes(range(200)))
    await reader.read()


async def short(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(MULTISTREAM + (200).to_bytes(2, "big") + b"half")
    writer.write_eof()
    await reader.read()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1_000):
        writer.write(data)


async def other_security(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x13/multistream/1.0.0\n\x03na\n")
    await reader.read()


async def test_a_peer_is_found_at_its_address_and_at_no_other() -> None:
    with tempfile.TemporaryDirectory() as folder:
        one, other = (
            Libp2pNetwork(
                Libp2pConfig(Identity.generate(), ("/ip4/127.0.0.1/tcp/0",), Path(folder)),
                SystemClock(),
            )
            for _ in range(2)
        )
        async with one, other:
            (address,) = other.transport.addresses()
            peer = other.transport.peer_id
            await one.probe(address, peer)
            await one.probe(address.partition("/p2p/")[0], peer)
            assert await one.connected_peers() == (), "the probe went through the daemon"
            with pytest.raises(PeerUnreachable, match="another peer"):
                await one.probe(address.partition("/p2p/")[0], one.transport.peer_id)
            for _ in range(20):
                await one.probe(address, peer)
            stream = await one.transport.open_stream(peer, "/ipfs/ping/1.0.0", [address])
            stream.abort()  # twenty half handshakes have done it no harm


async def test_nobody_there() -> None:
    with pytest.raises(PeerUnreachable):
        await probe("/ip4/127.0.0.1/tcp/9", PEER)


@pytest.mark.parametrize(
    "serve", [silent, deaf, web, flood, endless_line, drip, garbage, short, echo, other_security]
)
async def test_servers_that_are_no_peers(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "PROBE_SECONDS", 0.5)
    async with server(serve) as address:
        began = time.monotonic()
        with pytest.raises(PeerUnreachable):
            await probe(address, PEER)
        assert time.monotonic() - began < 2.0
