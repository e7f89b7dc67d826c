"""Segments cover the prompt, keep code whole, and leave no crumbs."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.routing.segments import CRUMB_CHARACTERS, SEGMENTS_MAX, segments
from tests.effort import examples

PIECES = st.sampled_from(
    ["A sentence of some length. ", "Hi! ", "\n\n", "- an item of a list\n", "2. second\n",
     "```\nx = 1.\n\ny\n```",
     "Dr. Who? ", "3.5 and 4. ", "é。", "```", "   ", "word " * 9]
)  # fmt: skip


def texts(prompt: str) -> list[str]:
    return [one.of(prompt) for one in segments(prompt)]


@given(st.lists(PIECES, max_size=30).map("".join) | st.text(max_size=200))
@settings(max_examples=examples(400), deadline=None)
def test_segments_cover_the_prompt_in_order_without_crumbs(prompt: str) -> None:
    found = segments(prompt)
    if not prompt.strip():
        assert found == ()
        return
    assert found[0].start == 0
    assert found[-1].end == len(prompt)
    assert all(one.end == two.start for one, two in itertools.pairwise(found))
    assert len(found) <= SEGMENTS_MAX
    if len(found) > 1:
        assert all(len(one.of(prompt)) >= CRUMB_CHARACTERS for one in found)


def test_sentences_are_cut_and_abbreviations_and_numbers_are_not() -> None:
    prompt = "Dr. Smith paid 3.50 dollars in the U.S. court. What did the judge decide about it?"
    assert texts(prompt) == [
        "Dr. Smith paid 3.50 dollars in the U.S. court.",
        "What did the judge decide about it?",
    ]


def test_crumbs_go_with_what_follows() -> None:
    assert texts("Hello! What is the capital of the state? Thanks.") == [
        "Hello! What is the capital of the state? Thanks."
    ]
    prompt = "Explain the offside rule to me. Then: compute the area of a circle of radius 3."
    assert texts(prompt)[1].startswith("Then: compute")


def test_lists_are_cut_at_their_items() -> None:
    prompt = "1. Write a function to sort a list\n2. Explain the contract law of England\n"
    assert texts(prompt) == [
        "1. Write a function to sort a list",
        "2. Explain the contract law of England",
    ]


def test_code_is_one_segment_even_unclosed() -> None:
    code = "```python\nfirst = 1.\n\n\nsecond = 'a sentence. And another one that is long.'\n"
    for fence in ("```", ""):
        prompt = f"What does this program print, please?\n{code}{fence}"
        assert [one for one in texts(prompt) if "first" in one and "another one" in one]


def test_a_very_long_prompt_has_few_segments() -> None:
    prompt = "This is a sentence that has a good length. " * 200
    assert len(segments(prompt)) == SEGMENTS_MAX
