"""The `Transport` port over p2pd: dialling, opening streams, serving them.

Knows hivemind's `P2P` and its errors; must not know the protocols, nor how p2pd is kept alive.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from google.protobuf.message import DecodeError  # type: ignore[import-untyped,unused-ignore]
from hivemind.p2p import PeerID
from hivemind.p2p.p2p_daemon_bindings.utils import P2PDaemonError
from hivemind.utils.multiaddr import Multiaddr

from protocols import limits
from protocols.adapters.libp2p.address import DialAddress, parse_address
from protocols.adapters.libp2p.control import (
    dial,
    handle_streams,
    open_stream,
    receive_header,
)
from protocols.adapters.libp2p.daemon import Daemon
from protocols.adapters.libp2p.pipe import Pipe
from protocols.adapters.libp2p.stream import Libp2pStream
from protocols.errors import PeerUnreachable, ProtocolError, TransportDown, UserError
from protocols.ids import PeerId, parse_peer_id
from protocols.ports import Stream, StreamHandler

DIAL_SECONDS = 3.0
OPEN_SECONDS = 5.0
HEADER_SECONDS = 5.0
ADDRESS_BOOK_MAX = 256

_AnswerT = TypeVar("_AnswerT")
_logger = logging.getLogger(__name__)


class Libp2pTransport:
    """Streams through the daemon that is attached at the moment."""

    def __init__(self, peer_id: PeerId, tasks: asyncio.TaskGroup) -> None:
        self._peer_id = peer_id
        self._tasks = tasks
        self._daemon: Daemon | None = None
        self._listener: asyncio.Server | None = None
        self._handlers: dict[str, StreamHandler] = {}
        self._inbound: Counter[PeerId] = Counter()
        self._serving: set[asyncio.Task[None]] = set()
        self._streams: set[Libp2pStream] = set()
        self._address_book: dict[PeerId, str] = {}
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<Libp2pTransport {self._peer_id} {self._daemon}>"

    @property
    def peer_id(self) -> PeerId:
        """Who we are."""
        return self._peer_id

    def addresses(self) -> tuple[str, ...]:
        """Where others can dial us; empty while the daemon is down."""
        return self._daemon.addresses if self._daemon is not None else ()

    def known_addresses(self) -> tuple[str, ...]:
        """Addresses at which somebody answered us, the latest last."""
        return tuple(self._address_book.values())

    async def connect(self, address: str) -> PeerId:
        """Dial `address`; `PeerUnreachable` if its peer does not answer there in 3 s."""
        target = parse_address(address)
        await self._dial(target.peer, [target.where])
        self._remember(target, address)
        return target.peer

    async def open_stream(
        self, peer: PeerId, protocol: str, addresses: Sequence[str] = ()
    ) -> Stream:
        """A stream to `peer`, dialling `addresses` first if there are any."""
        daemon = self.daemon()
        targets = list(_addresses_of(peer, addresses))
        if targets:
            await self._dial(peer, [target.where for target in targets])
        if peer == self._peer_id:
            raise PeerUnreachable("a peer does not dial itself")
        remote = _hivemind_id(peer)
        header, pipe = await _ask_daemon(
            daemon,
            lambda: open_stream(daemon.control, remote, protocol),
            OPEN_SECONDS,
            f"{protocol} at {peer}",
        )
        stream = self._stream(peer, pipe, daemon)
        if header.peer != remote:
            stream.abort()
            raise PeerUnreachable(f"another peer than {peer} answered")
        return stream

    async def serve(self, protocol: str, handler: StreamHandler) -> None:
        """Answer streams of `protocol`, also after the daemon was restarted."""
        self._handlers[protocol] = handler
        if self._daemon is not None:
            await self._register(self._daemon, protocol)

    async def close(self) -> None:
        """End the streams being served; nothing can be opened or served after this."""
        self._is_closed = True
        self._handlers.clear()
        for task in tuple(self._serving):
            task.cancel()
        if self._serving:
            await asyncio.wait(self._serving)
        for stream in tuple(self._streams):
            stream.abort()

    def daemon(self) -> Daemon:
        """The daemon in use; `TransportDown` while there is none."""
        if self._is_closed:
            raise TransportDown("the network was shut down")
        if self._daemon is None or self._daemon.is_dead():
            raise TransportDown("the network daemon is down; it is being restarted")
        return self._daemon

    async def attach(self, daemon: Daemon) -> None:
        """Use `daemon` from now on, and serve through it all that was served before."""
        daemon.listener.unlink(missing_ok=True)
        self._listener = await asyncio.get_running_loop().create_unix_server(
            lambda: Pipe(lambda pipe: self._admit(daemon, pipe)), str(daemon.listener)
        )
        for protocol in self._handlers:
            await self._register(daemon, protocol)
        self._daemon = daemon

    def detach(self) -> None:
        """The daemon is gone: refuse calls until the next one is attached."""
        self._daemon = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _dial(self, peer: PeerId, where: list[Multiaddr]) -> None:
        daemon = self.daemon()
        remote = _hivemind_id(peer)
        await _ask_daemon(
            daemon,
            lambda: dial(daemon.control, remote, where),
            DIAL_SECONDS,
            f"{peer} at {', '.join(str(address) for address in where)}",
        )

    def _remember(self, target: DialAddress, address: str) -> None:
        self._address_book.pop(target.peer, None)
        self._address_book[target.peer] = address
        if len(self._address_book) > ADDRESS_BOOK_MAX:
            del self._address_book[next(iter(self._address_book))]

    async def _register(self, daemon: Daemon, protocol: str) -> None:
        try:
            await handle_streams(daemon.control, daemon.listener, protocol)
        except (OSError, EOFError, P2PDaemonError) as error:
            raise TransportDown(f"the network daemon cannot serve {protocol}") from error

    def _admit(self, daemon: Daemon, pipe: Pipe) -> None:
        if len(self._serving) >= limits.STREAMS_IN_MAX or self._is_closed:
            pipe.abort()
            return
        task = self._tasks.create_task(self._welcome(daemon, pipe))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        task.add_done_callback(lambda done: pipe.abort() if done.cancelled() else None)

    async def _welcome(self, daemon: Daemon, pipe: Pipe) -> None:
        """Learn from p2pd who comes with which wish, and serve it."""
        try:
            async with asyncio.timeout(HEADER_SECONDS):
                header = await receive_header(pipe)
            peer = parse_peer_id(header.peer.to_base58())
        except (OSError, EOFError, P2PDaemonError, DecodeError, TimeoutError, ProtocolError):
            pipe.abort()  # gone already, or no Ed25519 identity: nobody that we could ever believe
            return
        handler = self._handlers.get(header.protocol)
        if handler is None or self._inbound[peer] >= limits.STREAMS_IN_PER_PEER_MAX:
            pipe.abort()
            return
        self._inbound[peer] += 1
        try:
            await self._serve(handler, self._stream(peer, pipe, daemon))
        finally:
            self._release(peer)

    def _stream(self, peer: PeerId, pipe: Pipe, daemon: Daemon) -> Libp2pStream:
        stream = Libp2pStream(peer, pipe, daemon, self._streams.discard)
        self._streams.add(stream)
        return stream

    def _release(self, peer: PeerId) -> None:
        self._inbound[peer] -= 1
        if not self._inbound[peer]:
            del self._inbound[peer]

    async def _serve(self, handler: StreamHandler, stream: Libp2pStream) -> None:
        try:
            await handler(stream)
        except Exception:  # a task's top: one bad stream must not end the node
            _logger.debug("a stream of %s failed", stream.peer, exc_info=True)
            stream.abort()
        except BaseException:
            stream.abort()
            raise
        else:
            await stream.close()


async def _ask_daemon(
    daemon: Daemon,
    call: Callable[[], Awaitable[_AnswerT]],
    seconds: float,
    what: str,
) -> _AnswerT:
    """The daemon's answer to `call`; every way to fail is `PeerUnreachable` or `TransportDown`."""
    try:
        async with asyncio.timeout(seconds):
            return await call()
    except TimeoutError:
        raise PeerUnreachable(f"no answer from {what} within {seconds:.0f} s") from None
    except (OSError, EOFError, P2PDaemonError) as error:
        if daemon.is_dead():
            raise TransportDown("the network daemon died; it is being restarted") from error
        raise PeerUnreachable(f"cannot reach {what}: {str(error)[:300]}") from error


def _addresses_of(peer: PeerId, addresses: Iterable[str]) -> Iterable[DialAddress]:
    """Those of `addresses` that we can dial and that are meant for `peer`."""
    for address in list(addresses)[: limits.ADDRESSES_MAX]:
        try:
            target = parse_address(address)
        except UserError:
            continue  # a record may hold addresses of kinds that we do not speak
        if target.peer == peer:
            yield target


def _hivemind_id(peer: PeerId) -> PeerID:
    return PeerID.from_base58(parse_peer_id(peer))
