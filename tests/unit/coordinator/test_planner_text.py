"""How cards are called in a question, and which answers count as plans."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.routing.planner_text import (
    CARDS_MAX,
    NAME_CHARACTERS_MAX,
    NOBODY,
    planner_answer,
    planner_question,
    read_plan,
    shown_names,
)


@given(st.lists(st.text(max_size=60) | st.sampled_from(["a", NOBODY, "a:", "x" * 50])))
def test_shown_names_tell_cards_apart(names: list[str]) -> None:
    shown = shown_names(names)
    assert len(set(shown)) == len(shown) == min(len(names), CARDS_MAX)
    question = planner_question([(name, "") for name in names], "ask")
    assert [line.partition(":")[0] for line in question.splitlines()[1:-2]] == list(shown)
    for one in shown:
        assert one != NOBODY
        assert 0 < len(one) <= NAME_CHARACTERS_MAX
        assert read_plan(planner_answer([(one, "do it")]), shown) == ((one, "do it"),)


def test_usual_names_are_shown_as_they_are() -> None:
    long = "x" * 60
    assert shown_names(["law", "acme/math.v2"]) == ("law", "acme/math.v2")
    assert shown_names([long, long + "y", "law"]) == ("x" * 40, "x" * 38 + "-2", "law")


def test_the_base_is_nobody() -> None:
    assert read_plan("nobody: Sing.", ("law",)) == ((NOBODY, "Sing."),)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "law",
        "law:",
        "law: ",
        "Law: Read it.",
        "code: Write it.",
        "1: Read it.",
        "law: Read it.\n\nlaw: Again.",
        "law: Read it.\nlaw: Again.",
        "\n".join(["law: Read it.", "maths: Add."] * 2 + ["law: More."]),
    ],
)
def test_other_answers_are_no_plans(answer: str) -> None:
    assert read_plan(answer, ("law", "maths")) == ()
