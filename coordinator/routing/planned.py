"""Asks the planning model how to word a chain, and believes only what the prompt bears out.

Knows plans, the planner port and its texts; must not know how the model is run.
"""

import re
from collections.abc import Mapping, Sequence

from coordinator.ports import Planner
from coordinator.routing.chains import needs_before
from coordinator.routing.plan import Plan, Step
from coordinator.routing.planner_text import (
    CARDS_MAX,
    NOBODY,
    planner_question,
    read_plan,
    shown_names,
)
from protocols.ids import SpecialistId

SUB_PROMPT_CHARACTERS_MIN = 8
GROWTH_MAX = 1.5
"""A sub-prompt may be so many times as long as the prompt, and `GROWTH_SLACK` characters more."""
GROWTH_SLACK = 80
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_QUOTED = re.compile(r'"([^"]{2,})"|\u201c([^\u201d]{2,})\u201d|`([^`]{2,})`')


async def planned_steps(
    planner: Planner, plan: Plan, prompt: str, descriptions: Mapping[SpecialistId, str]
) -> tuple[Step, ...]:
    """The plan's steps in the planning model's words and order; empty if its answer is not valid.

    It is shown the five best cards of the plan, those of its steps first, as it was in training.
    Who works is the router's decision: an answer that names others, or leaves one out, is not
    valid.
    """
    candidates = shown_to_planner(plan)
    shown = [(str(name), descriptions.get(name, "")) for name in candidates]
    answer = await planner.plan(planner_question(shown, prompt))
    return steps_from(answer, candidates, plan, prompt)


def shown_to_planner(plan: Plan) -> tuple[SpecialistId, ...]:
    """At most `CARDS_MAX` specialists: those of the steps, then the best of the others."""
    of_steps = (step.specialist for step in plan.steps)
    ranked = (score.specialist for score in plan.scores)
    return tuple(dict.fromkeys([*of_steps, *ranked]))[:CARDS_MAX]


def steps_from(
    answer: str, candidates: Sequence[SpecialistId], plan: Plan, prompt: str
) -> tuple[Step, ...]:
    """The steps in the planning model's `answer`; empty unless all of it can be believed.

    It must name all specialists of the plan and nobody else, and its sub-prompts must say nothing
    in numbers or quotes that the prompt does not say.
    """
    by_name = dict(zip(shown_names([str(one) for one in candidates]), candidates, strict=False))
    found = read_plan(answer, tuple(by_name))
    if not found or any(name == NOBODY for name, _ in found):
        return ()
    if {by_name[name] for name, _ in found} != {one.specialist for one in plan.steps}:
        return ()
    if not all(is_borne_out(text, prompt) for _, text in found):
        return ()
    alternatives = {step.specialist: step.alternatives for step in plan.steps}
    return tuple(
        Step(
            by_name[name],
            text,
            (index - 1,) if index and _depends(text, index, plan) else (),
            alternatives.get(by_name[name], ()),
        )
        for index, (name, text) in enumerate(found)
    )


def is_borne_out(text: str, prompt: str) -> bool:
    """Whether a sub-prompt is of a fair length, and all its numbers and quotes are the prompt's."""
    if not SUB_PROMPT_CHARACTERS_MIN <= len(text) <= GROWTH_MAX * len(prompt) + GROWTH_SLACK:
        return False
    if not set(_NUMBER.findall(text)) <= set(_NUMBER.findall(prompt)):
        return False
    if not text.isprintable():
        return False
    said = " ".join(prompt.split()).lower()
    quotes = (next(filter(None, groups)) for groups in _QUOTED.findall(text))
    return all(" ".join(quote.split()).lower() in said for quote in quotes)


def _depends(text: str, index: int, plan: Plan) -> bool:
    """Its own words say so, or the segment plan's step in this place did."""
    of_segments = plan.steps[index].after if index < len(plan.steps) else ()
    return needs_before(text) or bool(of_segments)
