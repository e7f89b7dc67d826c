"""Places to cut lie at sentences, items, blocks and capitals, keep code whole, and are few."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.routing.segments import CUTS_MAX, LEAST_CHARACTERS, MARKS, cuts, spans
from tests.effort import examples

PIECES = st.sampled_from(
    ["A sentence of some length. ", "Hi! ", "\n\n", "- an item of a list\n", "2. second\n",
     "```\nx = 1.\n\ny\n```",
     "Dr. Who? ", "3.5 and 4. ", "é。", "```", "   ", "word " * 9]
)  # fmt: skip


def firm(text: str) -> list[str]:
    """What follows the firm places."""
    return [text[one.at :] for one in cuts(text) if one.is_firm]


@given(st.lists(PIECES, max_size=30).map("".join) | st.text(max_size=200))
@settings(max_examples=examples(400), deadline=None)
def test_cuts_rise_are_few_and_leave_something_at_both_ends(prompt: str) -> None:
    found = cuts(prompt)
    assert len(found) <= CUTS_MAX
    assert all(one.at < two.at for one, two in itertools.pairwise(found))
    for one in found:
        assert len(prompt[: one.at].strip()) > 0
        assert len(prompt[one.at :].strip()) >= LEAST_CHARACTERS
        assert not prompt[one.at].isspace()
        assert len(one.marks) == MARKS
        assert set(one.marks) <= {0.0, 1.0}
    pieces = spans(prompt, found)
    assert "".join(prompt[start:end] for start, end in pieces) == prompt


def test_sentences_are_cut_and_abbreviations_and_numbers_are_not() -> None:
    prompt = "Dr. Smith paid 3.50 dollars in the U.S. court. What did the judge decide about it?"
    assert firm(prompt) == ["What did the judge decide about it?"]


def test_a_sentence_that_was_not_ended_may_end_before_a_capital() -> None:
    prompt = "The theory of rational expectations Which organ makes insulin in adults?"
    loose = {prompt[one.at :]: one for one in cuts(prompt)}
    cut = loose["Which organ makes insulin in adults?"]
    assert not cut.is_firm
    assert cut.marks == (0, 0, 0, 1, 0, 1, 0, 0, 0, 1)


@pytest.mark.parametrize(
    ("prompt", "mark"),
    [
        ("Is the sky of Mars blue? The dose was far too high.", 0),
        ("The sky of Mars is blue. The dose was far too high.", 1),
        ("The colour of the sky is: The dose was far too high.", 2),
        ("What is the colour of it?\nThe dose was far too high.", 4),
        ("The sky of Mars is blue. How high was the right dose?", 5),
        ("The sky of Mars is blue. An overdose is a poisoning.", 6),
        ("The sky of Mars is blue. Then say what the dose was.", 7),
        ("The sky of Mars is blue. using lower letters only now", 8),
    ],
)
def test_marks_say_what_stands_around_a_cut(prompt: str, mark: int) -> None:
    found = max(cuts(prompt), key=lambda one: one.marks[mark])
    assert found.marks[mark] == 1


def test_lists_are_cut_at_their_items() -> None:
    prompt = "1. Write a function to sort a list\n2. Explain the contract law of England\n"
    assert firm(prompt) == ["2. Explain the contract law of England\n"]


def test_code_is_never_cut_even_unclosed() -> None:
    code = "```python\nfirst = 1.\n\n\nsecond = 'a sentence. And another one that is long.'\n"
    for fence in ("```", ""):
        prompt = f"What does this program print, please?\n{code}{fence}"
        start = prompt.index("```")
        assert [one.at for one in cuts(prompt) if one.at >= start] == [start]


def test_what_follows_code_is_a_part_of_its_own() -> None:
    prompt = "```\nprint('Hello. World')\n``` and what is the law of large numbers?"
    assert firm(prompt) == ["and what is the law of large numbers?"]


def test_of_a_very_long_prompt_firm_places_stay() -> None:
    prompt = "This is Some Sentence That Has a good length. " * 200
    found = cuts(prompt)
    assert len(found) == CUTS_MAX
    assert all(one.is_firm for one in found)
    assert found[-1].at > len(prompt) * 0.9
