"""What the machine itself costs per round trip, without us: the floors that `hop.py` prints.

Knows plain sockets, blocking and under asyncio; must not know libp2p, whose streams it may be
handed as sockets.
"""

import asyncio
import socket
import threading
from collections.abc import Callable

READ_BYTES = 65_536


class AsyncioEcho(asyncio.Protocol):
    """The serving end under asyncio: what comes goes back."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: there is a connection."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes arrived."""
        self._transport.write(data)


class AsyncioTrip(asyncio.Protocol):
    """The asking end under asyncio: one task that waits for each answer."""

    def __init__(self) -> None:
        self._missing = 0
        self._answer: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: there is a connection."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes arrived."""
        self._missing -= len(data)
        if not self._missing and self._answer is not None:
            self._answer.set_result(None)

    async def round_trip(self, payload: bytes) -> None:
        """`payload` there and back."""
        self._missing = len(payload)
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(payload)
        await self._answer

    def close(self) -> None:
        """End the connection."""
        self._transport.close()


def blocking_trip(connection: socket.socket, payload: bytes) -> None:
    """`payload` there and back, the calling thread waiting in the kernel."""
    connection.sendall(payload)
    missing = len(payload)
    while missing:
        data = connection.recv(READ_BYTES)
        if not data:
            raise ConnectionResetError("the echo went away")
        missing -= len(data)


def serve_blocking(
    listener: socket.socket, greet: Callable[[socket.socket], None] = lambda _: None
) -> None:
    """Echo on one connection after the other in a thread that ends with the process.

    `greet` first reads what comes before the bytes that are to be echoed.
    """

    def run() -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                greet(connection)
                while data := connection.recv(READ_BYTES):
                    connection.sendall(data)

    threading.Thread(target=run, daemon=True).start()


def connect_blocking(port: int) -> socket.socket:
    """A connection to a blocking echo on loopback that sends small messages at once."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def listen_blocking() -> socket.socket:
    """A listener on loopback whose connections send small messages at once."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
