"""Inbound streams: whose they are, whether they may come in, who serves them, and for how long.

Knows p2pd's header, the turnstile and deadlines; must not know the protocols. One sweep a second
looks at all streams, so that deadlines cost nothing while bytes flow.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.message import DecodeError  # type: ignore[import-untyped,unused-ignore]
from hivemind.p2p.p2p_daemon_bindings.utils import P2PDaemonError

from protocols import limits
from protocols.adapters.libp2p.control import receive_header
from protocols.adapters.libp2p.daemon import Daemon
from protocols.adapters.libp2p.peer_routing import ROUTING_PROTOCOL
from protocols.adapters.libp2p.pipe import Pipe
from protocols.adapters.libp2p.stream import Libp2pStream
from protocols.adapters.libp2p.turnstile import Turnstile
from protocols.defects import describe
from protocols.errors import DslmError, ProtocolError
from protocols.ids import PeerId, parse_peer_id
from protocols.metering import Rate, TokenBucket
from protocols.ports import Clock, StreamHandler

HEADER_SECONDS = 5.0
SWEEP_SECONDS = 1.0
_WARNINGS = Rate(per_second=0.2, burst=5.0)
"""A peer that finds a defect of ours shall not fill the log with it."""
_logger = logging.getLogger(__name__)

MakeStream = Callable[[PeerId, Pipe, Daemon], Libp2pStream]


@dataclass(slots=True, eq=False)
class _Watched:
    """A stream that is being served, and what was seen of it at the last sweep."""

    stream: Libp2pStream
    pipe: Pipe
    opened_at: float
    active_at: float
    received_at_first: int
    received: int
    sent: int

    def is_overdue(self, now: float) -> bool:
        """Whether the other end was silent for too long after opening, or both were since."""
        if self.received == self.received_at_first and not self.sent:
            return now - self.opened_at > limits.FIRST_MESSAGE_SECONDS
        return now - self.active_at > limits.STREAM_IDLE_SECONDS

    def look(self, now: float) -> int:
        """Note what has moved; the bytes received since the last look."""
        arrived = self.pipe.bytes_received - self.received
        if arrived or self.pipe.bytes_sent != self.sent:
            self.active_at = now
        self.received, self.sent = self.pipe.bytes_received, self.pipe.bytes_sent
        return arrived


class Inbound:
    """All streams that others open to us."""

    def __init__(
        self, tasks: asyncio.TaskGroup, turnstile: Turnstile, clock: Clock, make_stream: MakeStream
    ) -> None:
        self._tasks = tasks
        self._turnstile = turnstile
        self._clock = clock
        self._make_stream = make_stream
        self._serving: set[asyncio.Task[None]] = set()
        self._watched: set[_Watched] = set()
        self._unknown = 0
        self._warnings = TokenBucket(clock.monotonic())
        self.handlers: dict[str, StreamHandler] = {}
        self.is_closed = False

    def __repr__(self) -> str:
        return f"<Inbound {len(self._watched)} streams>"

    def accept(self, daemon: Daemon, pipe: Pipe) -> None:
        """p2pd brings a stream; nothing is known of it yet."""
        if self.is_closed or self._unknown >= limits.STREAMS_UNKNOWN_MAX:
            pipe.abort()
            return
        self._unknown += 1
        task = self._tasks.create_task(self._welcome(daemon, pipe))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        task.add_done_callback(lambda done: pipe.abort() if done.cancelled() else None)

    async def run_sweeps(self) -> None:
        """Sweep for ever."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self.sweep()

    def sweep(self) -> None:
        """Break off the streams that waited for too long, and those of peers that send too much."""
        now = self._clock.monotonic()
        for watched in tuple(self._watched):
            peer = watched.stream.peer
            arrived = watched.look(now)
            if arrived and not self._turnstile.count_bytes(peer, arrived):
                _logger.debug("%s sends more than it may", peer)
                watched.stream.abort()
            elif watched.is_overdue(now):
                _logger.debug("a stream of %s was silent for too long", peer)
                watched.stream.abort()

    async def close(self) -> None:
        """End all that are being served; none is accepted any more."""
        self.is_closed = True
        self.handlers.clear()
        for task in tuple(self._serving):
            task.cancel()
        if self._serving:
            await asyncio.wait(self._serving)

    async def _welcome(self, daemon: Daemon, pipe: Pipe) -> None:
        """Learn from p2pd who comes with which wish, and serve it."""
        try:
            async with asyncio.timeout(HEADER_SECONDS):
                header = await receive_header(pipe)
            peer = parse_peer_id(header.peer.to_base58())
        except (OSError, EOFError, P2PDaemonError, DecodeError, TimeoutError, ProtocolError):
            pipe.abort()  # gone already, or no Ed25519 identity: nobody that we could ever believe
            return
        finally:
            self._unknown -= 1
        handler = self.handlers.get(header.protocol)
        is_routing = header.protocol == ROUTING_PROTOCOL
        if handler is None or not (
            self._turnstile.enter_routing(peer)
            if is_routing
            else self._turnstile.enter_stream(peer, header.protocol)
        ):
            pipe.abort()
            return
        stream = self._make_stream(peer, pipe, daemon)
        now, received = self._clock.monotonic(), pipe.bytes_received
        watched = _Watched(stream, pipe, now, now, received, received, pipe.bytes_sent)
        self._watched.add(watched)
        try:
            await self._serve(handler, stream)
        finally:
            self._watched.discard(watched)
            if is_routing:
                self._turnstile.leave_routing(peer)
            else:
                self._turnstile.leave_stream(peer)

    async def _serve(self, handler: StreamHandler, stream: Libp2pStream) -> None:
        try:
            await handler(stream)
        except DslmError as error:
            _logger.debug("a stream of %s failed: %s", stream.peer, error.code)
            stream.abort()
        except Exception as error:  # noqa: BLE001 - a task's top: one bad stream must not end us
            self._warn(stream.peer, error)
            stream.abort()
        except BaseException:
            stream.abort()
            raise
        else:
            await stream.close()

    def _warn(self, peer: PeerId, error: Exception) -> None:
        if self._warnings.take(_WARNINGS, self._clock.monotonic()):
            _logger.warning("a handler failed on a stream of %s: %s", peer, describe(error))
