"""The outside world as dslm sees it: a transport, a record store and a clock.

Knows no implementation; each port has several in `protocols.adapters`, and one conformance suite
(`tests/conformance`) says what all of them guarantee.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from protocols.ids import PeerId


class Stream(Protocol):
    """A two-way byte stream to one authenticated peer.

    Bytes arrive in order, or the stream fails. `PeerLost` is raised by every call after the
    connection broke, `TransportDown` after our own network daemon died.
    """

    @property
    def peer(self) -> PeerId:
        """The other end, as proven by the connection's handshake (not as it claims)."""
        ...

    async def send(self, data: bytes) -> None:
        """Hand over `data`; waits while the other end is slow."""
        ...

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """The next bytes, at least one and at most `max_bytes`; `b""` at the peer's orderly end."""
        ...

    async def close(self) -> None:
        """End our direction in order and release the stream; harmless when called again."""
        ...

    def abort(self) -> None:
        """Drop the stream at once, in both directions; the peer sees `PeerLost` or an end."""
        ...


StreamHandler = Callable[[Stream], Awaitable[None]]
"""Serves one inbound stream; the stream is closed when it returns and aborted when it raises."""


class Transport(Protocol):
    """Streams to and from peers, addressed by peer id."""

    @property
    def peer_id(self) -> PeerId:
        """Who we are."""
        ...

    def addresses(self) -> tuple[str, ...]:
        """Multiaddresses at which others can dial us, each ending in `/p2p/<our peer id>`."""
        ...

    async def connect(self, address: str) -> PeerId:
        """Dial a multiaddress that ends in `/p2p/<peer id>`; the peer that answered there.

        `PeerUnreachable` if nobody does within the transport's dial timeout.
        """
        ...

    async def open_stream(
        self, peer: PeerId, protocol: str, addresses: Sequence[str] = ()
    ) -> Stream:
        """A new stream to `peer`, dialling `addresses` when there is no connection yet.

        `PeerUnreachable` if the peer cannot be reached or does not speak `protocol`.
        """
        ...

    async def serve(self, protocol: str, handler: StreamHandler) -> None:
        """Let `handler` answer inbound streams of `protocol` from now on."""
        ...

    async def drop(self, peer: PeerId) -> None:
        """End all streams with `peer`, in both directions, and the connection, at once."""
        ...

    async def close(self) -> None:
        """End all streams and stop listening; harmless when called again."""
        ...


@dataclass(frozen=True, slots=True)
class StoredValue:
    """A value found in the record store, with its expiry in Unix seconds."""

    value: bytes
    expires_at: float


class RecordStore(Protocol):
    """A shared, unreliable table: key, then one value per subkey (the publisher's peer id).

    Nothing in it is believed: values are verified by whoever reads them.
    """

    async def put(self, key: str, subkey: str, value: bytes, expires_at: float) -> bool:
        """Store a value until `expires_at` (Unix seconds); whether any peer took it."""
        ...

    async def get(self, key: str) -> Mapping[str, StoredValue]:
        """Everything unexpired that can be found under `key`; empty when nothing can."""
        ...


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much of us a peer may use at a time. Its standing decides (see `Gate.allowance`)."""

    requests_per_second: float
    """Record store requests and new streams, each; `burst` of them may come at once."""
    burst: int
    streams: int
    """Inbound streams at a time."""
    answers: int
    """Answers of our models at a time."""
    tokens: int
    """Most tokens of one answer; 0 means no limit."""
    records: int
    """Values that it may keep in our part of the record store."""


class Gate(Protocol):
    """Decides who may act in the swarm.

    Transports and record stores ask it: `admits` before any handler sees an inbound stream or
    request, `greet` before anything is sent to a peer, for every protocol but the open ones
    (`protocols.access.OPEN`). It fails closed.
    """

    async def attach(self, transport: Transport) -> None:
        """Say hello through `transport` from now on, and answer there to those who do."""
        ...

    def admits(self, peer: PeerId, protocol: str) -> bool:
        """Whether `peer` may call our `protocol` now. Cheap: asked for every request."""
        ...

    def allowance(self, peer: PeerId) -> Allowance:
        """What `peer` may use of us now."""
        ...

    async def greet(self, peer: PeerId, protocol: str) -> None:
        """See to it that `peer` admits us and that we may call its `protocol`.

        Returns at once when both were settled before. `NotAdmitted` if it has no place in the
        swarm or says that we have none, else the transport's errors.
        """
        ...

    def forget(self, peer: PeerId) -> None:
        """The peer seems not to know us any more (it restarted): greet it anew next time."""
        ...


class Clock(Protocol):
    """Time as an argument."""

    def now(self) -> float:
        """Wall time in Unix seconds; may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back, on the time line of `asyncio.timeout` and `asyncio.sleep`."""
        ...
