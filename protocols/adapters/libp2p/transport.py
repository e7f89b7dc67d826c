"""The `Transport` port over p2pd: dialling, opening streams, serving them.

Knows hivemind's `P2P` and its errors; must not know the protocols, nor how p2pd is kept alive.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from hivemind.p2p import PeerID
from hivemind.p2p.p2p_daemon_bindings.utils import P2PDaemonError
from hivemind.utils.multiaddr import Multiaddr

from protocols import access, admission, limits
from protocols.adapters.libp2p.address import DialAddress, parse_address, to_wire
from protocols.adapters.libp2p.control import (
    dial,
    disconnect,
    find_peer,
    handle_streams,
    list_peers,
    open_stream,
)
from protocols.adapters.libp2p.daemon import Daemon
from protocols.adapters.libp2p.inbound import Inbound
from protocols.adapters.libp2p.peer_routing import Whereabouts
from protocols.adapters.libp2p.pipe import Pipe, make_read_buffer
from protocols.adapters.libp2p.stream import Libp2pStream
from protocols.adapters.libp2p.turnstile import Turnstile
from protocols.errors import NetworkError, PeerUnreachable, ProtocolError, TransportDown, UserError
from protocols.ids import PeerId, parse_peer_id
from protocols.ports import Clock, Stream, StreamHandler

DIAL_SECONDS = 3.0
OPEN_SECONDS = 5.0
CONTROL_SECONDS = 2.0
"""What p2pd itself may take for an answer that needs nobody else."""
ADDRESS_BOOK_MAX = 256

_AnswerT = TypeVar("_AnswerT")
_logger = logging.getLogger(__name__)


class Libp2pTransport:
    """Streams through the daemon that is attached at the moment."""

    def __init__(
        self, peer_id: PeerId, tasks: asyncio.TaskGroup, turnstile: Turnstile, clock: Clock
    ) -> None:
        self._peer_id = peer_id
        self._tasks = tasks
        self._shut: set[str] = set()
        self._leaving: set[PeerId] = set()
        self._gate = turnstile.gate
        self._inbound = Inbound(tasks, turnstile, clock, self._stream)
        self._daemon: Daemon | None = None
        self._listener: asyncio.Server | None = None
        self._streams: set[Libp2pStream] = set()
        self._address_book: dict[PeerId, str] = {}

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
        """A stream to `peer`, dialling `addresses` first if there are any, then saying hello.

        `NotAdmitted` if the two of us may not speak `protocol`.
        """
        self.daemon()
        targets = list(_addresses_of(peer, addresses))
        if targets:
            await self._dial(peer, [target.where for target in targets])
        if peer == self._peer_id:
            raise PeerUnreachable("a peer does not dial itself")
        await admission.greet(self._gate, peer, protocol)
        daemon = self.daemon()
        remote = _hivemind_id(peer)
        header, pipe = await _ask_daemon(
            daemon,
            lambda: open_stream(daemon.control, remote, protocol),
            OPEN_SECONDS,
            f"{protocol} at {peer}",
        )
        on_silence = (
            None if protocol in access.OPEN else partial(admission.forget, self._gate, peer)
        )
        stream = self._stream(peer, pipe, daemon, on_silence)
        if header.peer != remote:
            stream.abort()
            raise PeerUnreachable(f"another peer than {peer} answered")
        return stream

    async def serve(self, protocol: str, handler: StreamHandler) -> None:
        """Answer streams of `protocol`, also after the daemon was restarted."""
        self._inbound.handlers[protocol] = handler
        if self._daemon is not None:
            await self._register(self._daemon, protocol)

    def shut(self, protocol: str) -> None:
        """Take a protocol of p2pd's own from it, with the next daemon: all streams are cut off."""
        self._shut.add(protocol)

    async def drop(self, peer: PeerId) -> None:
        """End all streams with `peer` and the connection, in 2 s."""
        remote = _hivemind_id(peer)
        self._address_book.pop(peer, None)
        for stream in tuple(self._streams):
            if stream.peer == peer:
                stream.abort()
        daemon = self._daemon
        if daemon is None:
            return  # the connection went with the daemon
        await _ask_daemon(
            daemon, lambda: disconnect(daemon.control, remote), CONTROL_SECONDS, f"{peer}"
        )

    def drop_nowait(self, peer: PeerId) -> None:
        """Begin to drop `peer`, unless that was begun before."""
        if peer not in self._leaving and not self._inbound.is_closed:
            self._leaving.add(peer)
            self._tasks.create_task(self._drop_quietly(peer))

    async def connections(self) -> Mapping[PeerId, tuple[str, ...]]:
        """Who is connected, and the addresses at the other ends as p2pd sees them."""
        daemon = self.daemon()
        found = await _ask_daemon(
            daemon, lambda: list_peers(daemon.control), CONTROL_SECONDS, "the network daemon"
        )
        seen: dict[PeerId, tuple[str, ...]] = {}
        for remote, addresses in found:
            try:
                peer = parse_peer_id(remote.to_base58())
            except ProtocolError:
                continue  # no Ed25519 identity: nobody that we deal with
            seen[peer] = tuple(dict.fromkeys((*seen.get(peer, ()), *addresses)))
        return seen

    def own_whereabouts(self) -> Whereabouts:
        """Ourselves, for those who ask who is where."""
        found = [to_wire(parse_address(text).where) for text in self.addresses()]
        return Whereabouts(_hivemind_id(self._peer_id).to_bytes(), tuple(found))

    async def connected(self) -> Sequence[bytes]:
        """Who is connected, in binary."""
        return [_hivemind_id(peer).to_bytes() for peer in await self.connections()]

    async def find(self, peer: bytes) -> tuple[bytes, ...]:
        """The addresses, in binary, at which a connected peer says it can be dialled."""
        daemon = self.daemon()
        return await _ask_daemon(
            daemon,
            lambda: find_peer(daemon.control, peer),
            CONTROL_SECONDS,
            "the addresses of a peer",
        )

    async def run_sweeps(self) -> None:
        """Enforce the deadlines of inbound streams for ever."""
        await self._inbound.run_sweeps()

    def refuse(self) -> None:
        """Take no more streams: a start that failed is being undone."""
        self._inbound.is_closed = True

    async def close(self) -> None:
        """End the streams being served; nothing can be opened or served after this."""
        await self._inbound.close()
        for stream in tuple(self._streams):
            stream.abort()

    def daemon(self) -> Daemon:
        """The daemon in use; `TransportDown` while there is none."""
        if self._inbound.is_closed:
            raise TransportDown("the network was shut down")
        if self._daemon is None or self._daemon.is_dead():
            raise TransportDown("the network daemon is down; it is being restarted")
        return self._daemon

    async def attach(self, daemon: Daemon) -> None:
        """Use `daemon` from now on, and serve through it all that was served before."""
        daemon.listener.unlink(missing_ok=True)
        incoming = make_read_buffer()  # one for all: strangers shall not have us fill memory
        self._listener = await asyncio.get_running_loop().create_unix_server(
            lambda: Pipe(lambda pipe: self._inbound.accept(daemon, pipe), incoming),
            str(daemon.listener),
        )
        for protocol in (*self._inbound.handlers, *self._shut):
            await self._register(daemon, protocol)
        self._daemon = daemon

    def detach(self) -> None:
        """The daemon is gone: refuse calls until the next one is attached."""
        self._daemon = None
        if self._listener is not None:
            stop_listening(self._listener)
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
            async with asyncio.timeout(CONTROL_SECONDS):
                await handle_streams(daemon.control, daemon.listener, protocol)
        except (OSError, EOFError, P2PDaemonError, TimeoutError) as error:
            raise TransportDown(f"the network daemon cannot serve {protocol}") from error

    async def _drop_quietly(self, peer: PeerId) -> None:
        try:
            await self.drop(peer)
        except NetworkError as error:
            _logger.debug("cannot drop %s: %s", peer, error)
        finally:
            self._leaving.discard(peer)

    def _stream(
        self,
        peer: PeerId,
        pipe: Pipe,
        daemon: Daemon,
        on_silence: Callable[[], None] | None = None,
    ) -> Libp2pStream:
        """`on_silence` is called if the other end was gone before it said a word."""
        heard = pipe.bytes_received

        def release(stream: Libp2pStream) -> None:
            self._streams.discard(stream)
            if on_silence is not None and pipe.has_ended and pipe.bytes_received == heard:
                on_silence()

        stream = Libp2pStream(peer, pipe, daemon, release)
        self._streams.add(stream)
        return stream


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


def stop_listening(listener: asyncio.Server) -> None:
    """Accept no more, and close in the next round.

    A connection that asyncio has accepted but not wrapped yet is lost, unclosed, if its server is
    closed in between (an assertion in `Server._attach`).
    """
    loop = asyncio.get_running_loop()
    for listening in listener.sockets:
        loop.remove_reader(listening.fileno())
    loop.call_soon(listener.close)


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
