"""Prompt lookup against a naive scan of the whole text."""

import random
from itertools import pairwise

import hypothesis.strategies as st
from hypothesis import given, settings

from node.engine.speculation.lookup import PromptLookup
from node.engine.speculation.suffixes import MATCHED_MAX, SuffixIndex
from tests.effort import examples
from tests.unit.node.engine.speculation.texts import Plain

MOST = 6


def places(tokens: list[int], order: int) -> list[int]:
    """Where the last `order` tokens were followed by something, by looking everywhere."""
    ending = tokens[-order:]
    return [p for p in range(order, len(tokens)) if tokens[p - order : p] == ending]


def test_what_followed_before_is_drafted() -> None:
    lookup = PromptLookup()
    draft = lookup.propose(Plain([1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4]), 3)
    assert draft is not None
    assert list(draft.token_ids) == [5, 6, 7]
    assert draft.kind == "own 4"


def test_a_draft_that_reaches_the_end_comes_round_again() -> None:
    draft = PromptLookup().propose(Plain([9, 1, 2, 3, 1, 2, 3]), 8)
    assert draft is not None
    assert list(draft.token_ids) == [1, 2, 3, 1, 2, 3, 1, 2]


def test_nothing_is_drafted_for_what_never_occurred() -> None:
    lookup = PromptLookup()
    for tokens in ([], [1], [1, 1], [1, 2, 3, 4]):
        assert lookup.propose(Plain(tokens, ticket=len(tokens)), MOST) is None


def test_the_latest_place_wins_and_longer_matches_win_over_it() -> None:
    longer = [1, 2, 3, 4, 50, 9, 3, 4, 60, 8, 1, 2, 3, 4]
    draft = PromptLookup().propose(Plain(longer), 1)
    assert draft is not None
    assert list(draft.token_ids) == [50]
    latest = [3, 4, 50, 9, 3, 4, 60, 8, 3, 4]
    draft = PromptLookup().propose(Plain(latest), 1)
    assert draft is not None
    assert list(draft.token_ids) == [60]


def test_a_text_that_left_is_forgotten() -> None:
    lookup = PromptLookup()
    text = Plain([1, 2, 3, 1, 2])
    assert lookup.propose(text, 1)
    lookup.leave(text)
    lookup.leave(text)
    assert repr(lookup) == "<PromptLookup texts=0>"


@settings(max_examples=examples(300), deadline=None)
@given(
    st.lists(st.integers(0, 3), max_size=40),
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), max_size=12),
)
def test_a_draft_is_there_whenever_a_pair_occurred_and_is_what_followed(
    prompt: list[int], growth: list[list[int]]
) -> None:
    """However the text grows, in one piece or token by token."""
    lookup = PromptLookup()
    tokens = list(prompt)
    for more in [[], *growth]:
        tokens += more
        draft = lookup.propose(Plain(tokens), MOST)
        pairs = places(tokens, 2) if len(tokens) > 1 else []
        assert (draft is not None) >= bool(pairs)
        if draft is None:
            continue
        matched = int(draft.kind.split()[1])
        sources = places(tokens, matched)
        assert any(_onwards(tokens, p) == list(draft.token_ids) for p in sources)
        if matched < 4:
            assert not places(tokens, 4) or _was_followed(lookup)


def _onwards(tokens: list[int], place: int) -> list[int]:
    longer = list(tokens)
    for n in range(MOST):
        longer.append(longer[place + n])
    return longer[len(tokens) :]


def _was_followed(lookup: PromptLookup) -> bool:
    """A trail that agrees so far is kept even where a longer match began somewhere else."""
    return all(own.trail.place for own in lookup._texts.values())


def test_the_work_for_a_token_does_not_grow_with_the_text() -> None:
    """Counted, not timed: each gram is put into the index once."""
    rng = random.Random(3)
    tokens: list[int] = []
    index = SuffixIndex((4, 2))
    sizes = []
    for _ in range(2000):
        tokens.append(rng.randrange(10**9))
        index.cover(tokens)
        sizes.append(sum(len(followed) for _, followed in index._followed))
    assert all(later - sooner <= 2 for sooner, later in pairwise(sizes))


def test_the_length_of_a_match_is_counted_up_to_a_bound() -> None:
    lookup = PromptLookup()
    block = list(range(40))
    draft = lookup.propose(Plain(block + block[:30]), 1)
    assert draft is not None
    assert draft.kind == f"own {MATCHED_MAX}"
    assert draft.prior == 0.8
