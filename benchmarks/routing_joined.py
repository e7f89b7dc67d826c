"""What teaches the head to cut: joined and lone prompts, and the two fits made from them.

Knows training rows as the router reads them, and cards; must not know test rows. A conditional
logit over a joined prompt's places tells which is the seam, and a logistic regression of joined
against lone prompts, on what is found at the best place, tells whether there is any.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from coordinator.routing.chains import chain_features, cut_features, divide
from coordinator.routing.head import Head, Nearness, card_logits, nearness, prepare
from coordinator.routing.reading import Reading
from routing_cards import TrialCards
from routing_data import DOMAINS, FOLDS, JOINS, Floats, Row, Vectors, composites, fold_of
from routing_fits import against, choice_weights

JOINED_PLAINLY, JOINED_BY_WORDS, JOINED_STYLES = 110, 110, 80
"""Composites of each fold: two questions with a blank between; with all ways to join; the same with
questions of the other sets among them."""
LONE_EXTERNAL = 5
"""Every fifth prompt of the other sets is one that must not be cut."""


@dataclass(frozen=True, slots=True)
class Read:
    """Rows as the router reads them."""

    rows: tuple[Row, ...]
    readings: tuple[Reading, ...]

    def without(self, domain: str) -> "Read":
        """Those that have nothing of `domain`."""
        pairs = zip(self.rows, self.readings, strict=True)
        kept = [(row, read) for row, read in pairs if domain not in (row.domain, row.second)]
        return Read(tuple(row for row, _ in kept), tuple(read for _, read in kept))


def read_rows(rows: Sequence[Row], vectors: Vectors) -> Read:
    """`rows` as the router reads them."""
    return Read(tuple(rows), tuple(vectors.readings([one.text for one in rows])))


def joined_rows(rows: Sequence[Row], external: Sequence[Row], fold: int) -> list[Row]:
    """Prompts of two questions of the fold, one after the other."""
    own = [one for one in rows if fold_of(one) == fold]
    mixed = own + [one for one in external if fold_of(one) == fold]
    return [
        *composites(own, JOINED_PLAINLY, fold, (" ",)),
        *composites(own, JOINED_BY_WORDS, fold + FOLDS, JOINS),
        *composites(mixed, JOINED_STYLES, fold + 2 * FOLDS, JOINS),
    ]


def lone_rows(rows: Sequence[Row], external: Sequence[Row], fold: int) -> list[Row]:
    """Questions of the eight domains, and prompts of other sets, that are of this fold."""
    every = [one for one in rows if one.domain in DOMAINS] + list(external[::LONE_EXTERNAL])
    return [one for one in every if fold_of(one) == fold]


def described_cosines(vectors: Floats, cards: TrialCards) -> Floats:
    """`[vectors, cards]`: the best cosine with a sentence of each description."""
    return np.stack([(vectors @ one.T).max(axis=1) for one in cards.described], axis=1)


def logits_of(head: Head, vectors: Floats, cards: TrialCards) -> tuple[Floats, Nearness]:
    """`[vectors, cards]`, as the router computes them."""
    near = nearness(head, vectors, prepare(head, cards.cards))
    return card_logits(head, near, described_cosines(vectors, cards)), near


def with_metric_of(head: Head, quarter: Head) -> Head:
    """The weights of `head` with the metric of `quarter`."""
    return replace(head, mean=quarter.mean, metric=quarter.metric)


def seam_of(row: Row, read: Reading) -> int:
    """Which cut of a joined prompt lies between its questions; -1 if none does."""
    at = [place for place, cut in enumerate(read.cuts) if row.seam[0] <= cut.at <= row.seam[1]]
    return at[0] if at else -1


def with_chains(
    joined_prompts: Sequence[Read],
    lone_prompts: Sequence[Read],
    head: Head,
    quarters: Sequence[tuple[Head, TrialCards]],
) -> Head:
    """`head` with weights for cuts and chains; each fold's prompts meet the other folds' cards."""
    choices: list[tuple[Floats, int]] = []
    joined: list[_Seen] = []
    lone: list[_Seen] = []
    for fold, (learned, cards) in enumerate(quarters):
        own = with_metric_of(head, learned)
        pairs = joined_prompts[fold]
        for row, seen in zip(pairs.rows, _seen(own, pairs.readings, cards), strict=True):
            if not seen.read.cuts:
                continue
            joined.append(seen)
            seam = seam_of(row, seen.read)
            if seam >= 0 and len(seen.read.cuts) > 1:
                choices.append((seen.features, seam))
        lone += [one for one in _seen(own, lone_prompts[fold].readings, cards) if one.read.cuts]
    weights = choice_weights(choices)
    found = [np.stack([seen.for_chains(weights) for seen in one]) for one in (joined, lone)]
    return replace(head, cut_weights=weights, chain_weights=against(*found))


@dataclass(frozen=True, slots=True)
class _Seen:
    """A reading, the logits of its whole [cards], and the features of its cuts."""

    head: Head
    read: Reading
    whole: Floats
    features: Floats

    def for_chains(self, weights: Floats) -> Floats:
        """`chain_features` with these weights of cuts."""
        head = replace(self.head, cut_weights=weights)
        return chain_features(head, self.read, self.whole, self.features)


def _seen(head: Head, readings: Sequence[Reading], cards: TrialCards) -> list[_Seen]:
    nothing = np.zeros((0, 0), np.float32)
    return [
        _Seen(head, read, whole, cut_features(head, read, sides) if read.cuts else nothing)
        for read, whole, sides in sides_of(head, readings, cards)
    ]


def sides_of(
    head: Head, readings: Sequence[Reading], cards: TrialCards
) -> list[tuple[Reading, Floats, tuple[Floats, Floats]]]:
    """Each reading with the logits of its whole [cards], and of both sides of its cuts."""
    vectors = [np.concatenate([one.whole[None], one.before, one.behind]) for one in readings]
    ends = np.cumsum([len(one) for one in vectors])[:-1]
    found = []
    logits = np.split(logits_of(head, np.concatenate(vectors), cards)[0], ends)
    for read, said in zip(readings, logits, strict=True):
        middle = 1 + len(read.cuts)
        found.append((read, said[0], (said[1:middle], said[middle:])))
    return found


def chances(head: Head, readings: Sequence[Reading], cards: TrialCards) -> list[tuple[float, int]]:
    """The chance of several owners of each, and the best cut; 0 and -1 where there is none."""
    found = []
    for read, whole, sides in sides_of(head, readings, cards):
        one = divide(head, read, whole, sides) if read.cuts else None
        found.append((one.chance, one.cut) if one else (0.0, -1))
    return found
