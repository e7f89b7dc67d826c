"""`/dslm/ask/1` on a stream: reads the question, sends the answer, stops when the client goes.

Knows channels and deadlines; the answer itself is `node.services.ask`'s.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from node.services.ports import PeerAnswerer
from protocols.ask import ServerAsk, refusal_of
from protocols.channel import Channel
from protocols.errors import DslmError, PeerLost, ProtocolError, TransportDown
from protocols.messages.ask import Ask, Cancel, ClientMessage
from protocols.ports import Stream

FIRST_MESSAGE_SECONDS = 5.0
SEND_SECONDS = 30.0
"""How long, over a whole answer, we wait for a client to take what we send.

Over the whole, because a client that took one message every half a minute would keep its place in
the model for as long as it liked.
"""

STREAM_BROKEN = (PeerLost, TransportDown)
"""Nobody is there to be told anything."""

_log = logging.getLogger(__name__)


class _ClientGone(Exception):
    """The client cancelled or left: end the answer, say nothing."""


class AskStream:
    """The stream handler of the ask protocol."""

    def __init__(self, service: PeerAnswerer) -> None:
        self._service = service

    async def __call__(self, stream: Stream) -> None:
        """Serve one stream; all of a client's misbehaviour ends in closing it."""
        channel: Channel[ClientMessage] = Channel(stream, ClientMessage)
        protocol = ServerAsk()
        try:
            async with asyncio.timeout(FIRST_MESSAGE_SECONDS):
                message = await channel.receive()
            if message is None:
                return
            ask = protocol.receive(message)
            if isinstance(ask, Ask):
                await self._answer_until_gone(channel, protocol, ask)
        except (TimeoutError, *STREAM_BROKEN):
            stream.abort()
        except ProtocolError as error:
            _log.info("peer %s broke the ask protocol: %s", stream.peer[:12], error)
            await _send_in_time(channel, refusal_of(error))

    async def _answer_until_gone(
        self, channel: Channel[ClientMessage], protocol: ServerAsk, ask: Ask
    ) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                watcher = tasks.create_task(_watch_client(channel, protocol))
                await self._send_answer(channel, ask)
                watcher.cancel()
        except* _ClientGone:
            channel.stream.abort()
        except* (TimeoutError, *STREAM_BROKEN):
            channel.stream.abort()
        except* ProtocolError as group:
            _log.info("peer %s broke the ask protocol: %s", channel.stream.peer[:12], group)
            channel.stream.abort()

    async def _send_answer(self, channel: Channel[ClientMessage], ask: Ask) -> None:
        patience = Patience(SEND_SECONDS)
        try:
            async with aclosing(self._service.answer(ask, channel.stream.peer)) as messages:
                async for message in messages:
                    async with patience.spend():
                        await channel.send(message)
        except STREAM_BROKEN:
            raise
        except DslmError as error:
            _log.info("refused %s of %s: %s", ask.request_id, channel.stream.peer[:12], error.code)
            await _send_in_time(channel, refusal_of(error))


class Patience:
    """A time that several waits share; `TimeoutError` in the one in which it runs out."""

    def __init__(self, seconds: float) -> None:
        self._left = seconds

    @asynccontextmanager
    async def spend(self) -> AsyncIterator[None]:
        """Run the block; its time is gone."""
        now = asyncio.get_running_loop().time
        began = now()
        async with asyncio.timeout(self._left):
            yield
        self._left -= now() - began


async def _watch_client(channel: Channel[ClientMessage], protocol: ServerAsk) -> None:
    """Runs beside the answer; raises `_ClientGone` when nobody wants it any more."""
    while (message := await channel.receive()) is not None:
        if isinstance(protocol.receive(message), Cancel):
            raise _ClientGone
    raise _ClientGone


async def _send_in_time(channel: Channel[ClientMessage], message: object) -> None:
    async with asyncio.timeout(SEND_SECONDS):
        await channel.send(message)  # type: ignore[arg-type]
