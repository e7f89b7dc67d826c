"""`/dslm/info/1` on a stream: says who we are and how busy, as often as it is asked.

Knows what this node serves through a callback; must not know how the answer is used.
"""

import asyncio
from collections.abc import Callable

from protocols.channel import Channel
from protocols.errors import PeerLost, ProtocolError, TransportDown
from protocols.messages.info import InfoReply, InfoRequest
from protocols.ports import Stream

IDLE_SECONDS = 30.0
REQUESTS_MAX = 100
"""On one stream; a client that wants more opens another."""


class InfoStream:
    """The stream handler of the info protocol. `describe` makes the reply to a nonce."""

    def __init__(self, describe: Callable[[int], InfoReply]) -> None:
        self._describe = describe

    async def __call__(self, stream: Stream) -> None:
        """Answer requests until the peer ends, idles or misbehaves."""
        channel: Channel[InfoRequest] = Channel(stream, InfoRequest)
        try:
            for _ in range(REQUESTS_MAX):
                async with asyncio.timeout(IDLE_SECONDS):
                    request = await channel.receive()
                if request is None:
                    return
                async with asyncio.timeout(IDLE_SECONDS):
                    await channel.send(self._describe(request.nonce))
        except (TimeoutError, PeerLost, ProtocolError, TransportDown):
            stream.abort()
