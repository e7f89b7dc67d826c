"""The transport of one peer of the memory network.

Knows its own handlers and whether it is open; the network knows the others.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from protocols import admission
from protocols.adapters.memory.address import address_of, parse_address
from protocols.adapters.memory.stream import Freezer
from protocols.errors import PeerUnreachable, ProtocolError, TransportDown
from protocols.ids import PeerId
from protocols.ports import Gate, Stream, StreamHandler

if TYPE_CHECKING:
    from protocols.adapters.memory.network import MemoryNetwork


class MemoryTransport:
    """The `Transport` port."""

    def __init__(self, me: PeerId, network: "MemoryNetwork", gate: Gate | None = None) -> None:
        self._me = me
        self._network = network
        self._is_attached = False
        self.gate = gate
        self.freezer = Freezer()
        self.handlers: dict[str, StreamHandler] = {}
        self.tasks: dict[asyncio.Task[None], None] = {}
        self.is_open = True

    def __repr__(self) -> str:
        return f"<MemoryTransport {self._me[-8:]}{'' if self.is_open else ' closed'}>"

    @property
    def peer_id(self) -> PeerId:
        """Who we are."""
        return self._me

    def addresses(self) -> tuple[str, ...]:
        """See `protocols.ports.Transport`."""
        return (address_of(self._me),)

    async def connect(self, address: str) -> PeerId:
        """See `protocols.ports.Transport`."""
        await self._wait_ready()
        try:
            peer = parse_address(address)
        except ProtocolError as error:
            raise PeerUnreachable(f"cannot dial {address[:100]!r}: {error}") from error
        await self._network.dial(self, peer)
        return peer

    async def open_stream(
        self, peer: PeerId, protocol: str, addresses: Sequence[str] = ()
    ) -> Stream:
        """See `protocols.ports.Transport`."""
        await self._wait_ready()
        if not self._network.are_connected(self._me, peer):
            if not any(_leads_to(address, peer) for address in addresses):
                raise PeerUnreachable(f"no connection to {peer} and no address of it")
            await self._network.dial(self, peer)
        await admission.greet(self.gate, peer, protocol)
        return await self._network.open_stream(self, peer, protocol)

    async def serve(self, protocol: str, handler: StreamHandler) -> None:
        """See `protocols.ports.Transport`."""
        await self._wait_ready()
        self.handlers[protocol] = handler

    async def drop(self, peer: PeerId) -> None:
        """See `protocols.ports.Transport`."""
        await self._wait_ready()
        self._network.drop(self._me, peer)

    async def close(self) -> None:
        """See `protocols.ports.Transport`."""
        self._network.leave(self)

    async def wait_attached(self) -> None:
        """The gate is told of its transport before the first use of it."""
        if self.gate is None or self._is_attached:
            return
        self._is_attached = True
        try:
            await self.gate.attach(self)
        except BaseException:
            self._is_attached = False
            raise

    async def _wait_ready(self) -> None:
        await self.freezer.wait_thawed()
        self.check_open()
        await self.wait_attached()

    def check_open(self) -> None:
        """`TransportDown` once the peer was killed or closed."""
        if not self.is_open:
            raise TransportDown("this peer's transport is closed")


def _leads_to(address: str, peer: PeerId) -> bool:
    try:
        return parse_address(address) == peer
    except ProtocolError:
        return False
