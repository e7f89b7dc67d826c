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
)
from node.training.domains.cards import DESCRIPTIONS, made_up_card
from node.training.domains.catalogue import NAMES, own_domain
from node.training.domains.choices import choice_domain
from node.training.domains.domain import Domain
from node.training.domains.sets import ChoiceQuestion, read_set
from node.training.examples import Example

UNSEEN = ("psychology", "travel")
"""Subjects of which neither a card nor a prompt is in train: measured as newcomers."""
_CHARACTERS_MAX = 200
_NUMBER_WEIGHT = 20.0
"""Which card it is takes one token of a line, and is what has to be learnt."""
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
    """`train` made-up rows, and `held_out` each for validation and for test, all from a seed.

    Test has prompts that are in no train part; a third of its rows has a subject of `UNSEEN`.
    """
    learnt, unknown = _prompts(folder)
    seen = {subject: texts for subject, texts in learnt.items() if subject not in UNSEEN}
    known = {subject: texts for subject, texts in unknown.items() if subject not in UNSEEN}
    return Domain(
        "planner",
        tuple(_rows(seen, train, (), np.random.default_rng(1))),
        tuple(_rows(known, held_out, (), np.random.default_rng(2))),
        (
            *_rows(known, held_out - held_out // 3, (), np.random.default_rng(3)),
            *_rows(unknown, held_out // 3, UNSEEN, np.random.default_rng(4)),
        ),
    )


def _rows(
    prompts: Prompts, count: int, wanted: Sequence[str], rng: np.random.Generator
) -> list[Example]:
    return [_row(prompts, wanted, rng) for _ in range(count)]


def _row(prompts: Prompts, wanted: Sequence[str], rng: np.random.Generator) -> Example:
    """One question. `wanted` subjects: one of them is in it."""
    many = int(rng.choice([1, 2, 3], p=[0.3, 0.5, 0.2]))
    subjects = [str(one) for one in rng.choice(sorted(prompts), size=many, replace=False)]
    if wanted and not set(wanted) & set(subjects):
        subjects[int(rng.integers(many))] = wanted[int(rng.integers(len(wanted)))]
    if many == 2 and rng.random() < 0.12:
        subjects[1] = subjects[0]
    segments = [_Segment(one, _pick(prompts[one], rng)) for one in subjects]
    shown = _shown(subjects, prompts, rng)
    cards = [made_up_card(subject, rng) for subject in shown]
    text, parts = _joined(segments, rng)
    kind = "one" if len(set(subjects)) == 1 else f"chain-{many}"
    if len(set(subjects)) == 1:
        parts = [_Segment(subjects[0], text)]
    numbers = [shown.index(one.subject) + 1 if one.subject in shown else NOBODY for one in parts]
    steps = _merged([(number, part.text) for number, part in zip(numbers, parts, strict=True)])
    label = "unseen" if wanted else "seen"
    return Example(
        planner_question(cards, text),
        planner_answer(steps),
        f"planner/{kind}/{label}",
        system=SYSTEM,
        line_weight=_NUMBER_WEIGHT,
    )


def _shown(subjects: Sequence[str], prompts: Prompts, rng: np.random.Generator) -> list[str]:
    """The subjects of the cards: those asked for, each missing now and then, and others."""
    asked = [one for one in dict.fromkeys(subjects) if rng.random() > 0.12]
    others = [one for one in DESCRIPTIONS if one not in subjects]
    if "psychology" not in prompts:
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


def _merged(steps: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Neighbours for the same card become one step."""
    merged: list[tuple[int, str]] = []
    for number, text in steps:
        if merged and merged[-1][0] == number:
            merged[-1] = (number, f"{merged[-1][1]} {text}")
        else:
            merged.append((number, text))
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
