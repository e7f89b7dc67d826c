"""What the planning model learns from: cards and prompts, with the plans that they ask for.

Knows how plans are written and prompts are joined; must not know training. Prompts come from the
train parts of public sets, and from the test parts for measuring.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from msgspec import Struct

from coordinator.routing.planner_text import (
    CARDS_MAX,
    NOBODY,
    SYSTEM,
    planner_answer,
    planner_question,
    shown_names,
)
from node.training.domains.cards import DESCRIPTIONS, made_up_card
from node.training.domains.catalogue import NAMES, own_domain
from node.training.domains.choices import choice_domain
from node.training.domains.domain import Domain
from node.training.domains.sets import ChoiceQuestion, read_set
from node.training.examples import Example

UNSEEN = ("nutrition", "travel")
"""Subjects of which neither a card nor a prompt is in train: measured as newcomers."""
_CHARACTERS_MAX = 200
_NAME_WEIGHT = 4.0
"""Which card it is takes a few tokens of a line, and is the harder part."""
_OPAQUE_SHARES = (0.05, 0.15, 0.3)
"""Of the rows of each epoch (the last: of all that follow), and of those that are measured with,
so many have cards whose names do not tell their subjects: first names are learnt, then to look
them up by their descriptions.
"""
_SUBJECTS = {
    "philosophy": ("philosophy", "moral_disputes", "formal_logic", "logical_fallacies"),
    "religion": ("world_religions",),
    "biology": ("college_biology", "high_school_biology"),
    "nutrition": ("nutrition",),
    "sociology": ("sociology",),
}
_OPENINGS = ("", "", "", "Hi! ", "Please help me. ", "I have a few questions. ", "Quick one: ")
_INDEPENDENT = ("{0} {1}", "{0}\n\n{1}", "{0} Also: {1}", "{0} And another question: {1}")
_ORDERED = (
    "First: {0} Then: {1}",
    "{0} Then, {1}",
    "{0} After that, {1}",
    "{0} Next, {1}",
    "1. {0} 2. {1}",
    "{0} Once you have done that, {1}",
)
_DEPENDENT = (
    "{0} Using that, {1}",
    "{0} Based on that, {1}",
    "{0} With that result, {1}",
    "{0} Using the answer, {1}",
)
_REVERSED = ("{1} But first, {0}", "{1} Before that, {0}")
USING = "Using that, "
"""How a sub-prompt begins that needs what the step before it said."""


class _Utterance(Struct, frozen=True):
    split: str
    domain: str
    q: str


@dataclass(frozen=True, slots=True)
class _Segment:
    subject: str
    text: str


Prompts = Mapping[str, Sequence[str]]


def planner_domain(folder: Path, train: int = 32_000, held_out: int = 400) -> Domain:
    """`train` made-up rows an epoch, and `held_out` each for validation and for test, from seeds.

    Validation and test have prompts that are in no train part, and share none; a third of the rows
    of test has a subject of `UNSEEN`. Sources say `planner/KIND/seen` or `unseen`, and then `named`
    or, if a name in the answer does not tell its subject, `opaque`.
    """
    learnt, unknown = _prompts(folder)
    seen = _without_unseen(learnt)
    for_validation = {subject: texts[::4] for subject, texts in _without_unseen(unknown).items()}
    for_test = {
        subject: [text for index, text in enumerate(texts) if subject in UNSEEN or index % 4]
        for subject, texts in unknown.items()
    }
    known, many = _without_unseen(for_test), held_out // 3
    wanted = [one for one in UNSEEN if one in for_test]

    def make(epoch: int, rng: np.random.Generator) -> list[Example]:
        return _rows(seen, train, (), epoch, rng)

    late = len(_OPAQUE_SHARES)
    return Domain(
        "planner",
        tuple(make(0, np.random.default_rng(1))),
        tuple(_rows(for_validation, held_out, (), late, np.random.default_rng(2))),
        (
            *_rows(known, held_out - many, (), late, np.random.default_rng(3)),
            *_rows(for_test, many, wanted, late, np.random.default_rng(4)),
        ),
        make=make,
    )


def _without_unseen(prompts: Prompts) -> dict[str, Sequence[str]]:
    return {subject: texts for subject, texts in prompts.items() if subject not in UNSEEN}


def _rows(
    prompts: Prompts, count: int, wanted: Sequence[str], epoch: int, rng: np.random.Generator
) -> list[Example]:
    share = _OPAQUE_SHARES[min(epoch, len(_OPAQUE_SHARES) - 1)]
    return [_row(prompts, wanted, share, rng) for _ in range(count)]


def _row(
    prompts: Prompts, wanted: Sequence[str], opaque_share: float, rng: np.random.Generator
) -> Example:
    """One question. `wanted` subjects: one of them is in it."""
    many = int(rng.choice([1, 2, 3], p=[0.3, 0.5, 0.2]))
    subjects = [str(one) for one in rng.choice(sorted(prompts), size=many, replace=False)]
    if wanted and not set(wanted) & set(subjects):
        subjects[int(rng.integers(many))] = wanted[int(rng.integers(len(wanted)))]
    if many == 2 and rng.random() < 0.12:
        subjects[1] = subjects[0]
    segments = [_Segment(one, _pick(prompts[one], rng)) for one in subjects]
    shown = _shown(subjects, prompts, rng)
    opaque = _opaque(shown, opaque_share, rng)
    cards = [made_up_card(one, rng, is_opaque=one in opaque) for one in shown]
    text, parts = _joined(segments, rng)
    is_one = len(set(subjects)) == 1
    if is_one:
        parts = [_Segment(subjects[0], text)]
    names = dict(zip(shown, shown_names([name for name, _ in cards]), strict=True))
    steps = _merged([(names.get(part.subject, NOBODY), part.text) for part in parts])
    labels = (
        "one" if is_one else f"chain-{many}",
        "unseen" if wanted else "seen",
        "opaque" if opaque & set(subjects) else "named",
    )
    return Example(
        planner_question(cards, text),
        planner_answer(steps),
        "/".join(("planner", *labels)),
        system=SYSTEM,
        line_weight=_NAME_WEIGHT,
    )


def _opaque(shown: Sequence[str], share: float, rng: np.random.Generator) -> set[str]:
    """The cards whose names shall not tell their subjects: none, about half of them, or all."""
    if rng.random() >= share:
        return set()
    most = rng.choice([0.5, 1.0])
    return {one for one in shown if rng.random() < most}


def _shown(subjects: Sequence[str], prompts: Prompts, rng: np.random.Generator) -> list[str]:
    """The subjects of the cards: those asked for, each missing now and then, and others."""
    asked = [one for one in dict.fromkeys(subjects) if rng.random() > 0.12]
    others = [one for one in DESCRIPTIONS if one not in subjects]
    if not set(UNSEEN) & set(prompts):
        others = [one for one in others if one not in UNSEEN]
    count = int(rng.integers(max(2, len(asked)), CARDS_MAX + 1)) - len(asked)
    more = [str(one) for one in rng.choice(others, size=count, replace=False)]
    return [str(one) for one in rng.permutation(asked + more)]


def _joined(segments: list[_Segment], rng: np.random.Generator) -> tuple[str, list[_Segment]]:
    """The prompt, and its parts in the order in which they are to be answered."""
    text = segments[0].text
    parts = segments[:1]
    for segment in segments[1:]:
        ways, is_dependent, is_first = _way(rng, len(segments))
        template = ways[int(rng.integers(len(ways)))]
        after = segment.text
        if template.endswith(", {1}"):
            after = after[0].lower() + after[1:]
        if is_first:
            lowered = text[0].lower() + text[1:]
            text = template.format(lowered, segment.text)
            parts = [*parts, segment]
        else:
            text = template.format(text, after)
            said = USING + after if is_dependent else segment.text
            parts = [*parts, _Segment(segment.subject, said)]
    opening = _OPENINGS[int(rng.integers(len(_OPENINGS)))] if len(segments) > 1 else ""
    return opening + text, parts


def _way(rng: np.random.Generator, segments: int) -> tuple[Sequence[str], bool, bool]:
    """Templates; whether the second part needs the first; whether the first is said last."""
    kind = rng.random()
    if kind < 0.06 and segments == 2:
        return _REVERSED, False, True
    if kind < 0.35:
        return _INDEPENDENT, False, False
    return (_ORDERED, False, False) if kind < 0.7 else (_DEPENDENT, True, False)


def _merged(steps: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Neighbours for the same card become one step."""
    merged: list[tuple[str, str]] = []
    for name, text in steps:
        if merged and merged[-1][0] == name:
            merged[-1] = (name, f"{merged[-1][1]} {text}")
        else:
            merged.append((name, text))
    return merged


def _pick(texts: Sequence[str], rng: np.random.Generator) -> str:
    return texts[int(rng.integers(len(texts)))]


def _prompts(folder: Path) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Short prompts by subject: those of the train parts, and those of the test parts."""
    learnt: dict[str, list[str]] = {}
    unknown: dict[str, list[str]] = {}
    for name in NAMES:
        for one in (own_domain(folder, name), choice_domain(folder, name)):
            learnt.setdefault(name, []).extend(_short(one.train))
            unknown.setdefault(name, []).extend(_short(one.test))
    for row in read_set(folder, "clinc150", _Utterance):
        target = learnt if row.split == "train" else unknown
        if row.domain in DESCRIPTIONS and row.split in {"train", "test"}:
            text = row.q[0].upper() + row.q[1:]
            target.setdefault(row.domain, []).append(text if text.endswith("?") else text + ".")
    for question in read_set(folder, "mmlu", ChoiceQuestion):
        subject = next((one for one, names in _SUBJECTS.items() if question.subject in names), "")
        if subject and len(question.q) <= _CHARACTERS_MAX:
            target = unknown if question.bucket == 0 else learnt
            target.setdefault(subject, []).append(_one_line(question.q))
    return learnt, unknown


def _short(examples: Sequence[Example]) -> list[str]:
    return [
        _one_line(example.prompt)
        for example in examples
        if len(example.prompt) <= _CHARACTERS_MAX and not example.source.startswith("stdlib")
    ]


def _one_line(text: str) -> str:
    return " ".join(text.split())
