"""One connection to p2pd: bytes both ways with as little between us and the socket as can be.

Knows asyncio's transports and flow control; must not know libp2p. asyncio's own `StreamReader`
does the same with twice the time per message, which is a fifth of a whole hop.
"""

import asyncio
from collections.abc import Callable
from contextvars import Context

READ_BUFFER_BYTES = 256 * 1024
"""What one read of the socket may bring, and how much may lie unread before reading pauses."""


class _Arrival(asyncio.Future[None]):
    """A future whose task goes on while the loop still reports what was read.

    An ordinary future makes the task wait for the loop's next round, which asks the kernel for
    news in between: a twelfth of a whole hop. Only the loop itself may call `happen`, not a task.
    """

    _resume: "Callable[[_Arrival], object] | None" = None
    _context: Context | None = None

    def add_done_callback(
        self, fn: "Callable[[_Arrival], object]", /, *, context: Context | None = None
    ) -> None:
        """asyncio: a task waits."""
        self._resume, self._context = fn, context
        super().add_done_callback(fn, context=context)

    def happen(self) -> None:
        """Run the waiting task up to its next wait."""
        if self.done():
            return
        if self._resume is None or self._context is None:
            self.set_result(None)
            return
        self.remove_done_callback(self._resume)
        self.set_result(None)
        self._context.run(self._resume, self)


class Pipe(asyncio.BufferedProtocol):
    """Bytes in order, or `OSError`. One task may receive while one other sends.

    Pipes of one event loop may share `incoming`: what the loop puts there is taken out at once.
    """

    def __init__(
        self,
        on_open: "Callable[[Pipe], None] | None" = None,
        incoming: memoryview | None = None,
    ) -> None:
        self._on_open = on_open
        self._incoming = make_read_buffer() if incoming is None else incoming
        self._unread = bytearray()
        self._reader: _Arrival | None = None
        self._writer: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._has_ended = False
        self._is_full = False
        self._is_reading_paused = False
        self._error: OSError | None = None
        self.bytes_received = 0
        """Bytes that were handed out, and (below) taken."""
        self.bytes_sent = 0

    def __repr__(self) -> str:
        return f"<Pipe unread={len(self._unread)} ended={self._has_ended} error={self._error}>"

    @property
    def has_ended(self) -> bool:
        """Whether the other end sends no more."""
        return self._has_ended

    @property
    def is_closing(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._transport is None or self._transport.is_closing()

    async def send(self, data: bytes) -> None:
        """Hand over `data`; waits while more than asyncio's high-water mark is not taken yet."""
        if self._transport is None or self._transport.is_closing():
            raise self._error or ConnectionResetError("the connection is closed")
        self._transport.write(data)
        self.bytes_sent += len(data)
        if self._is_full:
            self._writer = asyncio.get_running_loop().create_future()
            await self._writer

    async def receive(self, max_bytes: int) -> bytes:
        """The next bytes; `b""` at the end."""
        while not self._unread:
            if self._error is not None:
                raise self._error
            if self._has_ended:
                return b""
            if self._reader is not None:
                raise RuntimeError("two tasks receive from one stream")
            self._reader = _Arrival(loop=asyncio.get_running_loop())
            try:
                await self._reader
            finally:
                self._reader = None
        if len(self._unread) <= max_bytes:
            data = bytes(self._unread)
            self._unread.clear()
        else:
            data = bytes(memoryview(self._unread)[:max_bytes])
            del self._unread[:max_bytes]
        self.bytes_received += len(data)
        if self._is_reading_paused and self._transport is not None:
            self._is_reading_paused = False
            self._transport.resume_reading()
        return data

    async def receive_exactly(self, count: int) -> bytes:
        """The next `count` bytes; `EOFError` if the end comes first."""
        data = b""
        while len(data) < count:
            piece = await self.receive(count - len(data))
            if not piece:
                raise EOFError("the connection ended in the middle of a message")
            data += piece
        return data

    def end(self) -> None:
        """Say that we send no more, after what was sent."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()

    def close(self) -> None:
        """Close the connection after what was sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close the connection now."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: there is a connection."""
        self._transport = transport  # type: ignore[assignment]
        if self._on_open is not None:
            self._on_open(self)

    def get_buffer(self, _size_hint: int) -> memoryview:
        """asyncio: where to put what arrives."""
        return self._incoming

    def buffer_updated(self, count: int) -> None:
        """asyncio: `count` bytes arrived."""
        self._unread += self._incoming[:count]
        if len(self._unread) > READ_BUFFER_BYTES and self._transport is not None:
            self._is_reading_paused = True
            self._transport.pause_reading()
        if self._reader is not None:
            self._reader.happen()  # last: the task may use this pipe in any way

    def eof_received(self) -> bool:
        """asyncio: the other end sends no more. Our direction stays open."""
        self._has_ended = True
        self._wake(self._reader)
        return True

    def connection_lost(self, error: Exception | None) -> None:
        """asyncio: it is over."""
        if error is not None or not self._has_ended:
            self._error = ConnectionResetError(str(error or "the connection is closed"))
        self._has_ended = True
        self._wake(self._reader)
        if self._writer is not None and not self._writer.done():
            self._writer.set_exception(ConnectionResetError("the connection broke"))

    def pause_writing(self) -> None:
        """asyncio: the socket does not keep up."""
        self._is_full = True

    def resume_writing(self) -> None:
        """asyncio: the socket took enough."""
        self._is_full = False
        self._wake(self._writer)

    @staticmethod
    def _wake(waiting: "asyncio.Future[None] | None") -> None:
        if waiting is not None and not waiting.done():
            waiting.set_result(None)


def make_read_buffer() -> memoryview:
    """Where the loop puts what it reads."""
    return memoryview(bytearray(READ_BUFFER_BYTES))


async def connect(path: str) -> Pipe:
    """A pipe to the Unix socket at `path`; `OSError` if nobody listens."""
    _, pipe = await asyncio.get_running_loop().create_unix_connection(Pipe, path)
    return pipe
