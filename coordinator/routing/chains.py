"""Whether a prompt has one owner or several, where it is cut, and which part belongs to whom.

Knows cuts, vectors and cards' logits; must not know the encoder, peers or plans. Pure.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordinator.routing.card_set import Floats
from coordinator.routing.head import Head, logistic, shares
from coordinator.routing.reading import Reading
from coordinator.routing.segments import MARKS

CHAIN_MIN = 0.6
"""From this chance of several owners on, a prompt is cut."""
BLEED = 0.4
"""Parts that are encoded together see each other: so much of the other side's logits is taken off.
"""
FLOOR = 1e-3
SWITCH = 0.5
"""Nats that a change of owner must gain: what is cut here has two owners more often than one."""
GAIN_MAX = 6.0
CUT_FEATURES = 7 + MARKS
CHAIN_FEATURES = CUT_FEATURES + 5

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
    """A stretch of a prompt with one owner: card `owner` (an index) and what it says."""

    owner: int
    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Division:
    """The best place to cut a reading, an index of its cuts, and the chance that it is one."""

    cut: int
    chance: float


def divide(head: Head, read: Reading, whole: Floats, sides: tuple[Floats, Floats]) -> Division:
    """Where a reading with cuts is cut best, and how likely it has several owners.

    `whole` [cards] and `sides` (each [cuts, cards]) are logits of it, and of what is before and
    behind each cut.
    """
    features = cut_features(head, read, sides)
    cut = int((features @ head.cut_weights).argmax())
    found = chain_features(head, read, whole, features)
    return Division(cut, float(logistic(found[None], head.chain_weights)[0]))


def cut_features(head: Head, read: Reading, sides: tuple[Floats, Floats]) -> Floats:
    """`[cuts, CUT_FEATURES]`: what tells the place between two owners from others.

    What two owners gain over one, how alike both sides are (all of them and what is near the cut,
    in the metric and plainly), how short the shorter side is, how sure the best owners are, and the
    cut's own marks.
    """
    before, behind = clear_logits(*sides)
    lone = (before + behind).max(axis=1)
    two, _ = best_pairs(before, behind)
    at = np.array([cut.at for cut in read.cuts])
    shorter = np.log(np.minimum(at, len(read.text) - at))
    found = [
        np.clip(two - lone, -3, GAIN_MAX),
        _alike(head.project(read.before), head.project(read.behind)),
        _alike(read.before, read.behind),
        _alike(head.project(read.last), head.project(read.next)),
        _alike(read.last, read.next),
        shorter,
        np.minimum(shorter, 4.5),
    ]
    marks = np.array([cut.marks for cut in read.cuts], dtype=np.float32)
    return np.concatenate([np.stack(found, axis=1), marks], axis=1).astype(np.float32)


def chain_features(head: Head, read: Reading, whole: Floats, features: Floats) -> Floats:
    """`[CHAIN_FEATURES]`: those of the best cut, how good it is, and what the whole prompt says:
    the share of its second card, that of its first, its length and its number of cuts.
    """
    goodness = features @ head.cut_weights
    chance = np.sort(shares(whole))[::-1]
    second = float(chance[1]) if len(chance) > 1 else 0.0
    of_whole = [
        float(goodness.max()),
        np.log((second + FLOOR) / (float(chance[0]) + FLOOR)),
        np.log(float(chance[0]) + FLOOR),
        np.log(len(read.text)),
        np.sqrt(len(read.cuts)),
    ]
    found = np.concatenate([features[int(goodness.argmax())], of_whole])
    return np.asarray(found, dtype=np.float32)


def clear_logits(before: Floats, behind: Floats) -> tuple[Floats, Floats]:
    """Logarithms of the shares of both sides' cards, each without what it has from the other."""
    return log_shares(before - BLEED * behind), log_shares(behind - BLEED * before)


def log_shares(logits: Floats) -> Floats:
    """Logarithms of `shares`, with a floor under them."""
    found: Floats = np.log(shares(logits) + np.float32(FLOOR))
    return found


def best_pairs(before: Floats, behind: Floats) -> tuple[Floats, NDArray[np.intp]]:
    """The best sum of two different cards' columns of each row, and these cards `[rows, 2]`.

    Both are `[rows, cards]`. Of one card there is no pair: the sum is minus infinity.
    """
    best = np.full(len(before), -np.inf, np.float32)
    owned = np.zeros((len(before), 2), np.intp)
    rows = np.arange(len(before))
    order = np.argsort(-behind, axis=1, kind="stable")[:, :2]
    for rank in range(order.shape[1]):  # the other side's owner is its best card or its second
        other = order[:, rank]
        free = before.copy()
        free[rows, other] = -np.inf
        mine = free.argmax(axis=1)
        total = free[rows, mine] + behind[rows, other]
        better = total > best
        best[better] = total[better]
        owned[better] = np.stack([mine, other], axis=1)[better]
    return best, owned


def _alike(one: Floats, other: Floats) -> Floats:
    """`[rows]`: cosines of rows of unit length."""
    found: Floats = (one * other).sum(axis=1)
    return found


def owners(parts: Floats) -> tuple[int, ...]:
    """The most likely owner of each part by its logits [parts, cards]; a change costs `SWITCH`.

    The best path through the parts (Viterbi), equal ones by the order of cards.
    """
    says = log_shares(parts)
    total = says[0]
    came: list[NDArray[np.intp]] = []
    for row in says[1:]:
        moved = total.max() - SWITCH
        came.append(np.where(total >= moved, np.arange(len(total)), int(total.argmax())))
        total = np.maximum(total, moved) + row
    at = int(total.argmax())
    path = [at]
    for back in reversed(came):
        at = int(back[at])
        path.append(at)
    return tuple(reversed(path))


def parts_of(text: str, starts: Sequence[int], owned: Sequence[int]) -> tuple[Part, ...]:
    """`text` from each of `starts` on, with neighbours of the same owner put together."""
    found: list[Part] = []
    ends = [*starts[1:], len(text)]
    for start, end, owner in zip(starts, ends, owned, strict=True):
        begin = found.pop().start if found and found[-1].owner == owner else start
        found.append(Part(owner, begin, end, text[begin:end].strip()))
    return tuple(found)


def needs_before(text: str) -> bool:
    """Whether a part says that it goes on from what came before ("then", "using that")."""
    return bool(_NEEDS_BEFORE.search(text)) and not _ASIDE.match(text)
