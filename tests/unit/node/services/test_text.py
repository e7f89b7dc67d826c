"""`AnswerText`: what is visible, when, and that a replay goes on at the same character."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from node.hosting.decoding import byte_spelling, make_decoder
from node.services.text import AnswerText
from tests.effort import examples


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


class Pieces:
    """A decoder of a text that is cut into pieces: ids count them."""

    def __init__(self, pieces: list[str]) -> None:
        self._pieces = pieces

    def push(self, token_id: int) -> str:
        return self._pieces[token_id]

    def flush(self) -> str:
        return ""


pieces = st.lists(st.text("ab日", max_size=6), max_size=12)
wide_stops = st.lists(st.text("ab日", min_size=1, max_size=5), max_size=4).map(tuple)


@settings(max_examples=examples(2_000))
@given(pieces, wide_stops)
def test_the_end_does_not_depend_on_where_tokens_are_cut(
    cut: list[str], stop: tuple[str, ...]
) -> None:
    answer = AnswerText(Pieces(cut), stop)
    told = [*(answer.push(at) for at in range(len(cut))), answer.finish()]
    assert "".join(told) == naive("".join(cut), stop)


@settings(max_examples=examples(2_000))
@given(pieces, wide_stops)
def test_nothing_that_is_told_has_to_be_taken_back(cut: list[str], stop: tuple[str, ...]) -> None:
    """What is visible after any token is a beginning of what is visible in the end."""
    for end in range(len(cut) + 1):
        answer = AnswerText(Pieces(cut), stop)
        so_far = "".join(answer.push(at) for at in range(end))
        assert naive("".join(cut), stop).startswith(so_far)


@pytest.mark.parametrize("stop", ["日本", "本", "é!", "!\U0001f408", "\U0001f408"])
def test_a_stop_string_of_several_bytes_that_spans_a_failover(stop: str) -> None:
    """With a real tokenizer's decoder, every byte a token, the answer cut at every token."""
    alphabet = {value: key for key, value in byte_spelling().items()}
    vocabulary = {alphabet[byte]: byte for byte in range(256)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.decoder = decoders.ByteLevel()
    ids = list("a é!\U0001f408 日本 b".encode())
    whole = tokenizer.decode(ids)
    for cut in range(len(ids) + 1):
        first = AnswerText(make_decoder(tokenizer), (stop,))
        told = "".join(first.push(one) for one in ids[:cut])
        second = AnswerText(make_decoder(tokenizer), (stop,))
        second.replay(ids[:cut])
        told += "".join(second.push(one) for one in ids[cut:]) + second.finish()
        assert told == whole[: whole.index(stop)]
        assert second.stopped


@given(letters, stops, st.integers(0, 30))
def test_a_replay_goes_on_at_the_same_character(text: str, stop: tuple[str, ...], cut: int) -> None:
    ids = [ord(letter) for letter in text]
    whole = visible(text, stop)
    second = AnswerText(Letters(), stop)
    second.replay(ids[:cut])
    rest = [*(second.push(token_id) for token_id in ids[cut:]), second.finish()]
    assert "".join(itertools.chain(whole[: len(ids[:cut])], rest)) == "".join(whole)
