"""Asking one remote peer: the client's end of `/dslm/ask/1` over a stream of the transport.

Knows the codec and the protocol's state machine; must not know why this peer was chosen or what
happens when it fails.
"""

import asyncio
from collections.abc import AsyncGenerator

from coordinator.activity import Effort
from protocols import versions
from protocols.ask import ClientAsk
from protocols.channel import Channel
from protocols.codec import encode
from protocols.errors import DslmError, PeerLost, ProtocolError, Unsupported
from protocols.ids import PeerId
from protocols.messages.ask import Ask, Cancel, ServerMessage
from protocols.ports import Stream, Transport

LEAVE_SECONDS = 1.0
"""How long a cancel may take to be handed over before the stream is dropped instead."""


class RemoteAnswerer:
    """The `Answerer` port for one peer. What it sends and receives is counted in `effort`."""

    def __init__(
        self,
        transport: Transport,
        peer: PeerId,
        addresses: tuple[str, ...],
        effort: Effort | None = None,
    ) -> None:
        self._transport = transport
        self._peer = peer
        self._addresses = addresses
        self._effort = effort or Effort()

    def __repr__(self) -> str:
        return f"<RemoteAnswerer {self._peer}>"

    async def answer(self, ask: Ask) -> AsyncGenerator[ServerMessage, None]:
        """See `coordinator.ports.Answerer`.

        `PeerUnreachable`, `PeerLost` and `TransportDown` come from the network; `ProtocolError`
        when the peer's messages break the format or the order.
        """
        question = _encode(ask)
        opened = await self._transport.open_stream(self._peer, versions.ASK, self._addresses)
        stream = self._effort.counted(opened)
        conversation = ClientAsk(ask)
        channel: Channel[ServerMessage] = Channel(stream, ServerMessage)
        try:
            await stream.send(question)
            while not conversation.ended:
                message = await channel.receive()
                if message is None:
                    raise PeerLost(f"{self._peer} ended the stream in the middle of an answer")
                yield conversation.receive(message)
        except ProtocolError:
            stream.abort()
            raise
        finally:
            await _leave(stream, conversation)


async def _leave(stream: Stream, conversation: ClientAsk) -> None:
    """Tell the peer to stop, unless it has, and release the stream; never raises a `DslmError`."""
    try:
        async with asyncio.timeout(LEAVE_SECONDS):
            if not conversation.ended:
                await stream.send(encode(Cancel()))
            await stream.close()
    except (DslmError, TimeoutError):
        stream.abort()
    except (
        asyncio.CancelledError
    ):  # cancelled a second time: the peer must learn of it all the same
        stream.abort()
        raise


def _encode(ask: Ask) -> bytes:
    try:
        return encode(ask)
    except ProtocolError as error:  # our own message: no peer is to blame
        raise Unsupported(f"the request is too large to be sent: {error}") from error
