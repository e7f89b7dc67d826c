from collections.abc import Sequence
from dataclasses import replace

import pytest

from node.engine.free_runs import FreeRuns
from node.engine.pages import PAGE_SIZE, BlockTable, PageBook, PrefixScope, page_digest, pages_for

SCOPE = PrefixScope("model", salt="alice")
TEXT = list(range(100, 200))


def computed(
    book: PageBook, tokens: Sequence[int], scope: PrefixScope = SCOPE
) -> tuple[BlockTable, int]:
    """A table whose tokens are all committed, and how many were found instead of computed."""
    table = BlockTable(scope)
    saved = book.match(table, tokens)
    assert book.grow(table, len(tokens))
    book.commit(table, tokens, len(tokens) - saved)
    return table, saved


def test_runs_join_and_split() -> None:
    free = FreeRuns(10)
    assert all(free.take(number) for number in (3, 4, 7, 0, 9))
    assert not free.take(4)
    assert not free.take(10)
    assert not free.take(-1)
    assert free.runs() == [range(1, 3), range(5, 7), range(8, 9)]
    assert free.largest() == range(1, 3)
    free.free(7)
    assert free.largest() == range(5, 9)
    free.free(4)
    free.free(3)
    assert free.runs() == [range(1, 9)]
    assert len(free) == 8
    for number in (1, 5, 8):
        with pytest.raises(ValueError, match="free already"):
            free.free(number)


@pytest.mark.parametrize(("length", "hit"), [(16, 0), (17, 16), (32, 16), (33, 32), (100, 96)])
def test_full_pages_are_found_but_never_the_last_token(length: int, hit: int) -> None:
    book = PageBook(20)
    first, saved = computed(book, TEXT)
    assert saved == 0
    second, saved = computed(book, TEXT[:length])
    assert saved == hit
    assert second.pages[: hit // PAGE_SIZE] == first.pages[: hit // PAGE_SIZE]
    assert all(book.references(page) == 2 for page in second.pages[: hit // PAGE_SIZE])
    assert all(book.references(page) == 1 for page in second.pages[hit // PAGE_SIZE :])


def test_a_page_is_found_only_after_its_tokens_were_computed() -> None:
    book = PageBook(20)
    table = BlockTable(SCOPE)
    assert book.grow(table, len(TEXT))
    assert book.match(BlockTable(SCOPE), TEXT) == 0
    book.commit(table, TEXT, 47)
    assert book.match(BlockTable(SCOPE), TEXT) == 32
    book.commit(table, TEXT, 1)
    assert book.match(BlockTable(SCOPE), TEXT) == 48


@pytest.mark.parametrize(
    "other",
    [
        replace(SCOPE, salt="bob"),
        replace(SCOPE, salt=""),
        replace(SCOPE, model="model int8"),
        replace(SCOPE, model="modela", salt="lice"),
        replace(SCOPE, adapter="a" * 64),
    ],
)
def test_what_was_computed_otherwise_or_for_others_is_not_found(other: PrefixScope) -> None:
    book = PageBook(20)
    table, _ = computed(book, TEXT)
    assert book.match(BlockTable(other), TEXT) == 0
    book.release(table)
    assert book.match(BlockTable(other), TEXT) == 0
    assert book.match(BlockTable(SCOPE), TEXT) == 96


@pytest.mark.parametrize(("start", "shared"), [(0, 0), (15, 0), (16, 16), (31, 16), (48, 48)])
def test_pages_before_an_adapters_first_token_are_the_base_models(start: int, shared: int) -> None:
    book = PageBook(40)
    adapted = replace(SCOPE, adapter="a" * 64, adapter_from=start)
    computed(book, TEXT)
    assert computed(book, TEXT, adapted)[1] == shared
    assert computed(book, TEXT, adapted)[1] == 96
    assert computed(book, TEXT, replace(adapted, adapter="b" * 64))[1] == shared


def test_the_same_tokens_after_another_beginning_are_another_page() -> None:
    book = PageBook(20)
    computed(book, TEXT)
    assert computed(book, [7, *TEXT[1:]])[1] == 0
    assert page_digest(bytes(32), b"", range(16)) != page_digest(bytes(32), b"x", range(16))


def test_a_digest_that_two_contents_had_would_not_be_taken_for_a_hit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("node.engine.pages.page_digest", lambda *_: bytes(32))
    book = PageBook(20)
    computed(book, TEXT)
    assert book.match(BlockTable(SCOPE), TEXT[16:]) == 0


def test_a_sequence_goes_over_to_pages_that_another_finished_first() -> None:
    book = PageBook(20)
    ahead, behind = BlockTable(SCOPE), BlockTable(SCOPE)
    for table, count in ((ahead, 90), (behind, 20)):
        assert book.grow(table, count)
        book.commit(table, TEXT, count)
    own = behind.pages[0]
    assert book.used == 6 + 2
    assert book.match(behind, TEXT) == 80 - 20
    assert behind.pages == [own, *ahead.pages[1:5]], "its own half-written page was given back"
    assert book.used == 6 + 1
    book.release(ahead)
    book.release(behind)
    assert (book.used, book.cached) == (0, 5), "a page of the same name was not kept twice"


def test_idle_pages_go_oldest_first_and_tails_before_heads() -> None:
    book = PageBook(8)
    old, _ = computed(book, TEXT[:64])
    new, _ = computed(book, TEXT[::-1][:64])
    book.release(old)
    book.release(new)
    assert (book.used, book.cached, book.available) == (0, 8, 8)
    taken = BlockTable(PrefixScope("other"))
    assert book.grow(taken, 2 * PAGE_SIZE)
    assert book.match(BlockTable(SCOPE), TEXT[:64]) == 32
    assert book.match(BlockTable(SCOPE), TEXT[::-1][:64]) == 48


def test_being_found_makes_pages_young() -> None:
    book = PageBook(8)
    for tokens in (TEXT[:64], TEXT[::-1][:64]):
        book.release(computed(book, tokens)[0])
    looked = BlockTable(SCOPE)
    book.match(looked, TEXT[:64])
    book.release(looked)
    assert book.grow(BlockTable(PrefixScope("other")), 4 * PAGE_SIZE)
    # The last page was not looked for: it goes first, then three of those that nobody looked at.
    assert book.match(BlockTable(SCOPE), TEXT[:64]) == 48
    assert book.match(BlockTable(SCOPE), TEXT[::-1][:64]) == 16


def test_pages_in_use_are_never_given_away() -> None:
    book = PageBook(4)
    table, _ = computed(book, TEXT[:40])
    other = BlockTable(SCOPE)
    assert not book.grow(other, 17)
    assert other.pages == []
    assert book.grow(other, 16)
    assert book.room(other) == 16
    assert book.room(table) == 8
    with pytest.raises(ValueError, match="pages for"):
        book.commit(other, TEXT, 17)


def test_sequences_that_grow_by_turns_keep_consecutive_pages() -> None:
    """Eight contexts of 32 pages each in the pool that was made for them."""
    book = PageBook(8 * 32)
    tables = [BlockTable(SCOPE) for _ in range(8)]
    for tokens in range(1, 32 * PAGE_SIZE + 1, 8):
        for table in tables:
            assert book.grow(table, tokens)
    for table in tables:
        breaks = sum(b != a + 1 for a, b in zip(table.pages, table.pages[1:], strict=False))
        assert breaks <= 1


def test_pages_for_counts_whole_pages() -> None:
    assert [pages_for(n) for n in (0, 1, 16, 17, 32)] == [0, 1, 1, 2, 2]
