"""The cards that a prompt is compared with, as arrays: made once for many prompts.

Knows cards and vectors; must not know how a score comes out of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordinator.routing.score import prototype_vector
from protocols.records import CapabilityCard

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class CardSet:
    """Cards with prototypes in one encoder's space, each with rows of its own.

    `prototypes` [rows, dimensions] have unit length. The rows of card `i` begin at `starts[i]` and
    are `counts[i]` many, one at least.
    """

    cards: tuple[CapabilityCard, ...]
    prototypes: Floats
    starts: NDArray[np.intp]
    counts: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.cards)


def card_set(cards: Sequence[CapabilityCard], encoder: str, dimensions: int) -> CardSet:
    """Those of `cards` that have prototypes of `encoder` (a digest), as they are ordered."""
    taken: list[CapabilityCard] = []
    rows: list[Floats] = []
    counts: list[int] = []
    for card in cards if encoder else ():
        if card.encoder != encoder:
            continue
        vectors = [
            prototype_vector(one) for one in card.prototypes if len(one.vector) == dimensions
        ]
        vectors = [vector for vector in vectors if vector.any()]
        if vectors:
            taken.append(card)
            rows += vectors
            counts.append(len(vectors))
    stacked = np.stack(rows) if rows else np.zeros((0, dimensions), np.float32)
    lengths = np.array(counts, dtype=np.intp)
    return CardSet(tuple(taken), stacked, np.cumsum(lengths) - lengths, lengths)
