"""`AnswerText`: what is visible, when, and that a replay goes on at the same character."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from node.services.text import AnswerText


class Letters:
    """A decoder whose ids are code points."""

    def push(self, token_id: int) -> str:
        return chr(token_id)

    def flush(self) -> str:
        return ""


def visible(text: str, stop: tuple[str, ...]) -> list[str]:
    answer = AnswerText(Letters(), stop)
    return [*(answer.push(ord(letter)) for letter in text), answer.finish()]


def test_without_stop_strings_nothing_is_held_back() -> None:
    assert visible("abc", ()) == ["a", "b", "c", ""]


def test_text_ends_before_the_stop_string_and_stays_ended() -> None:
    assert "".join(visible("one two STOP three", ("STOP",))) == "one two "


def test_the_start_of_a_stop_string_is_held_until_it_is_none() -> None:
    assert visible("aST.", ("STOP",)) == ["a", "", "", "ST.", ""]


def test_what_is_held_at_the_end_becomes_visible() -> None:
    assert visible("aST", ("STOP",)) == ["a", "", "", "ST"]


def naive(text: str, stop: tuple[str, ...]) -> str:
    """The shortest prefix of the text that contains a stop string, cut before it."""
    for end in range(len(text) + 1):
        starts = [at for one in stop if (at := text[:end].find(one)) >= 0]
        if starts:
            return text[: min(starts)]
    return text


letters = st.text("ab", max_size=30)
stops = st.lists(st.text("ab", min_size=1, max_size=4), max_size=4).map(tuple)


@given(letters, stops)
def test_same_text_as_the_naive_rule(text: str, stop: tuple[str, ...]) -> None:
    assert "".join(visible(text, stop)) == naive(text, stop)


@given(letters, stops, st.integers(0, 30))
def test_a_replay_goes_on_at_the_same_character(text: str, stop: tuple[str, ...], cut: int) -> None:
    ids = [ord(letter) for letter in text]
    whole = visible(text, stop)
    second = AnswerText(Letters(), stop)
    second.replay(ids[:cut])
    rest = [*(second.push(token_id) for token_id in ids[cut:]), second.finish()]
    assert "".join(itertools.chain(whole[: len(ids[:cut])], rest)) == "".join(whole)
