"""What the planning model is asked, and how its answer is read and checked.

Knows text only; must not know models or cards' vectors. The model was trained on exactly these
texts: a change here needs it trained again.
"""

import itertools
import re
from collections.abc import Sequence

CARDS_MAX = 5
STEPS_MAX = 4
NAME_CHARACTERS_MAX = 40
DESCRIPTION_CHARACTERS_MAX = 120
PROMPT_CHARACTERS_MAX = 2_000
SYSTEM = "You plan which specialists answer a prompt."
NOBODY = 0
"""The number that stands for the plain base, when no specialist fits."""
_LINE = re.compile(r"(\d): (\S.*)")


def planner_question(cards: Sequence[tuple[str, str]], prompt: str) -> str:
    """The user's turn for `cards` (name and description, the best first, at most `CARDS_MAX`)."""
    lines = [
        f"{number}. {_short(name, NAME_CHARACTERS_MAX)}: "
        f"{_short(description, DESCRIPTION_CHARACTERS_MAX)}"
        for number, (name, description) in enumerate(cards[:CARDS_MAX], start=1)
    ]
    asked = _short(prompt, PROMPT_CHARACTERS_MAX)
    return "\n".join(["Specialists:", *lines, "Prompt:", asked])


def planner_answer(steps: Sequence[tuple[int, str]]) -> str:
    """What the model is trained to say: for each step a card's number and its sub-prompt."""
    return "\n".join(f"{number}: {_short(text, PROMPT_CHARACTERS_MAX)}" for number, text in steps)


def read_plan(answer: str, cards: int) -> tuple[tuple[int, str], ...]:
    """The steps in `answer`, for a question with so many cards; empty if it is not valid.

    Valid are 1 to `STEPS_MAX` lines, each `NUMBER: SUB-PROMPT` with the number of a card or
    `NOBODY`, and no two neighbours with the same number.
    """
    steps: list[tuple[int, str]] = []
    for line in answer.strip().splitlines():
        found = _LINE.fullmatch(line.strip())
        if found is None or int(found[1]) > min(cards, CARDS_MAX):
            return ()
        steps.append((int(found[1]), found[2].strip()))
    numbers = [number for number, _ in steps]
    repeats = any(a == b for a, b in itertools.pairwise(numbers))
    return () if repeats or not 1 <= len(steps) <= STEPS_MAX else tuple(steps)


def _short(text: str, most: int) -> str:
    """On one line, cut to `most` characters."""
    return " ".join(text.split())[:most]
