"""Messages over a stream: the thin async shell around the codec.

Knows the `Stream` port and frames; must not know what the messages mean.
"""

from collections import deque
from typing import Any, Generic, TypeVar

import msgspec

from protocols import limits
from protocols.codec import Frame, FrameDecoder, encode
from protocols.errors import PeerLost
from protocols.ports import Stream

MessageT = TypeVar("MessageT")

_READ_BYTES_MAX = 65_536


class Channel(Generic[MessageT]):
    """One stream on which messages of `union` arrive and any message can be sent.

    A message that arrives may carry `payload_max` raw bytes; the protocols so far carry none. Of
    strangers less than the usual `header_max` should be kept in memory.

    Deadlines are the caller's: wrap calls in `asyncio.timeout`. Cancelling `receive` loses nothing.
    """

    def __init__(
        self,
        stream: Stream,
        union: Any,  # noqa: ANN401  (a union is no type)
        payload_max: int = 0,
        header_max: int = limits.HEADER_BYTES_MAX,
    ) -> None:
        self.stream = stream
        self._decoder: FrameDecoder[MessageT] = FrameDecoder(union, header_max, payload_max)
        self._ready: deque[Frame[MessageT]] = deque()

    async def send(self, message: msgspec.Struct, payload: bytes = b"") -> None:
        """Send one message."""
        await self.stream.send(encode(message, payload))

    async def receive_frame(self) -> Frame[MessageT] | None:
        """The next message with its payload; None at the peer's orderly end."""
        while not self._ready:
            data = await self.stream.receive(_READ_BYTES_MAX)
            if not data:
                if not self._decoder.is_between_frames:
                    # a peer that dies looks like this on a transport that shows an end instead
                    raise PeerLost("the stream ended inside a message")
                return None
            self._ready.extend(self._decoder.feed(data))
        return self._ready.popleft()

    async def receive(self) -> MessageT | None:
        """The next message; None at the peer's orderly end."""
        frame = await self.receive_frame()
        return None if frame is None else frame.message
