"""How good the planning model's answers are: valid, with the right cards, with the right words.

Knows questions and plans as text; must not know models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np

from coordinator.routing.planner_text import read_plan
from node.training.examples import Example


@dataclass(frozen=True, slots=True)
class Judged:
    """One answer against the plan that was wanted. `names` are right in their order, `name_set` in
    any; `sub_prompts` are right word for word, and `whole` means both.
    """

    valid: bool
    whole: bool
    names: bool
    name_set: bool
    sub_prompts: bool


MEASURES = tuple(field.name for field in fields(Judged))


def judged(example: Example, answer: str) -> Judged:
    """An answer to the question of `example`."""
    cards = example.prompt.partition("\nPrompt:")[0].splitlines()[1:]
    shown = [card.partition(":")[0] for card in cards]
    wanted, found = read_plan(example.answer, shown), read_plan(answer, shown)
    names = [name for name, _ in found]
    wanted_names = [name for name, _ in wanted]
    texts = [" ".join(text.split()) for _, text in found]
    return Judged(
        valid=bool(found),
        whole=names == wanted_names and texts == [text for _, text in wanted],
        names=names == wanted_names,
        name_set=set(names) == set(wanted_names),
        sub_prompts=texts == [text for _, text in wanted],
    )


def plan_shares(
    examples: Sequence[Example], answers: Sequence[str]
) -> Mapping[str, Mapping[str, float]]:
    """By group (`all`, and each part of the examples' sources, alone and `seen/named` together):
    how many `rows` there are, and of each of `MEASURES` the share of them.
    """
    verdicts = [judged(one, answer) for one, answer in zip(examples, answers, strict=True)]
    groups: dict[str, list[Judged]] = {}
    for example, verdict in zip(examples, verdicts, strict=True):
        _, kind, subject, name = example.source.split("/")
        for group in ("all", kind, subject, name, f"{subject}/{name}"):
            groups.setdefault(group, []).append(verdict)
    return {
        group: {
            "rows": float(len(members)),
            **dict(zip(MEASURES, _means(members), strict=True)),
        }
        for group, members in sorted(groups.items())
    }


def _means(members: Sequence[Judged]) -> list[float]:
    return [float(share) for share in np.mean([astuple(one) for one in members], axis=0)]
