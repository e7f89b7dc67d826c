"""What the router decided: which specialists work on a prompt, in which order, and why.

Knows values only; must not know vectors, peers or how a plan is carried out.
"""

from dataclasses import dataclass
from typing import Literal

from protocols.ids import SpecialistId

Kind = Literal["base", "one", "parallel", "chain"]
"""`base`: nobody is near; `parallel`: several give the same prompt a try side by side."""


@dataclass(frozen=True, slots=True)
class Score:
    """How near a prompt lies to a card, cosine in [-1, 1]."""

    specialist: SpecialistId
    score: float


@dataclass(frozen=True, slots=True)
class Step:
    """One specialist's part. `prompt` is its sub-prompt; empty means the whole prompt as it is.

    It begins when the steps `after` (indices into the plan, smaller than its own) have ended, and
    gets what they said. `alternatives` are who else could do it, best first.
    """

    specialist: SpecialistId
    prompt: str = ""
    after: tuple[int, ...] = ()
    alternatives: tuple[SpecialistId, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """At least one step. `why` is a sentence for people, `scores` fall; `margin` is between the two
    best, in the unit of the scores. Where a head judged the prompt, `fit` is the probability that
    any specialist fits, and `chain` that the prompt has several owners.
    """

    kind: Kind
    steps: tuple[Step, ...]
    why: str
    scores: tuple[Score, ...] = ()
    margin: float = 0.0
    fit: float | None = None
    chain: float | None = None
