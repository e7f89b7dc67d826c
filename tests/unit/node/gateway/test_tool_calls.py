"""Calls in an answer's text: found however the text is cut, and nothing else taken for one."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.gateway.tool_calls import FoundCall, ToolCallReader
from tests.effort import examples

NAMES = frozenset({"weather", "time"})
RAIN = FoundCall("weather", '{"city": "Oslo"}')
NOW = FoundCall("time", "{}")
ONE = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
TWO = ONE + '\n<tool_call>{"name": "time", "arguments": {}}</tool_call>'
BARE = '{"name": "weather", "parameters": {"city": "Oslo"}}'

CASES: list[tuple[str, str, list[FoundCall]]] = [
    ("Hello.", "Hello.", []),
    ("", "", []),
    (ONE, "", [RAIN]),
    ("\n\n" + ONE + "\n", "", [RAIN]),
    (TWO, "", [RAIN, NOW]),
    ("Let me look.\n" + ONE, "Let me look.\n", [RAIN]),
    (ONE[: -len("</tool_call>")], "", [RAIN]),
    (BARE, "", [RAIN]),
    ("<|python_tag|>" + BARE, "", [RAIN]),
    (BARE + "; " + '{"name": "time", "parameters": {}}', "", [RAIN, NOW]),
    (BARE + "\n" + BARE, "", [RAIN, RAIN]),
    # What is no call stays text, to the letter.
    ('{"name": "bomb", "parameters": {}}', '{"name": "bomb", "parameters": {}}', []),
    ('{"a": 1}', '{"a": 1}', []),
    (BARE + " is what I mean", BARE + " is what I mean", []),
    ("{not json", "{not json", []),
    ("<tool_call>nonsense</tool_call> x", "<tool_call>nonsense</tool_call> x", []),
    ("<tool_call>" + '{"name": "bomb"}</tool_call>', '<tool_call>{"name": "bomb"}</tool_call>', []),
    ("a <tool_", "a <tool_", []),
    ("a <b> <tool_call", "a <b> <tool_call", []),
    ('{"name": "time", "arguments": "x"}', '{"name": "time", "arguments": "x"}', []),
    ("  indented", "  indented", []),
    ("   ", "   ", []),
    ("[" * 50 + BARE, "[" * 50 + BARE, []),
    ("{" + '"a":[' * 20_000, "{" + '"a":[' * 20_000, []),
]


def read(pieces: list[str], *, one_call: bool = False) -> tuple[str, list[FoundCall]]:
    reader = ToolCallReader(NAMES, one_call=one_call)
    found = [*(reader.feed(piece) for piece in pieces), reader.finish()]
    return "".join(one.text for one in found), [call for one in found for call in one.calls]


@pytest.mark.parametrize(("answer", "text", "calls"), CASES)
def test_whole_answers(answer: str, text: str, calls: list[FoundCall]) -> None:
    assert read([answer]) == (text, calls)


@settings(max_examples=examples(1_000), deadline=None)
@given(st.sampled_from(CASES[:-1]), st.lists(st.integers(1, 12), min_size=1, max_size=9))
def test_the_same_however_it_is_cut(
    case: tuple[str, str, list[FoundCall]], sizes: list[int]
) -> None:
    answer, text, calls = case
    pieces: list[str] = []
    at = 0
    while at < len(answer):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(answer[at : at + size])
        at += size
    assert read(pieces) == (text, calls)


@settings(max_examples=examples(1_000), deadline=None)
@given(st.lists(st.sampled_from(["<tool_call>", "</tool_call>", "{", "}", BARE, " ", "a", "<"])))
def test_text_without_calls_is_never_lost(pieces: list[str]) -> None:
    text, calls = read(pieces)
    if not calls:
        assert text == "".join(pieces)


def test_text_is_told_before_the_call_is_whole() -> None:
    reader = ToolCallReader(NAMES)
    assert reader.feed("Let me <").text == "Let me "
    assert reader.feed("tool").text == ""
    assert reader.feed("s> look").text == "<tools> look"


def test_only_the_first_call_counts_if_the_client_wants_one() -> None:
    assert read([TWO], one_call=True) == ("", [RAIN])
    assert read(list(TWO), one_call=True) == ("", [RAIN])
    assert read([BARE + "\n" + BARE], one_call=True) == ("", [RAIN])


def test_arguments_are_json_and_keep_their_letters() -> None:
    answer = (
        '<tool_call>{"name": "weather", "arguments": {"city": "Ålesund", "n": 1.50}}</tool_call>'
    )
    (call,) = read([answer])[1]
    assert json.loads(call.arguments) == {"city": "Ålesund", "n": 1.5}
    assert "Å" in call.arguments
