"""The page book against a naive model that keeps the tokens of every page as plain lists."""

from itertools import pairwise

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from node.engine.free_runs import FreeRuns
from node.engine.pages import PAGE_SIZE, BlockTable, PageBook, PrefixScope, pages_for
from tests.effort import examples

TOTAL = 12
SCOPES = (
    PrefixScope("m", "alice"),
    PrefixScope("m", "bob"),
    PrefixScope("m", "alice", "adapter", 20),
    PrefixScope("m", "alice", "adapter", 26),
    PrefixScope("m", "alice", "another", 20),
    PrefixScope("m", "alice", "adapter"),
    PrefixScope("m", "alice", chain="task"),
    PrefixScope("m", "alice", "adapter", 26, chain="task"),
    PrefixScope("m", "alice", chain="another task"),
)
# Few beginnings, so that prefixes meet; the tail of each sequence is its own.
STEMS = ([1] * 60, [1] * 20 + [2] * 40, [3] * 60)


class Pages(RuleBasedStateMachine):
    """`written` is what a real cache would hold: (scope, all tokens up to there) of each page.

    The last entry is the chain for which a page, or one before it, came from elsewhere.
    """

    def __init__(self) -> None:
        super().__init__()
        self.book = PageBook(TOTAL)
        self.open: list[tuple[BlockTable, list[int]]] = []
        self.written: dict[int, tuple[object, ...]] = {}

    def content(
        self, table: BlockTable, tokens: list[int], index: int, origin: str
    ) -> tuple[object, ...]:
        stop = (index + 1) * PAGE_SIZE
        scope = table.scope
        is_adapted = bool(scope.adapter) and stop > scope.adapter_from
        adapter = (scope.adapter, scope.adapter_from) if is_adapted else None
        return scope.model, scope.salt, adapter, tuple(tokens[:stop]), origin

    @precondition(lambda self: len(self.open) < 6)
    @rule(
        scope=st.sampled_from(SCOPES),
        stem=st.sampled_from(STEMS),
        length=st.integers(1, 60),
        tail=st.lists(st.integers(0, 2), max_size=4),
    )
    def enter(self, scope: PrefixScope, stem: list[int], length: int, tail: list[int]) -> None:
        table, tokens = BlockTable(scope), [*stem[:length], *tail]
        self.check_match(table, tokens)
        self.open.append((table, tokens))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def match_again(self, data: st.DataObject) -> None:
        self.check_match(*data.draw(st.sampled_from(self.open)))

    def check_match(self, table: BlockTable, tokens: list[int]) -> None:
        before = table.committed
        saved = self.book.match(table, tokens)
        assert saved == table.committed - before >= 0
        assert saved == 0 or table.committed < len(tokens)
        for index in range(table.committed // PAGE_SIZE):
            found = self.written[table.pages[index]]
            assert found[-1] in {"", table.scope.chain}, "another task's page"
            assert found == self.content(table, tokens, index, str(found[-1]))

    def origin(self, table: BlockTable) -> str:
        """What the next page of `table` is computed from."""
        full = table.pages[: table.committed // PAGE_SIZE]
        return max((str(self.written[page][-1]) for page in full), default="")

    @precondition(lambda self: self.open)
    @rule(data=st.data(), count=st.integers(1, 3), is_written=st.booleans())
    def bring(self, data: st.DataObject, count: int, *, is_written: bool) -> None:
        """Pages of a sequence come from elsewhere, from the end down; or what writes them fails."""
        owner, tokens = data.draw(st.sampled_from(self.open))
        last = len(tokens) // PAGE_SIZE
        if not owner.scope.chain or not last:
            return
        table, before = BlockTable(owner.scope), None
        for index in range(last - 1, max(-1, last - 1 - count), -1):
            known = self.book.find(table, tokens, index)
            if known is not None:
                assert self.written[known][-1] in {"", owner.scope.chain}
                before = known
                continue
            in_use = {page for other, _ in self.open for page in other.pages}
            page = self.book.reserve(before)
            assert (page is None) == (len(in_use) == TOTAL)
            if page is None:
                return
            assert page not in in_use
            self.written.pop(page, None)
            if not is_written:
                self.book.give_back(page)
                return
            self.written[page] = self.content(table, tokens, index, owner.scope.chain)
            self.book.publish_imported(table, tokens, index, page)
            assert self.book.find(BlockTable(owner.scope), tokens, index) == page
            before = page

    @precondition(lambda self: self.open)
    @rule(data=st.data(), count=st.integers(1, 60))
    def look_ahead(self, data: st.DataObject, count: int) -> None:
        table, tokens = data.draw(st.sampled_from(self.open))
        found = self.book.before_known(table, tokens, count)
        assert 0 < found <= count
        if found < count:
            index = (table.committed + found) // PAGE_SIZE
            assert (table.committed + found) % PAGE_SIZE == 0
            assert self.book.find(table, tokens, index) is not None

    @precondition(lambda self: self.open)
    @rule(data=st.data(), more=st.integers(1, 40))
    def grow_and_commit(self, data: st.DataObject, more: int) -> None:
        table, tokens = data.draw(st.sampled_from(self.open))
        count = min(more, len(tokens) - table.committed, self.book.room(table))
        free = self.book.available
        wanted = pages_for(table.committed + more) - len(table.pages)
        if wanted > free:
            pages = list(table.pages)
            assert not self.book.grow(table, table.committed + more)
            assert (table.pages, self.book.available) == (pages, free)
        if count <= 0:
            return
        in_use = {page for other, _ in self.open for page in other.pages}
        old = list(table.pages)
        assert self.book.grow(table, table.committed + count)
        assert table.pages[: len(old)] == old
        assert not in_use & set(table.pages[len(old) :]), "a page in use was given away"
        # The forward pass writes into every page that it reaches; none of them may be another's.
        first = table.committed // PAGE_SIZE
        for page in table.pages[first:]:
            assert self.book.references(page) == 1
            self.written.pop(page, None)
        origin = self.origin(table)
        self.book.commit(table, tokens, count)
        for index in range(first, table.committed // PAGE_SIZE):
            self.written[table.pages[index]] = self.content(table, tokens, index, origin)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), token=st.integers(0, 2))
    def append(self, data: st.DataObject, token: int) -> None:
        data.draw(st.sampled_from(self.open))[1].append(token)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.open) - 1))
        self.book.release(self.open.pop(index)[0])

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def preempt(self, data: st.DataObject) -> None:
        table, tokens = data.draw(st.sampled_from(self.open))
        self.book.release(table)
        assert (table.pages, table.committed) == ([], 0)
        self.check_match(table, tokens)

    @invariant()
    def references_are_the_tables_uses(self) -> None:
        uses = [0] * TOTAL
        for table, _ in self.open:
            assert len(set(table.pages)) == len(table.pages)
            for page in table.pages:
                uses[page] += 1
        assert [self.book.references(page) for page in range(TOTAL)] == uses
        assert self.book.used == sum(count > 0 for count in uses)
        assert self.book.available == TOTAL - self.book.used
        assert 0 <= self.book.cached <= self.book.available

    def teardown(self) -> None:
        for table, _ in self.open:
            self.book.release(table)
        assert (self.book.used, self.book.available) == (0, TOTAL)
        whole = BlockTable(SCOPES[0])
        assert self.book.grow(whole, TOTAL * PAGE_SIZE)
        assert sorted(whole.pages) == list(range(TOTAL)), "every page is still there, once"


TestPages = Pages.TestCase
TestPages.settings = settings(max_examples=examples(300), stateful_step_count=60, deadline=None)


class Runs(RuleBasedStateMachine):
    """Against a plain set."""

    def __init__(self) -> None:
        super().__init__()
        self.runs = FreeRuns(20)
        self.free = set(range(20))

    @rule(number=st.integers(-1, 20))
    def take(self, number: int) -> None:
        assert self.runs.take(number) == (number in self.free)
        self.free.discard(number)

    @precondition(lambda self: len(self.free) < 20)
    @rule(data=st.data())
    def give(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(set(range(20)) - self.free)))
        self.runs.free(number)
        self.free.add(number)

    @invariant()
    def same(self) -> None:
        runs = self.runs.runs()
        assert [n for run in runs for n in run] == sorted(self.free)
        assert len(self.runs) == len(self.free)
        assert all(a.stop < b.start for a, b in pairwise(runs))
        if runs:
            assert len(self.runs.largest()) == max(map(len, runs))


TestRuns = Runs.TestCase
TestRuns.settings = settings(max_examples=examples(100), deadline=None)
