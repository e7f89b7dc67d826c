"""One end of a stream between two peers of the memory network.

Knows its two pipes; must not know how the stream came about.
"""

from collections.abc import Callable

from protocols.adapters.memory.pipe import Mark, Pipe
from protocols.adapters.memory.signal import Signal
from protocols.errors import DslmError, PeerLost
from protocols.ids import PeerId


class Freezer:
    """Whether a peer stands still, as after SIGSTOP."""

    def __init__(self) -> None:
        self.is_frozen = False
        self._thawed = Signal()

    def thaw(self) -> None:
        """Go on."""
        self.is_frozen = False
        self._thawed.fire()

    async def wait_thawed(self) -> None:
        """Return at once unless the peer stands still, else when it goes on."""
        await self._thawed.wait_until(lambda: not self.is_frozen)


class MemoryStream:
    """The `Stream` port."""

    def __init__(self, peer: PeerId, freezer: Freezer) -> None:
        self._peer = peer
        self._freezer = freezer
        self._outgoing: Pipe
        self._incoming: Pipe
        self._on_over: Callable[[], None] = lambda: None
        self._is_over = False
        self._is_heard = False
        self.on_silence: Callable[[], None] = lambda: None
        """Called when the stream turns out to be over before a byte came."""

    def __repr__(self) -> str:
        return f"<MemoryStream to {self._peer[-8:]}{' over' if self._is_over else ''}>"

    def attach(self, outgoing: Pipe, incoming: Pipe, on_over: Callable[[], None]) -> None:
        """Complete the stream; `on_over` is called once, when this end needs it no more."""
        self._outgoing = outgoing
        self._incoming = incoming
        self._on_over = on_over

    @property
    def peer(self) -> PeerId:
        """The other end."""
        return self._peer

    @property
    def is_over(self) -> bool:
        """Whether this end was closed, aborted or has failed."""
        return self._is_over

    async def send(self, data: bytes) -> None:
        """See `protocols.ports.Stream`."""
        await self._freezer.wait_thawed()
        await self._outgoing.push(data)

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """See `protocols.ports.Stream`."""
        await self._freezer.wait_thawed()
        try:
            data = await self._incoming.pull(max_bytes)
        except PeerLost:
            self._note(heard=False)
            raise
        self._note(heard=bool(data))
        await self._freezer.wait_thawed()
        return data

    async def close(self) -> None:
        """See `protocols.ports.Stream`."""
        await self._freezer.wait_thawed()
        if not self._is_over:
            self._outgoing.mark(Mark.END)
            self.fail(PeerLost("the stream was closed at this end"))

    def abort(self) -> None:
        """See `protocols.ports.Stream`."""
        self.reset(PeerLost("the stream was aborted at this end"))

    def reset(self, error: DslmError) -> None:
        """Fail here with `error` now, and at the other end when the news arrives there."""
        if not self._is_over:
            self._outgoing.mark(Mark.RESET)
            self.fail(error)

    def fail(self, error: DslmError) -> None:
        """From now on every call raises `error`."""
        if self._is_over:
            return
        self._is_over = True
        self._outgoing.fail_writer(error)
        self._incoming.fail_reader(error)
        self._on_over()

    def release(self) -> None:
        """Deliver what waits to come in, if it may."""
        self._incoming.release()

    def _note(self, *, heard: bool) -> None:
        if not heard and not self._is_heard:
            self.on_silence()
        self._is_heard = self._is_heard or heard
