"""What the services need to pass memory on: a model's pages as bytes, and a way to recall some.

Knows no torch and no streams; `node.hosting.page_memory` and `node.services.memory_fetch` are the
real things.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from protocols.ids import PeerId
from protocols.messages.ask import Ask
from protocols.messages.memory import Encoding, PageLayout


@dataclass(frozen=True, slots=True)
class PromptPages:
    """The pages of one prompt. `client`, `tenant` and `chain` say who may find them."""

    tokens: Sequence[int]
    client: str
    tenant: str
    chain: str


class PageMemory(Protocol):
    """The base model's keys and values of prompts, in pages of `layout.page_tokens` tokens."""

    @property
    def layout(self) -> PageLayout:
        """What a page is."""
        ...

    @property
    def prompt_rate(self) -> float:
        """Tokens of prompts computed in a second lately; 0 when none were."""
        ...

    def base_tokens(self, prompt: tuple[int, ...]) -> int:
        """How many tokens of `prompt` are read by the base model alone."""
        ...

    async def missing(self, pages: PromptPages, most: int) -> range:
        """From the first to the last page that is not there, of the first `most`; the range
        ends at `most` if that is empty."""
        ...

    async def export(self, pages: PromptPages, first: int, count: int, encoding: Encoding) -> bytes:
        """The payload of `count` pages; empty if one of them is not there."""
        ...

    async def take(self, pages: PromptPages, first: int, data: bytes, encoding: Encoding) -> int:
        """Keep the pages in `data`; how many were not there yet and are now.

        `ProtocolError` if `data` is not whole pages of numbers that a sound model has.
        """
        ...


class Recalled(Protocol):
    """What is recalled for one request, while it is computed."""

    @property
    def pages(self) -> int:
        """So many came from elsewhere."""
        ...

    @property
    def size(self) -> int:
        """In so many bytes."""
        ...

    def stop(self) -> None:
        """Nothing more is of use; harmless when called again."""
        ...


class Recall(Protocol):
    """Remembers what was asked, and gets the memory of a prompt from where it lies."""

    def begin(self, ask: Ask, prompt: tuple[int, ...], client: PeerId | None) -> Recalled:
        """`client` (None: this node) asks `ask`, which comes to `prompt`. Never fails or waits."""
        ...
