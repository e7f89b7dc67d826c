"""Pages of one prompt, read and written between the steps of an engine.

Knows page book and runner; must not know requests, bytes or who wants the pages. Used by the
engine's thread only.
"""

from collections.abc import Sequence

from node.engine.page_block import PageBlock
from node.engine.pages import PAGE_SIZE, BlockTable, PageBook
from node.engine.runner import Runner


class PageExchange:
    """The base model's pages of `tokens`, as far as there are any, for one owner.

    `table` says whose they are. It holds no page: what is found may be gone at the next call.
    """

    def __init__(
        self, book: PageBook, runner: Runner, table: BlockTable, tokens: Sequence[int]
    ) -> None:
        self._book = book
        self._runner = runner
        self._table = table
        self._tokens = tokens

    def missing(self, most: int) -> range:
        """From the first to the last page that is not there, of the first `most`."""
        gaps = [
            index
            for index in range(most)
            if self._book.find(self._table, self._tokens, index) is None
        ]
        return range(gaps[0], gaps[-1] + 1) if gaps else range(most, most)

    def read(self, first: int, count: int) -> PageBlock | None:
        """A copy of `count` pages; None if one of them is not there."""
        pages = [
            page
            for index in range(first, first + count)
            if (page := self._book.find(self._table, self._tokens, index)) is not None
        ]
        return self._runner.export_pages(pages) if len(pages) == count else None

    def write(self, first: int, block: PageBlock) -> int:
        """Put the pages of `block` where the chain's sequences find them; how many were new.

        Pages that are there already stay; when all pages are in use, the rest is left out.
        """
        missing: list[int] = []
        pages: list[int] = []
        last = first + block.keys.shape[2] // PAGE_SIZE
        before = self._book.find(self._table, self._tokens, last)
        for index in range(last - 1, first - 1, -1):
            known = self._book.find(self._table, self._tokens, index)
            page = self._book.reserve(before) if known is None else None
            if page is not None:
                missing.append(index)
                pages.append(page)
            elif known is None:
                break
            before = known if page is None else page
        if pages:
            self._fill(first, missing, pages, block)
        return len(pages)

    def _fill(self, first: int, missing: list[int], pages: list[int], block: PageBlock) -> None:
        try:
            self._runner.import_pages(pages, _chosen(block, [one - first for one in missing]))
        except BaseException:
            for page in pages:
                self._book.give_back(page)
            raise
        for index, page in zip(missing, pages, strict=True):
            self._book.publish_imported(self._table, self._tokens, index, page)


def _chosen(block: PageBlock, indices: list[int]) -> PageBlock:
    """The pages `indices` of `block`, in that order."""
    layers, heads, tokens, dimension = block.keys.shape
    if indices == list(range(tokens // PAGE_SIZE)):
        return block
    split = (layers, heads, tokens // PAGE_SIZE, PAGE_SIZE, dimension)
    keys, values = (
        part.view(split)[:, :, indices].flatten(2, 3) for part in (block.keys, block.values)
    )
    return PageBlock(keys, values)
