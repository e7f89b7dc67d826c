"""The trained part of the router: what a prompt's and a card's vectors say about each other.

Knows vectors and its own trained arrays; must not know texts, peers or plans. The cards are its
input, so that a card never seen before scores like any other; `benchmarks/train_router.py` makes
the arrays.
"""

import importlib.resources
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from coordinator.routing.card_set import CardSet, Floats
from protocols.errors import ModelFileError

LEAD_MAX = 4.0
"""Nats of lead over the second card that say all; more would say no more."""
_FEW, _MANY = 4, 8
"""Prototypes of cards made from few and from many examples."""
_PLACE = "head.npz"


@dataclass(frozen=True, slots=True)
class Head:
    """Trained arrays, for the encoder whose digest is `encoder`.

    A vector `v` lies at `(v - mean) @ metric`, at unit length, in the space where specialists'
    subjects are far apart and styles are not: within-subject scatter is whitened away.
    """

    encoder: str
    mean: Floats
    """[dimensions]"""
    metric: Floats
    """[dimensions, kept]"""
    background: Floats
    """[vectors, dimensions]: what people say to machines all day, for no specialist."""
    sharpness: float
    """How much more the nearest prototype of a card counts than its others."""
    card_weights: Floats
    """[2]: of a card's prototypes in the metric, and of its description."""
    description_guess: Floats
    """[2]: the cosine with a description that was not encoded is `a + b * prototypes`."""
    fit_weights: Floats
    """[2, 18]: logistic weights of `fit_features`, the constants last."""
    cut_weights: Floats
    """[features]: what a place to cut must have, by `coordinator.routing.chains.cut_features`."""
    chain_weights: Floats
    """[features + 1]: logistic weights of `chains.chain_features`, the constant last."""

    def project(self, vectors: Floats) -> Floats:
        """`[..., dimensions]` to `[..., kept]`, rows of unit length."""
        moved = (vectors - self.mean) @ self.metric
        length = np.linalg.norm(moved, axis=-1, keepdims=True)
        projected: Floats = moved / np.maximum(length, 1e-9)
        return projected


@dataclass(frozen=True, slots=True)
class PreparedCards:
    """Cards as the head compares them: rows of `CardSet.prototypes`, projected."""

    cards: CardSet
    rows: Floats

    def only(self, chosen: Sequence[int]) -> "PreparedCards":
        """The cards with these indices, in this order."""
        cards = self.cards
        counts = cards.counts[list(chosen)]
        moved = cards.starts[list(chosen)] - (np.cumsum(counts) - counts)
        rows = np.arange(counts.sum()) + np.repeat(moved, counts)
        taken = tuple(cards.cards[i] for i in chosen)
        kept = CardSet(taken, cards.prototypes[rows], np.cumsum(counts) - counts, counts)
        return PreparedCards(kept, self.rows[rows])


@dataclass(frozen=True, slots=True)
class Nearness:
    """How near each of some vectors lies to each card, `[vectors, cards]` but for `fullness`.

    `prototypes` is a soft maximum of cosines in the metric, `cosine` the best one without it.
    """

    prototypes: Floats
    cosine: Floats
    fullness: Floats
    """[cards] in [0, 1]: 0 where at most four prototypes stand for a card, 1 from eight on."""

    def only(self, cards: NDArray[np.intp]) -> "Nearness":
        """To these cards (indices), in this order."""
        return Nearness(self.prototypes[:, cards], self.cosine[:, cards], self.fullness[cards])

    def of_first(self) -> "Nearness":
        """Of the first vector alone."""
        return Nearness(self.prototypes[:1], self.cosine[:1], self.fullness)


def load_head(data: bytes | None = None) -> Head:
    """The head that ships, or the one in `data`; `ModelFileError` if it is damaged."""
    if data is None:
        data = importlib.resources.files("coordinator.routing").joinpath(_PLACE).read_bytes()
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return Head(
                encoder=str(arrays["encoder"]),
                sharpness=float(arrays["sharpness"]),
                **{name: arrays[name].astype(np.float32) for name in _ARRAYS},
            )
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ModelFileError(f"The router's head is damaged: {error}") from error


def dump_head(head: Head) -> bytes:
    """What `load_head` reads; matrices are rounded to 16 bits."""
    buffer = io.BytesIO()
    values = {one.name: np.asarray(getattr(head, one.name)) for one in fields(head)}
    for name in ("mean", "metric", "background"):
        values[name] = values[name].astype(np.float16)
    np.savez_compressed(buffer, allow_pickle=False, **values)
    return buffer.getvalue()


def prepare(head: Head, cards: CardSet) -> PreparedCards:
    """`cards` for `nearness`; one matrix product over all prototypes."""
    return PreparedCards(cards, head.project(cards.prototypes))


def nearness(head: Head, vectors: Floats, prepared: PreparedCards) -> Nearness:
    """Of every row of `vectors` [vectors, dimensions, unit length] to every card."""
    if not len(prepared.cards):
        nothing = np.zeros((len(vectors), 0), np.float32)
        return Nearness(nothing, nothing, nothing[0])
    starts, counts = prepared.cards.starts, prepared.cards.counts
    projected = head.project(vectors)
    cosines = projected @ prepared.rows.T
    weights = np.exp(head.sharpness * (cosines - 1))
    mean = np.add.reduceat(weights, starts, axis=1) / counts
    raw = vectors @ prepared.cards.prototypes.T
    return Nearness(
        prototypes=(np.log(mean) / head.sharpness + 1).astype(np.float32),
        cosine=np.maximum.reduceat(raw, starts, axis=1),
        fullness=np.clip((counts - _FEW) / (_MANY - _FEW), 0, 1).astype(np.float32),
    )


def card_logits(head: Head, near: Nearness, described: Floats | None = None) -> Floats:
    """`[vectors, cards]`: how much a card speaks to a prompt; differences of them are log odds.

    `described` [vectors, cards] are the best cosines with a sentence of each card's description,
    not a number where it has none or it was not encoded.
    """
    weights = head.card_weights
    logits: Floats = weights[0] * near.prototypes + weights[1] * filled(head, near, described)
    return logits


def filled(head: Head, near: Nearness, described: Floats | None) -> Floats:
    """`described`, with a guess from the prototypes where it is not a number."""
    guess: Floats = head.description_guess[0] + head.description_guess[1] * near.prototypes
    return guess if described is None else np.where(np.isnan(described), guess, described)


def shares(logits: Floats) -> Floats:
    """`[..., cards]` logits as probabilities that sum to 1 over the cards."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), dtype=np.float32)


def fit_features(head: Head, vectors: Floats, near: Nearness, described: Floats | None) -> Floats:
    """`[vectors, 17]`, from which comes whether any card fits.

    Eight of them: the best card's logit, the best cosine, how near everyday talk is, the lead over
    the second card, the best card's description, how far the vector lies from the mean of all talk
    in the metric, the sum over the cards, and the second-best cosine. Then all of them times the
    best card's fullness, and that itself: few examples lie farther from what they stand for, so
    that the same cosines mean more there.
    """
    logits = card_logits(head, near, described)
    best = logits.argmax(axis=-1)[:, None]
    ordered = np.sort(logits, axis=-1)
    cosines = np.sort(near.cosine, axis=-1)
    alone = logits.shape[1] == 1
    lead = np.full(len(logits), LEAD_MAX) if alone else ordered[:, -1] - ordered[:, -2]
    said = filled(head, near, described)
    powers = np.exp(ordered - ordered[:, -1:]).sum(axis=-1)
    found = [
        ordered[:, -1],
        cosines[:, -1],
        (vectors @ head.background.T).max(axis=-1),
        np.minimum(lead, LEAD_MAX),
        np.take_along_axis(said, best, -1)[:, 0],
        np.linalg.norm((vectors - head.mean) @ head.metric, axis=-1),
        ordered[:, -1] + np.log(powers),
        cosines[:, -1 if alone else -2],
    ]
    plain = np.stack(found, axis=-1)
    fullness = near.fullness[best]
    return np.concatenate([plain, plain * fullness, fullness], axis=-1).astype(np.float32)


def fit_chance(head: Head, features: Floats) -> Floats:
    """`[vectors]`: the probability that a card fits: that the prompt is none of everyday's, times
    that its subject is one that has a card.
    """
    return logistic(features, head.fit_weights[0]) * logistic(features, head.fit_weights[1])


def logistic(features: Floats, weights: Floats) -> NDArray[np.float32]:
    """`[...]` probabilities out of `[..., features]`; the last weight is the constant."""
    total = features @ weights[:-1] + weights[-1]
    return np.asarray(1 / (1 + np.exp(-np.clip(total, -30, 30))), dtype=np.float32)


_ARRAYS = tuple(one.name for one in fields(Head) if one.name not in ("encoder", "sharpness"))
