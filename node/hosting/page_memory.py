"""A hosted model's pages as bytes: what `node.services.memory_ports.PageMemory` is really.

Knows the engine's thread and encodings; must not know peers. Numbers are packed and unpacked in
worker threads; the engine's thread only copies, a few pages at a time.
"""

import asyncio
from dataclasses import dataclass

from node.engine.base import PageOwner
from node.engine.page_block import PageBlock, decode_block, encode_block
from node.engine.page_exchange import PageExchange
from node.engine.pages import PAGE_SIZE
from node.hosting.hosted import HostedModel
from node.services.memory_ports import PromptPages
from protocols.errors import ProtocolError
from protocols.memory import page_bytes
from protocols.messages.memory import Encoding, PageLayout


@dataclass(frozen=True, slots=True)
class HostedPages:
    """Implements `PageMemory` for one specialist."""

    hosted: HostedModel
    layout: PageLayout

    @classmethod
    def of(cls, hosted: HostedModel) -> "HostedPages":
        """The pages of `hosted`, which it shares with all specialists on its base."""
        config = hosted.config
        layout = PageLayout(
            base=hosted.base_digest,
            precision=hosted.precision,
            layers=config.layers,
            kv_heads=config.kv_heads,
            dimension=config.head_dimension,
            page_tokens=PAGE_SIZE,
        )
        return cls(hosted, layout)

    @property
    def prompt_rate(self) -> float:
        """See `PageMemory`."""
        return self.hosted.statistics().prompt_rate

    def base_tokens(self, prompt: tuple[int, ...]) -> int:
        """See `PageMemory`."""
        adapter = self.hosted.adapter
        use = adapter.use_for(prompt) if adapter else None
        return len(prompt) if use is None else use.start

    async def missing(self, pages: PromptPages, most: int) -> range:
        """See `PageMemory`."""
        return await self.hosted.loop.between_steps(lambda: self._exchange(pages).missing(most))

    async def export(self, pages: PromptPages, first: int, count: int, encoding: Encoding) -> bytes:
        """See `PageMemory`."""
        block = await self.hosted.loop.between_steps(
            lambda: self._exchange(pages).read(first, count)
        )
        return b"" if block is None else await asyncio.to_thread(encode_block, block, encoding)

    async def take(self, pages: PromptPages, first: int, data: bytes, encoding: Encoding) -> int:
        """See `PageMemory`."""
        count, rest = divmod(len(data), page_bytes(self.layout, encoding))
        if rest or not count:
            raise ProtocolError(f"{len(data)} bytes are not whole pages")
        block = await asyncio.to_thread(self._decode, data, count, encoding)
        return await self.hosted.loop.between_steps(
            lambda: self._exchange(pages).write(first, block)
        )

    def _decode(self, data: bytes, count: int, encoding: Encoding) -> PageBlock:
        layout = self.layout
        shape = (layout.layers, layout.kv_heads, count * layout.page_tokens, layout.dimension)
        return decode_block(data, shape, encoding)

    def _exchange(self, pages: PromptPages) -> PageExchange:
        owner = PageOwner(pages.client, pages.tenant, pages.chain)
        return self.hosted.exchange(owner, pages.tokens)
