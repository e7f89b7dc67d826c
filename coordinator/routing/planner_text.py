"""What the planning model is asked, and how its answer is read and checked.

Knows text only; must not know models or cards' vectors. The model was trained on exactly these
texts: a change here needs it trained again.
"""

import itertools
from collections.abc import Sequence

CARDS_MAX = 5
STEPS_MAX = 4
NAME_CHARACTERS_MAX = 40
DESCRIPTION_CHARACTERS_MAX = 120
PROMPT_CHARACTERS_MAX = 2_000
SYSTEM = "You plan which specialists answer a prompt."
NOBODY = "nobody"
"""What is said for the plain base, when no specialist fits."""


def shown_names(names: Sequence[str]) -> tuple[str, ...]:
    """What cards with these `names` are called, in order; at most `CARDS_MAX` of them.

    On one line, at most `NAME_CHARACTERS_MAX` characters, without a colon, no two alike and none
    `NOBODY`: a name that would not be so is cut and gets a number.
    """
    shown: list[str] = []
    for name in names[:CARDS_MAX]:
        plain = _short(name.replace(":", " "), NAME_CHARACTERS_MAX).strip() or "card"
        numbered = (f"{plain[: NAME_CHARACTERS_MAX - 2]}-{number}" for number in itertools.count(2))
        free = (one for one in itertools.chain((plain,), numbered) if one not in (NOBODY, *shown))
        shown.append(next(free))
    return tuple(shown)


def planner_question(cards: Sequence[tuple[str, str]], prompt: str) -> str:
    """The user's turn for `cards` (name and description, the best first, at most `CARDS_MAX`)."""
    names = shown_names([name for name, _ in cards])
    lines = [
        f"{name}: {_short(description, DESCRIPTION_CHARACTERS_MAX)}"
        for name, (_, description) in zip(names, cards, strict=False)
    ]
    asked = _short(prompt, PROMPT_CHARACTERS_MAX)
    return "\n".join(["Specialists:", *lines, "Prompt:", asked])


def planner_answer(steps: Sequence[tuple[str, str]]) -> str:
    """What the model is trained to say: for each step a card's shown name and its sub-prompt."""
    return "\n".join(f"{name}: {_short(text, PROMPT_CHARACTERS_MAX)}" for name, text in steps)


def read_plan(answer: str, shown: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The steps in `answer`, for a question with the names `shown`; empty if it is not valid.

    Valid are 1 to `STEPS_MAX` lines, each `NAME: SUB-PROMPT` with one of `shown`, letter for
    letter, or `NOBODY`, and no two neighbours with the same name.
    """
    steps: list[tuple[str, str]] = []
    for line in answer.strip().splitlines():
        name, mark, text = line.strip().partition(": ")
        if not mark or not text.strip() or name not in (NOBODY, *shown):
            return ()
        steps.append((name, text.strip()))
    repeats = any(a == b for (a, _), (b, _) in itertools.pairwise(steps))
    return () if repeats or not 1 <= len(steps) <= STEPS_MAX else tuple(steps)


def _short(text: str, most: int) -> str:
    """On one line, cut to `most` characters."""
    return " ".join(text.split())[:most]
