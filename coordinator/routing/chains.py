"""Whether a prompt has one owner or several, and which segment belongs to whom.

Knows segments and cards' logits; must not know texts' vectors' origin, peers or plans. Pure.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coordinator.routing.card_set import Floats
from coordinator.routing.head import shares
from coordinator.routing.segments import Segment

WHOLE_WEIGHT = 0.3
"""How much the whole prompt says about who owns a part of it; its best segment says the rest."""
FLOOR = 1e-4
SWITCH = 1.5
"""Nats that a change of owner must gain: neighbours mostly belong together."""

_NEEDS_BEFORE = re.compile(
    r"^\W*(?:and\s+)?(?:then|next|after\s+(?:that|this)|afterwards|finally|using\s+(?:that|this|the"
    r"|your)|based\s+on|with\s+(?:that|this)|given\s+(?:that|this)|from\s+(?:that|this)|therefore"
    r"|so\b|now\b|also\s+using|explain\s+(?:that|this|it|why)|summar\w+\s+(?:that|this|it|both)"
    r"|translate\s+(?:that|this|it))|\b(?:the\s+(?:result|answer|above|previous)|your\s+answer"
    r"|that\s+(?:result|answer|number|value))\b",
    re.IGNORECASE,
)
_ASIDE = re.compile(r"^\W*(?:also|separately|in\s+addition|unrelated)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Part:
    """Neighbouring segments of one owner: card `owner` (an index) and what they say."""

    owner: int
    start: int
    end: int
    text: str


def presence(whole: Floats, parts: Floats) -> Floats:
    """`[cards]` in [0, 1]: how likely a card owns some part, from logits of the whole prompt
    [cards] and of its segments [segments, cards].
    """
    if not len(parts):
        return shares(whole)
    found: Floats = (1 - WHOLE_WEIGHT) * shares(parts).max(axis=0) + WHOLE_WEIGHT * shares(whole)
    return found


def chain_features(whole: Floats, parts: Floats, vectors: Floats) -> Floats:
    """`[5]`, from which comes whether a prompt has several owners.

    `vectors` [segments, dimensions] are the segments' own: a change of subject shows in them too.
    The presence of the second card, its share of the first's, what a change of owner gains, how
    unlike the most unlike segments are, and how many there are.
    """
    present = np.sort(presence(whole, parts))
    second = float(present[-2]) if len(present) > 1 else 0.0
    relative = np.log((second + FLOOR) / (float(present[-1]) + FLOOR))
    alike = vectors @ vectors.T
    gain = split_gain(parts)
    found = [second, relative, gain, float(alike.min(initial=1.0)), float(min(len(parts), 6))]
    return np.array(found, dtype=np.float32)


def split_gain(parts: Floats) -> float:
    """Nats that the best change of owner between two segments gains over the best lone owner."""
    if len(parts) < 2:
        return 0.0
    seen = np.cumsum(np.log(shares(parts) + FLOOR), axis=0)
    before, after = seen[:-1], seen[-1] - seen[:-1]
    best = float((before.max(axis=1) + after.max(axis=1)).max())
    return min(best - float(seen[-1].max()), 6.0)


def owners(parts: Floats, candidates: Sequence[int]) -> tuple[int, ...]:
    """The most likely owner of each segment, one of `candidates`, where each change costs `SWITCH`.

    The best path through the segments (Viterbi), equal ones by the order of candidates.
    """
    says = np.log(shares(parts) + FLOOR)[:, list(candidates)]
    total = says[0]
    came: list[np.ndarray] = []
    for row in says[1:]:
        moved = total.max() - SWITCH
        came.append(np.where(total >= moved, np.arange(len(total)), int(total.argmax())))
        total = np.maximum(total, moved) + row
    at = int(total.argmax())
    path = [at]
    for back in reversed(came):
        at = int(back[at])
        path.append(at)
    return tuple(candidates[one] for one in reversed(path))


def parts_of(text: str, cut: Sequence[Segment], owned: Sequence[int]) -> tuple[Part, ...]:
    """Neighbouring segments of the same owner put together, in their order."""
    found: list[Part] = []
    for one, owner in zip(cut, owned, strict=True):
        start = one.start
        if found and found[-1].owner == owner:
            start = found.pop().start
        found.append(Part(owner, start, one.end, text[start : one.end].strip()))
    return tuple(found)


def needs_before(text: str) -> bool:
    """Whether a part says that it goes on from what came before ("then", "using that")."""
    return bool(_NEEDS_BEFORE.search(text)) and not _ASIDE.match(text)
