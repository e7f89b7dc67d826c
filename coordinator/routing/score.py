"""How near a prompt lies to a card: cosine of its sentence vector and the card's prototypes.

Knows vectors only; must not know where they come from. Pure and deterministic.

The threshold was measured with MiniLM-L6-v2 (int8) on eight cards of four k-means prototypes, each
from 100 MMLU dev and validation questions of one domain (law, medicine, mathematics, computing,
physics and chemistry, economics, history and politics, psychology), plus 40 training prompts of
LegalBench, MedQuAD, GSM8K and MBPP for the four domains that have them. Test: 640 prompts of the
same sources' test rows, one seed. Strangers: 250 out-of-scope prompts of CLINC150 ("far"), 150
MMLU questions of other subjects ("near"), 20 everyday requests such as "Why is the sky blue?".

    threshold   in-domain kept   right if kept   far refused   near refused   everyday refused
      .20            98 %            85 %            61 %            7 %            45 %
      .25            96 %            86 %            79 %           16 %            65 %
      .28            93 %            87 %            86 %           24 %            80 %
      .32            87 %            88 %            95 %           36 %            90 %
      .40            67 %            90 %            98 %           71 %           100 %

Rounding the prototypes to int8 changes no cosine by more than .0013. Near strangers pass at any
useful threshold; the cost is small, because a specialist of a close domain answers them.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from coordinator.answer import Score
from protocols.ids import SpecialistId
from protocols.records import CapabilityCard, Prototype

THRESHOLD = 0.28
"""Cosine under which the plain base answers better than a far specialist."""


def prototype_vector(prototype: Prototype) -> NDArray[np.float32]:
    """`[dimensions]`, of unit length (or all zero if the prototype is)."""
    vector = np.frombuffer(prototype.vector, dtype=np.int8).astype(np.float32)
    length = float(np.linalg.norm(vector))
    return vector / length if length else vector


def make_prototype(vector: NDArray[np.float32]) -> Prototype:
    """The int8 prototype of a `[dimensions]` vector of any length but 0."""
    unit = vector / np.linalg.norm(vector)
    scale = float(np.abs(unit).max()) / 127
    return Prototype(np.round(unit / scale).astype(np.int8).tobytes(), scale)


def card_score(prompt: NDArray[np.float32], card: CapabilityCard) -> float:
    """The best cosine in [-1, 1] of `prompt` (`[dimensions]`, unit length) with a prototype.

    Prototypes of another number of dimensions do not count; with none left the score is -1.
    """
    vectors = [prototype_vector(p) for p in card.prototypes if len(p.vector) == prompt.size]
    return max((float(vector @ prompt) for vector in vectors), default=-1.0)


def rank_cards(
    prompt: NDArray[np.float32],
    cards: Iterable[CapabilityCard],
    encoder: str,
    trust: Callable[[CapabilityCard], float] = lambda _: 1.0,
) -> tuple[Score, ...]:
    """Specialists by falling score, equal ones by name; only cards of our encoder take part.

    A specialist with several cards (replicas) counts with the median of theirs, so that one
    replica that lies about its prototypes does not draw all prompts. That is multiplied by the
    `trust` (0 to 1) in the replica that is trusted most, since it is the one that will be asked.
    """
    found: dict[SpecialistId, list[float]] = {}
    trusted: dict[SpecialistId, float] = {}
    for card in cards:
        if card.prototypes and card.encoder == encoder:
            specialist = SpecialistId(card.specialist)
            found.setdefault(specialist, []).append(card_score(prompt, card))
            trusted[specialist] = max(trusted.get(specialist, 0.0), trust(card))
    scores = [
        Score(name, _trusted(_lower_median(values), trusted[name]))
        for name, values in found.items()
    ]
    return tuple(sorted(scores, key=lambda score: (-score.score, score.specialist)))


def _trusted(score: float, trust: float) -> float:
    return score * trust if score > 0 else score


def _lower_median(values: Sequence[float]) -> float:
    return sorted(values)[(len(values) - 1) // 2]
