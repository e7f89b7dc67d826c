"""Two sequences have a page in common exactly when each token up to its end was computed alike."""

import hypothesis.strategies as st
from hypothesis import given, settings

from node.engine.pages import PAGE_SIZE, BlockTable, PageBook, PrefixScope
from tests.effort import examples

PAGES = 4
LENGTH = PAGES * PAGE_SIZE

scopes = st.builds(
    PrefixScope,
    model=st.just("m"),
    salt=st.sampled_from(["alice", "bob"]),
    adapter=st.sampled_from(["", "a", "b", "ab"]),
    adapter_from=st.integers(0, LENGTH + 2),
)
# Few contents, so that many sequences begin alike.
texts = st.builds(
    lambda cut, tail: [7] * cut + [tail] * (LENGTH - cut),
    cut=st.integers(0, LENGTH),
    tail=st.integers(0, 2),
)


def computed(scope: PrefixScope, tokens: list[int]) -> list[tuple[str, int, str]]:
    """What decides each token's keys and values: who, the token, and the adapter at work."""
    return [
        (scope.salt, token, scope.adapter if position >= scope.adapter_from else "")
        for position, token in enumerate(tokens)
    ]


@settings(max_examples=examples(1000), deadline=None)
@given(first=scopes, second=scopes, text=texts, other=texts, is_same=st.booleans())
def test_a_page_is_shared_exactly_when_all_before_its_end_was_computed_alike(
    first: PrefixScope, second: PrefixScope, text: list[int], other: list[int], *, is_same: bool
) -> None:
    other = text if is_same else other
    book = PageBook(2 * PAGES + 2)
    owner = BlockTable(first)
    book.grow(owner, LENGTH)
    book.commit(owner, text, LENGTH)
    finder = BlockTable(second)
    # One more token, because the last of a prompt is never matched.
    hit = book.match(finder, [*other, 1])
    pairs = zip(computed(first, text), computed(second, other), strict=True)
    alike = next((at for at, (one, two) in enumerate(pairs) if one != two), LENGTH)
    assert hit == alike // PAGE_SIZE * PAGE_SIZE
    if first.adapter != second.adapter:
        starts = [scope.adapter_from for scope in (first, second) if scope.adapter]
        assert hit <= min(starts)
