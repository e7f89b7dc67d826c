"""The `Stream` port over one connection to p2pd, which pipes it to one libp2p stream.

Knows what p2pd makes of the ends of a connection; must not know any protocol. p2pd tells a broken
connection and an orderly end in the same way (it closes our socket), so every protocol's last word
must be in its messages; the death of p2pd itself is told apart.
"""

import asyncio
from collections.abc import Callable

from protocols.adapters.libp2p.control import is_answering
from protocols.adapters.libp2p.daemon import Daemon
from protocols.adapters.libp2p.pipe import Pipe
from protocols.errors import DslmError, PeerLost, TransportDown
from protocols.ids import PeerId

CLOSE_SECONDS = 2.0
_DISCARD_BYTES = 65_536


class Libp2pStream:
    """Bytes to and from one peer. One task may send while another receives."""

    def __init__(
        self,
        peer: PeerId,
        pipe: Pipe,
        daemon: Daemon,
        on_release: "Callable[[Libp2pStream], None]",
    ) -> None:
        self._peer = peer
        self._pipe = pipe
        self._daemon = daemon
        self._on_release = on_release
        self._is_closed = False
        self._is_daemon_dead = False
        self._end_is_proven = False

    def __repr__(self) -> str:
        return f"<Libp2pStream {self._peer} {'closed' if self._is_closed else 'open'}>"

    @property
    def peer(self) -> PeerId:
        """Who is at the other end, by the connection's Noise handshake."""
        return self._peer

    async def send(self, data: bytes) -> None:
        """Hand over `data`; waits while more than 64 KiB wait to be taken by p2pd."""
        if self._is_closed:
            raise self._lost()
        try:
            await self._pipe.send(data)
        except OSError as error:
            raise self._lost() from error

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """The next bytes; `b""` at the end, after which only `close` makes sense."""
        if self._is_closed:
            raise self._lost()
        try:
            data = await self._pipe.receive(max_bytes)
        except OSError as error:
            raise self._lost() from error
        if not data and (self._is_closed or await self._is_daemon_lost()):
            raise self._lost()
        return data

    async def close(self) -> None:
        """End our direction after what was sent, then release the stream."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            self._pipe.end()
            async with asyncio.timeout(CLOSE_SECONDS):
                # p2pd resets the stream, and what was sent may be lost, if our socket is closed
                # with unread bytes in it; so read until p2pd has closed its end
                while await self._pipe.receive(_DISCARD_BYTES):
                    pass
        except (OSError, RuntimeError, TimeoutError):
            self._pipe.abort()
        finally:
            self._pipe.close()
            self._on_release(self)

    def abort(self) -> None:
        """Drop the stream, and what was not sent yet."""
        self._is_closed = True
        self._pipe.abort()
        self._on_release(self)

    async def _is_daemon_lost(self) -> bool:
        """Whether an end came from p2pd's death.

        The kernel closes a dying process's sockets in no sure order, so only an answer proves life.
        """
        if self._end_is_proven:
            return False
        if not self._daemon.is_dead() and await is_answering(self._daemon.control):
            self._end_is_proven = True
            return False
        self._is_daemon_dead = True
        return True

    def _lost(self) -> DslmError:
        if self._is_daemon_dead or self._daemon.is_dead():
            return TransportDown("the network daemon died; it is being restarted")
        if self._is_closed:
            return PeerLost("the stream was closed at our end")
        return PeerLost(f"the connection to {self._peer[-8:]} broke")
