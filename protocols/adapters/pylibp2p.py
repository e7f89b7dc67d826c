"""The client half of `Transport` on py-libp2p, for machines on which the go daemon does not run.

Knows py-libp2p, which lives on trio: it runs in a thread of its own, and each call crosses over.
Must not know hivemind; it cannot serve and has no record store.
"""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, TypeVar

import multiaddr  # type: ignore[import-not-found,unused-ignore]
import trio  # type: ignore[import-not-found,unused-ignore]
from libp2p import new_host  # type: ignore[import-not-found,unused-ignore]
from libp2p.abc import INetStream  # type: ignore[import-not-found,unused-ignore]
from libp2p.crypto.ed25519 import (  # type: ignore[import-not-found,unused-ignore]
    create_new_key_pair,
)
from libp2p.custom_types import (  # type: ignore[import-not-found,unused-ignore]
    TProtocol,
)
from libp2p.network.stream.exceptions import (  # type: ignore[import-not-found,unused-ignore]
    StreamEOF,
    StreamError,
)
from libp2p.peer.id import ID  # type: ignore[import-not-found,unused-ignore]
from libp2p.peer.peerinfo import PeerInfo  # type: ignore[import-not-found,unused-ignore]

from protocols import limits
from protocols.errors import (
    DslmError,
    PeerLost,
    PeerUnreachable,
    TransportDown,
    Unsupported,
    UserError,
)
from protocols.ids import PeerId, parse_peer_id
from protocols.ports import Stream, StreamHandler
from protocols.signing import Identity

DIAL_SECONDS = 3.0
OPEN_SECONDS = 5.0
CLOSE_SECONDS = 2.0
START_SECONDS = 30.0
APT_LINE = "apt-get install -y build-essential python3-dev libgmp-dev"
"""What `pip install 'dslm[interop]'` needs to compile."""

_AnswerT = TypeVar("_AnswerT")
_logger = logging.getLogger(__name__)
_SEED = slice(4, 36)


class TrioThread:
    """A trio loop in a thread; `call` awaits a trio coroutine function from asyncio.

    Cancelling the awaiting task cancels the call on trio's side as well.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._token: trio.lowlevel.TrioToken | None = None
        self._stop = trio.Event()
        self._nursery: trio.Nursery | None = None

    async def run(self, ready: Callable[[], object]) -> None:
        """The thread's main function, on trio: serve calls until `stop`."""
        async with trio.open_nursery() as nursery:
            self._token = trio.lowlevel.current_trio_token()
            self._nursery = nursery
            ready()
            await self._stop.wait()
            nursery.cancel_scope.cancel()

    def stop(self) -> None:
        """Make `run` return; called from asyncio's thread."""
        self._soon(self._stop.set)

    async def call(
        self, function: Callable[..., Awaitable[_AnswerT]], *arguments: object
    ) -> _AnswerT:
        """What `function(*arguments)`, run by trio, returns or raises."""
        answer: asyncio.Future[_AnswerT] = self._loop.create_future()
        scope = trio.CancelScope()

        def settle(value: _AnswerT | None, error: BaseException | None) -> None:
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(value)  # type: ignore[arg-type]

        async def work() -> None:
            value: _AnswerT | None = None
            failure: BaseException | None = TransportDown("the transport was closed")
            try:
                with scope:
                    value = await function(*arguments)
                    failure = None
            except Exception as error:  # noqa: BLE001 - raised again where the caller waits
                failure = error
            finally:
                self._loop.call_soon_threadsafe(settle, value, failure)

        self._soon(lambda: self._start(work))
        try:
            return await answer
        except asyncio.CancelledError:
            self._soon(scope.cancel)
            raise

    def start(self, function: Callable[[], Awaitable[object]]) -> None:
        """Run `function` on trio without waiting for it; its failure is nobody's concern."""

        async def work() -> None:
            try:
                await function()
            except Exception as error:  # noqa: BLE001 - a task's top
                _logger.debug("on trio: %s", error)

        try:
            self._soon(lambda: self._start(work))
        except TransportDown:
            return  # whatever was to be released is gone with the loop

    def _start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(work)

    def _soon(self, function: Callable[[], object]) -> None:
        if self._token is None:
            raise TransportDown("the transport is not running")
        try:
            self._token.run_sync_soon(function)
        except trio.RunFinishedError as error:
            raise TransportDown("the transport was closed") from error


class PyLibp2pStream:
    """One stream of py-libp2p, used from asyncio."""

    def __init__(self, peer: PeerId, stream: INetStream, trio_thread: TrioThread) -> None:
        self._peer = peer
        self._stream = stream
        self._trio = trio_thread
        self._is_closed = False
        self._has_ended = False
        self._lock = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<PyLibp2pStream {self._peer} {'closed' if self._is_closed else 'open'}>"

    @property
    def peer(self) -> PeerId:
        """Who is at the other end, by the Noise handshake."""
        return self._peer

    async def send(self, data: bytes) -> None:
        """Hand over `data`; waits while the other end is slow."""
        self._check_open()
        async with self._lock:
            await self._do(self._stream.write, data)

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """The next bytes; `b""` at the end."""
        self._check_open()
        if self._has_ended:
            return b""
        try:
            data: bytes = await self._trio.call(self._stream.read, max_bytes)
        except StreamEOF:
            data = b""
        except (StreamError, OSError, ValueError) as error:
            raise PeerLost(f"the connection to {self._peer[-8:]} broke") from error
        self._has_ended = not data
        return data

    async def close(self) -> None:
        """End our direction, then release the stream."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._trio.call(self._stream.close)
        except (StreamError, OSError, ValueError, TimeoutError, DslmError) as error:
            _logger.debug("closing a stream of %s: %s", self._peer, error)

    def abort(self) -> None:
        """Reset the stream."""
        if self._is_closed:
            return
        self._is_closed = True
        self._trio.start(self._stream.reset)

    async def _do(self, function: Callable[..., Awaitable[_AnswerT]], data: bytes) -> _AnswerT:
        try:
            return await self._trio.call(function, data)
        except (StreamError, OSError, ValueError) as error:
            raise PeerLost(f"the connection to {self._peer[-8:]} broke") from error

    def _check_open(self) -> None:
        if self._is_closed:
            raise PeerLost("the stream was closed at our end")


class PyLibp2pTransport:
    """`async with PyLibp2pTransport(identity) as transport`: dials and opens streams."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<PyLibp2pTransport {self.peer_id}>"

    async def __aenter__(self) -> "PyLibp2pTransport":
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        self._trio = TrioThread()
        self._host = new_host(
            key_pair=create_new_key_pair(self._identity.to_libp2p()[_SEED]),
            muxer_preference="YAMUX",
        )

        async def main() -> None:
            async with self._host.run(listen_addrs=[]):
                await self._trio.run(lambda: loop.call_soon_threadsafe(_settle, ready, None))

        def thread() -> None:
            try:
                trio.run(main)
            except BaseException as error:  # noqa: BLE001 - a thread's top: told to whoever waits
                loop.call_soon_threadsafe(_settle, ready, error)

        self._thread = threading.Thread(target=thread, name="py-libp2p", daemon=True)
        self._thread.start()
        async with asyncio.timeout(START_SECONDS):
            await ready
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def peer_id(self) -> PeerId:
        """Who we are."""
        return self._identity.peer_id

    def addresses(self) -> tuple[str, ...]:
        """None: nobody can dial us."""
        return ()

    async def connect(self, address: str) -> PeerId:
        """Dial `address`."""
        where, separator, peer_text = address.strip().rpartition("/p2p/")
        if not separator or len(address) > limits.ADDRESS_BYTES_MAX:
            raise UserError(f"{address[:100]!r} is no peer address")
        try:
            peer = parse_peer_id(peer_text)
            info = PeerInfo(ID.from_base58(peer), [multiaddr.Multiaddr(where)])
        except (DslmError, ValueError) as error:
            raise UserError(f"{address!r} is no peer address: {error}") from error
        await self._reach(self._host.connect, info, DIAL_SECONDS, f"{peer} at {where}")
        return peer

    async def open_stream(
        self, peer: PeerId, protocol: str, addresses: Sequence[str] = ()
    ) -> Stream:
        """A stream to `peer`, dialling `addresses` in turn when there is no connection yet."""
        remote = ID.from_base58(parse_peer_id(peer))
        if not self._host.get_network().connections.get(remote):
            await self._connect_any(peer, addresses)

        async def open_it(choice: TProtocol) -> INetStream:
            return await self._host.new_stream(remote, [choice])

        wanted = TProtocol(protocol)
        stream = await self._reach(open_it, wanted, OPEN_SECONDS, f"{protocol} at {peer}")
        return PyLibp2pStream(peer, stream, self._trio)

    async def serve(self, protocol: str, handler: StreamHandler) -> None:
        """Not possible: nobody can dial us."""
        raise Unsupported(f"a client-only transport cannot serve {protocol} with {handler}")

    async def drop(self, peer: PeerId) -> None:
        """Close the connection to `peer` with all its streams; harmless when there is none."""
        remote = ID.from_base58(parse_peer_id(peer))
        network = self._host.get_network()
        await self._reach(network.close_peer, remote, CLOSE_SECONDS, peer)

    async def close(self) -> None:
        """Close all connections and end the thread."""
        if self._is_closed:
            return
        self._is_closed = True
        self._trio.stop()
        await asyncio.to_thread(self._thread.join, CLOSE_SECONDS)

    async def _connect_any(self, peer: PeerId, addresses: Sequence[str]) -> None:
        last: DslmError = PeerUnreachable(f"no address of {peer} is known")
        for address in addresses[: limits.ADDRESSES_MAX]:
            if not address.endswith(f"/p2p/{peer}"):
                continue
            try:
                await self.connect(address)
            except (PeerUnreachable, UserError) as error:
                last = error
            else:
                return
        raise PeerUnreachable(str(last)) from last

    async def _reach(
        self,
        function: Callable[[Any], Awaitable[_AnswerT]],
        argument: object,
        seconds: float,
        what: str,
    ) -> _AnswerT:
        if self._is_closed:
            raise TransportDown("the transport was closed")
        try:
            async with asyncio.timeout(seconds):
                return await self._trio.call(function, argument)
        except TimeoutError:
            raise PeerUnreachable(f"no answer from {what} within {seconds:.0f} s") from None
        except DslmError:
            raise
        except Exception as error:
            raise PeerUnreachable(f"cannot reach {what}: {str(error)[:300]}") from error


def _settle(ready: "asyncio.Future[None]", error: BaseException | None) -> None:
    if ready.done():
        return
    if error is None:
        ready.set_result(None)
    else:
        ready.set_exception(error)
