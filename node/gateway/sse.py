"""Server-sent events: frames as bytes, and the response that carries them to one client.

Knows the frame format and when the status goes out; must not know what the frames mean.

Frames are `data: {json}` and comments `: text`, each ended by an empty line with plain `\\n`. Other
events, empty data and `\\r\\n` break clients in use.
"""

from typing import Protocol

from aiohttp import web

from node.gateway import wire

DONE = b"data: [DONE]\n\n"
PING = b": ping\n\n"

_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}


def data_frame(value: object) -> bytes:
    """A frame with `value` as JSON."""
    return b"data: " + wire.encode(value) + b"\n\n"


def note_frame(value: object) -> bytes:
    """A comment that dslm's own clients read and others skip."""
    return b": dslm " + wire.encode(value) + b"\n\n"


class FrameSink(Protocol):
    """Where the frames of an answer go; see `EventStream`."""

    @property
    def is_started(self) -> bool:
        """Whether the status is out."""
        ...

    async def start(self, headers: dict[str, str]) -> None:
        """Send the status; harmless when repeated."""
        ...

    async def note(self, value: object) -> None:
        """Send a note, or keep it until the start."""
        ...

    async def write(self, *frames: bytes) -> None:
        """Send frames, after the start."""
        ...


class EventStream:
    """A response of frames to `request`. Nothing is sent, not even the status, before `start`."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._notes: list[bytes] = []
        self.response = web.StreamResponse(headers=_HEADERS)

    @property
    def is_started(self) -> bool:
        """Whether the status is out, so that an error can only be a frame."""
        return self.response.prepared

    async def start(self, headers: dict[str, str]) -> None:
        """Send status 200, `headers`, a ping and the notes held so far; harmless when repeated."""
        if self.is_started:
            return
        self.response.headers.update(headers)
        await self.response.prepare(self._request)
        await self.response.write(PING + b"".join(self._notes))
        self._notes.clear()

    async def note(self, value: object) -> None:
        """Send a note, or keep it until the start."""
        if self.is_started:
            await self.response.write(note_frame(value))
        else:
            self._notes.append(note_frame(value))

    async def write(self, *frames: bytes) -> None:
        """Send frames; `start` came before. Waits while the client is slow."""
        await self.response.write(b"".join(frames))
