"""Names of pages, and the order of messages in `/dslm/memory/1`; no I/O.

Knows what may follow what and how many bytes a page is; must not know what keys and values mean.

    client                          server
    Want                       ->
                               <-   Found
                               <-   Pages*  (from the last one wanted down, without a gap)
                               <-   Done
    the stream's end (at any time: no more is wanted)
"""

import struct
from collections.abc import Sequence
from enum import Enum, auto
from hashlib import sha256
from typing import assert_never

from protocols import limits
from protocols.codec import Frame
from protocols.errors import ProtocolError
from protocols.messages.memory import (
    NAME_BYTES,
    Done,
    Encoding,
    Found,
    MemoryReply,
    PageLayout,
    Pages,
    Want,
)

SCALE_BYTES = 2
_ITEM_BYTES = {"f32": 4, "bf16": 2, "i8": 1}


def page_names(
    layout: PageLayout, ticket: str, tokens: Sequence[int], pages: int
) -> tuple[bytes, ...]:
    """The names of the first `pages` full pages of `tokens`.

    A chain of SHA-256: a name says base, ticket and all tokens up to the end of its page. Nobody
    can say it who does not know them, and who knows the tokens can compute the page.
    """
    size = layout.page_tokens
    if pages * size > len(tokens):
        raise ValueError(f"{len(tokens)} tokens do not fill {pages} pages")
    parent = _root(layout, ticket)
    names: list[bytes] = []
    for index in range(pages):
        content = tokens[index * size : (index + 1) * size]
        parent = sha256(parent + struct.pack(f"<{size}I", *content)).digest()
        names.append(parent[:NAME_BYTES])
    return tuple(names)


def page_bytes(layout: PageLayout, encoding: Encoding) -> int:
    """Bytes of one page in a payload."""
    vectors = 2 * layout.layers * layout.kv_heads * layout.page_tokens
    scale = SCALE_BYTES if encoding == "i8" else 0
    return vectors * (layout.dimension * _ITEM_BYTES[encoding] + scale)


def pages_per_frame(layout: PageLayout, encoding: Encoding) -> int:
    """How many pages go together; 0 if not even one is small enough to be sent."""
    size = page_bytes(layout, encoding)
    if size > limits.PAYLOAD_BYTES_MAX:
        return 0
    return max(1, limits.MEMORY_FRAME_BYTES // size)


def common_pages(ours: Sequence[bytes], theirs: Sequence[bytes]) -> int:
    """How many pages two prompts have in common, by their names."""
    count = 0
    for one, other in zip(ours, theirs, strict=False):
        if one != other:
            break
        count += 1
    return count


class MemoryState(Enum):
    """Where one transfer stands."""

    NEW = auto()
    ASKED = auto()
    STREAMING = auto()
    ENDED = auto()


class ClientMemory:
    """The fetching end: checks that what comes is what was wanted, and no more."""

    def __init__(self, want: Want) -> None:
        self._want = want
        self._page_bytes = page_bytes(want.layout, want.encoding)
        self._stop = 0
        self._state = MemoryState.ASKED

    def __repr__(self) -> str:
        return f"<ClientMemory {self._state.name} down to {self._stop}>"

    @property
    def ended(self) -> bool:
        """Whether the peer has said its last word."""
        return self._state is MemoryState.ENDED

    def receive(self, frame: Frame[MemoryReply]) -> Frame[MemoryReply]:
        """`frame`, if it may come now and its payload has the size of its pages."""
        message = frame.message
        if not isinstance(message, Pages) and frame.payload:
            raise ProtocolError("bytes without pages")
        match message:
            case Found():
                self._expect(MemoryState.ASKED)
                if message.pages > len(self._want.names):
                    raise ProtocolError("more pages were found than were named")
                self._stop = message.pages
                self._state = MemoryState.STREAMING
            case Pages():
                self._expect(MemoryState.STREAMING)
                self._take(message, len(frame.payload))
            case Done():
                self._expect(MemoryState.STREAMING)
                self._state = MemoryState.ENDED
            case _:
                assert_never(message)
        return frame

    def _take(self, pages: Pages, size: int) -> None:
        if pages.first + pages.count != self._stop or pages.first < self._want.first:
            raise ProtocolError(
                f"pages {pages.first} to {pages.first + pages.count}, expected to {self._stop}"
            )
        if pages.name != self._want.names[self._stop - 1]:
            raise ProtocolError("pages of another name")
        if size != pages.count * self._page_bytes:
            raise ProtocolError(f"{pages.count} pages in {size} bytes")
        self._stop = pages.first

    def _expect(self, state: MemoryState) -> None:
        if self._state is not state:
            raise ProtocolError(f"a message out of turn: {self._state.name.lower()}")


class ServerMemory:
    """The serving end: one `Want`, whose numbers agree with each other, and nothing after it."""

    def __init__(self) -> None:
        self._state = MemoryState.NEW

    def __repr__(self) -> str:
        return f"<ServerMemory {self._state.name}>"

    def receive(self, want: Want) -> Want:
        """`want`, if it may come now."""
        if self._state is not MemoryState.NEW:
            raise ProtocolError("asked twice on one stream")
        if want.first >= len(want.names):
            raise ProtocolError("no page is wanted")
        if not pages_per_frame(want.layout, want.encoding):
            raise ProtocolError("a page of this layout is too large to be sent")
        self._state = MemoryState.ASKED
        return want


def _root(layout: PageLayout, ticket: str) -> bytes:
    digest = sha256(b"dslm-memory-1")
    sizes = (layout.layers, layout.kv_heads, layout.dimension, layout.page_tokens)
    for part in (layout.base, layout.precision, " ".join(map(str, sizes)), ticket):
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(4, "little") + encoded)
    return digest.digest()
