"""From the scores of a prompt to a plan: the base, one specialist, two at once, or a chain.

Knows scores, parts and the rules; must not know vectors, models or peers. Pure.
"""

from dataclasses import dataclass, replace

from coordinator.answer import Score
from coordinator.routing.chains import CHAIN_MIN, Part, needs_before
from coordinator.routing.plan import Plan, Step
from protocols.ids import SpecialistId

FIT_MIN = 0.05
"""Under this chance that any specialist fits, the plain base answers. It keeps 95 % and more of
training questions whose card is there (their quarter left out), be it made of 5 examples or of all.
A specialist asked in vain costs little; a question that its specialist misses costs more.
"""
CLOSE = 0.25
"""Two specialists whose probabilities differ by less both have a try, if quality is asked for."""
ALTERNATIVES_MAX = 3
STEPS_MAX = 4


@dataclass(frozen=True, slots=True)
class Scored:
    """What the head says of one prompt. `scores` are probabilities that fall, of specialists.

    `fit` is the probability that any of them fits, `chain` that the prompt has several owners;
    `parts` are what each would get (`Part.owner` counts in `names`).
    """

    scores: tuple[Score, ...]
    fit: float
    chain: float = 0.0
    parts: tuple[Part, ...] = ()
    names: tuple[SpecialistId, ...] = ()


def verdict(scored: Scored, base: SpecialistId | None, *, is_best_wanted: bool = False) -> Plan:
    """The plan that the scores lead to; `base` is the plain base, if one is known.

    There must be a score, or a base.
    """
    plan = _plan(scored, base, is_best_wanted=is_best_wanted)
    return replace(plan, fit=scored.fit, chain=scored.chain) if scored.scores else plan


def _plan(scored: Scored, base: SpecialistId | None, *, is_best_wanted: bool) -> Plan:
    scores = scored.scores
    margin = scores[0].score - scores[1].score if len(scores) > 1 else 1.0
    if base is not None and (not scores or scored.fit < FIT_MIN):
        return Plan("base", (Step(base),), _why_base(scored), scores, margin)
    if scored.chain >= CHAIN_MIN and len({part.owner for part in scored.parts}) > 1:
        return _chain(scored, margin)
    best = scores[0]
    others = tuple(one.specialist for one in scores[1:])
    if is_best_wanted and len(scores) > 1 and margin < CLOSE:
        steps = tuple(Step(one.specialist, alternatives=others[1:4]) for one in scores[:2])
        why = (
            f"{best.specialist} ({best.score:.2f}) and {others[0]} ({scores[1].score:.2f}) are "
            "close, and the best answer is asked for: both have a try."
        )
        return Plan("parallel", steps, why, scores, margin)
    why = f"The prompt fits {best.specialist} best (probability {best.score:.2f})."
    if base is None and scored.fit < FIT_MIN:
        why = f"No plain base is known, so {best.specialist} answers."
    step = Step(best.specialist, alternatives=others[:ALTERNATIVES_MAX])
    return Plan("one", (step,), why, scores, margin)


def _chain(scored: Scored, margin: float) -> Plan:
    parts = scored.parts[:STEPS_MAX]
    if len(scored.parts) > STEPS_MAX:  # the last takes what is left
        last = scored.parts[STEPS_MAX - 1 :]
        whole = "\n".join(part.text for part in last)
        parts = (*parts[:-1], Part(last[0].owner, last[0].start, last[-1].end, whole))
    steps = tuple(
        Step(
            scored.names[part.owner],
            part.text,
            (index - 1,) if index and needs_before(part.text) else (),
            _others(scored, scored.names[part.owner]),
        )
        for index, part in enumerate(parts)
    )
    names = ", then ".join(step.specialist for step in steps)
    why = (
        f"The prompt has parts for different specialists (probability {scored.chain:.2f}): {names}."
    )
    return Plan("chain", steps, why, scored.scores, margin)


def _others(scored: Scored, specialist: SpecialistId) -> tuple[SpecialistId, ...]:
    ranked = (one.specialist for one in scored.scores if one.specialist != specialist)
    return tuple(ranked)[:ALTERNATIVES_MAX]


def _why_base(scored: Scored) -> str:
    if not scored.scores:
        return "No specialist's card can be compared with the prompt, so the plain base answers."
    best = scored.scores[0]
    return (
        f"No specialist fits (probability {scored.fit:.2f}; the nearest is {best.specialist}), "
        "so the plain base answers."
    )
