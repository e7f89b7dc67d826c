"""Which page of the cache holds which tokens, who uses it, and which may be given away.

Knows page numbers, tokens and digests; must not know tensors, requests or their order.

A page holds `PAGE_SIZE` tokens of every layer. It is free, or in use by the block tables that
count in its references, or idle: nobody uses it, but its tokens are known and it can be found
again. The name of a full page is a SHA-256 chain over everything that decides its content, so that
nobody can make a page that another one is taken for. (The chain is vLLM's automatic prefix caching
with its cache salt; comparing tokens and publishing late are nano-vllm's.)
"""

import struct
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from node.engine.free_runs import FreeRuns

PAGE_SIZE = 16
_EVICTED_AT_ONCE = 16
"""At least this fraction of all pages is freed at a time, so that tables find free neighbours."""


def pages_for(tokens: int) -> int:
    """How many pages hold `tokens` tokens."""
    return -(-tokens // PAGE_SIZE)


@dataclass(frozen=True, slots=True)
class PrefixScope:
    """What decides the content of a page besides its tokens, and who may find it.

    `model` names weights, quantisation, float type and range of layers. Only requests with the
    same `salt` find each other's pages. `adapter` is the digest of one that changes the keys and
    values from position `adapter_from` on; pages that end before it are the base model's.
    `chain` names a task whose sequences may find pages that other peers computed: nobody else does,
    for they need not be exact.
    """

    model: str
    salt: str = ""
    adapter: str = ""
    adapter_from: int = 0
    chain: str = ""

    def root(self) -> bytes:
        """What stands in place of a parent for a first page."""
        digest = sha256(b"dslm-pages-1")
        for part in (self.model, self.salt):
            encoded = part.encode()
            digest.update(len(encoded).to_bytes(4, "little") + encoded)
        return digest.digest()

    def extra_key(self, index: int) -> bytes:
        """What the name of page `index` of a sequence says besides parent and tokens.

        A page in whose middle the adapter begins says where: the same tokens could have it begin
        elsewhere. Later pages have that from their parents.
        """
        if not self.adapter or (index + 1) * PAGE_SIZE <= self.adapter_from:
            return b""
        offset = max(0, self.adapter_from - index * PAGE_SIZE)
        return f"{offset} {self.adapter}".encode()


def imported_name(chain: str, digest: bytes) -> bytes:
    """The name of a page that is not, or not all, this engine's own work."""
    encoded = chain.encode()
    return sha256(
        b"dslm-imported-1" + len(encoded).to_bytes(4, "little") + encoded + digest
    ).digest()


def page_digest(parent: bytes, extra: bytes, tokens: Sequence[int]) -> bytes:
    """The name of a full page after the page named `parent` (32 bytes)."""
    packed = struct.pack(f"<{len(tokens)}I", *tokens)
    return sha256(parent + len(extra).to_bytes(4, "little") + extra + packed).digest()


@dataclass(slots=True, eq=False)
class BlockTable:
    """The pages of one sequence, in its order. Only a `PageBook` changes it.

    The keys and values of the first `committed` tokens are in the pages. `digests` are the names
    of the sequence's full pages, as far as they were needed; they stay when pages are released.
    Once a page `is_imported`, what follows it is computed from it, and named like it.
    """

    scope: PrefixScope
    pages: list[int] = field(default_factory=list)
    committed: int = 0
    digests: list[bytes] = field(default_factory=list)
    is_imported: bool = False


class PageBook:
    """Hands out `total` pages and remembers what the idle ones hold.

    Idle pages are given away in the order in which they were last used, and the later pages of a
    sequence before the earlier ones, without which they could not be found.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._free = FreeRuns(total)
        self._references = [0] * total
        self._digests: list[bytes | None] = [None] * total
        self._tokens: list[tuple[int, ...]] = [()] * total
        self._published: dict[bytes, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()

    def __repr__(self) -> str:
        return f"<PageBook used={self.used} cached={self.cached} total={self._total}>"

    @property
    def total(self) -> int:
        """All pages."""
        return self._total

    @property
    def used(self) -> int:
        """Pages in some table."""
        return self._total - self.available

    @property
    def cached(self) -> int:
        """Pages in no table that can be found again."""
        return len(self._idle)

    @property
    def available(self) -> int:
        """Pages that `grow` can hand out: free and idle ones."""
        return len(self._free) + len(self._idle)

    def references(self, page: int) -> int:
        """How many tables use `page`."""
        return self._references[page]

    def room(self, table: BlockTable) -> int:
        """The most tokens that can follow the committed ones of `table` now."""
        return (len(table.pages) + self.available) * PAGE_SIZE - table.committed

    def match(self, table: BlockTable, tokens: Sequence[int]) -> int:
        """Lead `table` over published pages that hold its next `tokens`; how many that saves.

        `tokens` are all of the sequence. The last one is never matched: without computing it there
        would be nothing to choose the next token from.
        """
        before = table.committed
        for index in range(before // PAGE_SIZE, (len(tokens) - 1) // PAGE_SIZE):
            page = self.find(table, tokens, index)
            if page is None:
                break
            exact = self._digest(table, tokens, index)
            table.is_imported = table.is_imported or self._digests[page] != exact
            self._idle.pop(page, None)
            self._references[page] += 1
            if index < len(table.pages):
                # The sequence's own page, half written; another sequence finished it sooner.
                self._drop(table.pages[index])
                table.pages[index] = page
            else:
                table.pages.append(page)
            table.committed = (index + 1) * PAGE_SIZE
        return table.committed - before

    def next_names(self, table: BlockTable, tokens: Sequence[int], count: int) -> list[bytes]:
        """The names of the pages that the next `count` of `tokens` begin, go on with or fill.

        Only of pages that others could match: those that `tokens` fill and go beyond.
        """
        first, last = table.committed // PAGE_SIZE, (table.committed + count - 1) // PAGE_SIZE
        most = (len(tokens) - 1) // PAGE_SIZE
        return [self._digest(table, tokens, index) for index in range(first, min(last + 1, most))]

    def grow(self, table: BlockTable, tokens: int) -> bool:
        """Give `table` pages for `tokens` tokens in all; False, changing nothing, for want of them.

        Pages follow each other where they can: attention then reads them without a copy.
        """
        missing = pages_for(tokens) - len(table.pages)
        if missing > self.available:
            return False
        self._evict(missing)
        for left in range(missing, 0, -1):
            page = self._take(table, left)
            self._references[page] = 1
            table.pages.append(page)
        return True

    def commit(self, table: BlockTable, tokens: Sequence[int], count: int) -> None:
        """The keys and values of the next `count` of `tokens` were written: publish full pages.

        Of two pages with the same name the first stays published; the other is nobody's find.
        """
        first = table.committed // PAGE_SIZE
        table.committed += count
        if table.committed > len(table.pages) * PAGE_SIZE:
            raise ValueError("more tokens were committed than the table has pages for")
        for index in range(first, table.committed // PAGE_SIZE):
            self._publish(table, tokens, index, table.pages[index])

    def trim(self, table: BlockTable, tokens: int) -> None:
        """Take back the pages that `table` has beyond those for `tokens` tokens.

        `tokens` is not below what is committed: what goes was never published.
        """
        if tokens < table.committed:
            raise ValueError("the keys and values of committed tokens stay")
        while len(table.pages) > pages_for(tokens):
            self._drop(table.pages.pop())

    def release(self, table: BlockTable) -> None:
        """Take all pages back; the published ones can be found until they are needed."""
        for page in reversed(table.pages):
            self._drop(page)
        table.pages.clear()
        table.committed = 0
        table.is_imported = False

    def find(self, table: BlockTable, tokens: Sequence[int], index: int) -> int | None:
        """The published page `index` of a sequence; of two the one that was computed here."""
        digest = self._digest(table, tokens, index)
        page = self._published.get(digest)
        if page is None and table.scope.chain:
            page = self._published.get(imported_name(table.scope.chain, digest))
        if page is None or self._tokens[page] != _content(tokens, index):
            return None
        return page

    def before_known(self, table: BlockTable, tokens: Sequence[int], count: int) -> int:
        """How many of the next `count` tokens come before a page that need not be computed."""
        if not table.scope.chain:
            return count
        first = table.committed // PAGE_SIZE + 1
        last = min(pages_for(table.committed + count), (len(tokens) - 1) // PAGE_SIZE)
        for index in range(first, last):
            if self.find(table, tokens, index) is not None:
                return index * PAGE_SIZE - table.committed
        return count

    def reserve(self, before: int | None = None) -> int | None:
        """A page to be filled from outside; None if all are in use.

        It is the one in front of page `before` if that is free. `publish` or `give_back` follows.
        """
        if not self.available:
            return None
        self._evict(1)
        if before and self._free.take(before - 1):
            page = before - 1
        else:
            page = self._free.largest().stop - 1
            self._free.take(page)
        self._references[page] = 1
        return page

    def publish_imported(
        self, table: BlockTable, tokens: Sequence[int], index: int, page: int
    ) -> None:
        """The reserved `page` holds page `index` of a sequence: its chain can find it."""
        table.is_imported = True
        self._publish(table, tokens, index, page)
        self.give_back(page)

    def give_back(self, page: int) -> None:
        """End what `reserve` began."""
        self._drop(page)

    def _publish(self, table: BlockTable, tokens: Sequence[int], index: int, page: int) -> None:
        name = self._digest(table, tokens, index)
        if table.is_imported:
            name = imported_name(table.scope.chain, name)
        if name not in self._published:
            self._published[name] = page
            self._digests[page] = name
            self._tokens[page] = _content(tokens, index)

    def _digest(self, table: BlockTable, tokens: Sequence[int], index: int) -> bytes:
        digests = table.digests
        while len(digests) <= index:
            here = len(digests)
            parent = digests[-1] if digests else table.scope.root()
            content = _content(tokens, here)
            digests.append(page_digest(parent, table.scope.extra_key(here), content))
        return digests[index]

    def _drop(self, page: int) -> None:
        self._references[page] -= 1
        if self._references[page]:
            return
        if self._digests[page] is None:
            self._free.free(page)
        else:
            self._idle[page] = None

    def _evict(self, wanted: int) -> None:
        """Free idle pages until `wanted` are free; then somewhat more, for later."""
        if wanted <= len(self._free):
            return
        count = max(wanted - len(self._free), self._total // _EVICTED_AT_ONCE)
        for _ in range(min(count, len(self._idle))):
            page, _ = self._idle.popitem(last=False)
            digest = self._digests[page]
            if digest is None:
                raise AssertionError(f"the idle page {page} has no name")
            del self._published[digest]
            self._digests[page] = None
            self._tokens[page] = ()
            self._free.free(page)

    def _take(self, table: BlockTable, wanted: int) -> int:
        """The page after the table's last if it is free, else where the table can best grow."""
        if table.pages and self._free.take(table.pages[-1] + 1):
            return table.pages[-1] + 1
        run = self._free.largest()
        page = run.start
        if page and self._references[page - 1]:
            # Leave half of the room to whoever may be growing towards it.
            page += max(0, len(run) - wanted) // 2
        self._free.take(page)
        return page


def _content(tokens: Sequence[int], index: int) -> tuple[int, ...]:
    return tuple(tokens[index * PAGE_SIZE : (index + 1) * PAGE_SIZE])
