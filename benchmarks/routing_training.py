"""Trains the router's head: a metric, weights of cards, and two calibrated probabilities.

Knows training rows, their vectors and closed-form fits; must not know test rows. Everything but the
rows that a seed leaves out is deterministic, and nothing here needs more than numpy.

1. The metric: within-class scatter of MMLU's subjects (questions, and questions with their
   choices), of CLINC150's domains and of four other sets, shrunk towards a sphere, whitened.
2. Card weights: a conditional logit over eight cards made of three quarters of the rows, for the
   questions of the last quarter, in turn.
3. Fit: a logistic regression of questions whose card is there against those whose card is not,
   subjects without a card, and everyday requests; with cards of all examples, and of 5, 10 and 30,
   with and without a description, of all eight domains, of four and of
   one.
4. Chain: see `routing_joined`.
"""

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coordinator.routing.head import Head, fit_features, nearness, prepare
from node.card_content import prototypes_wanted
from node.hosting.prototypes import make_prototypes, prototype_vector
from routing_cards import DESCRIPTIONS, TrialCards, description_sentences, trial_cards
from routing_data import DOMAINS, FOLDS, NEAR_SUBJECTS, Data, Floats, Row, Vectors, fold_of
from routing_fits import against, conditional_logit
from routing_joined import (
    Read,
    described_cosines,
    joined_rows,
    lone_rows,
    read_rows,
    with_chains,
    with_metric_of,
)
from routing_noise import lower, typos

SHRINK = 1.0
SHARPNESS = 15.0
BACKGROUND = 64
NOISY = 350
_WRAPPERS = (
    "hi, I need your help with my homework: {}",
    "{} Explain briefly and give only the answer.",
    "Dear assistant, can you tell me this? {} I would be grateful.",
    "My friend asked me today: {} I had no idea.",
)
SMALL = (5, 10, 30)
"""Examples on the cards of people who have few."""
LEFT_OUT = 0.1
"""The share of rows that a seed other than 0 leaves out."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Rows with their vectors, `whole` [rows, dimensions]."""

    rows: tuple[Row, ...]
    whole: Floats

    def only(self, wanted: Sequence[bool] | NDArray[np.bool_]) -> "Labelled":
        """The rows where `wanted` holds."""
        kept = np.flatnonzero(np.asarray(wanted))
        return Labelled(
            tuple(self.rows[at] for at in kept),
            self.whole[kept],
        )

    @property
    def domains(self) -> NDArray[np.str_]:
        """The domain of each row."""
        return np.array([one.domain for one in self.rows])


def labelled(rows: Sequence[Row], vectors: Vectors) -> Labelled:
    """`rows` with their vectors."""
    return Labelled(tuple(rows), vectors.whole([one.text for one in rows]))


@dataclass(frozen=True, slots=True)
class Training:
    """All that a head is made from; `domains` are those that may have cards in training."""

    questions: Labelled
    with_choices: Labelled
    external: Labelled
    everyday: Labelled
    strangers: Labelled
    noisy: Labelled
    """Some of the questions, said otherwise: `subject` is the question."""
    joined: tuple[Read, ...]
    """Composites of each fold's rows."""
    lone: tuple[Read, ...]
    """Prompts of each fold that have one owner."""
    described: Mapping[str, Floats]
    encoder: str
    domains: tuple[str, ...] = DOMAINS

    def without(self, domain: str) -> "Training":
        """As if nobody had ever heard of `domain`: none of its rows, in no set."""

        def others(found: Labelled) -> Labelled:
            return found.only([domain not in (one.domain, one.second) for one in found.rows])

        return replace(
            self,
            questions=others(self.questions),
            with_choices=others(self.with_choices),
            external=others(self.external),
            noisy=others(self.noisy),
            joined=tuple(one.without(domain) for one in self.joined),
            lone=tuple(one.without(domain) for one in self.lone),
            domains=tuple(name for name in self.domains if name != domain),
        )

    def sampled(self, seed: int) -> "Training":
        """Without a tenth of the questions, another for every seed; seed 0 keeps all."""
        if seed == 0:
            return self
        rng = np.random.default_rng(seed)
        kept = rng.random(len(self.questions.rows)) >= LEFT_OUT
        return replace(
            self,
            questions=self.questions.only(kept),
            with_choices=self.with_choices.only(kept),
        )


def load_training(data: Data, vectors: Vectors) -> Training:
    """From train, dev and validation rows only; three near subjects are never seen."""
    rows = [one for one in data.mmlu(["dev", "val"]) if one.subject not in NEAR_SUBJECTS]
    choices = [replace(one, text=f"{one.text} {one.choices}") for one in rows]
    external = data.external(is_test=False)
    sentences = {name: description_sentences(DESCRIPTIONS[name]) for name in DOMAINS}
    return Training(
        questions=labelled(rows, vectors),
        with_choices=labelled(choices, vectors),
        external=labelled(external, vectors),
        everyday=labelled(data.everyday(), vectors),
        noisy=labelled(_noisy(rows), vectors),
        strangers=labelled(data.out_of_scope(["oos_train", "oos_val"]), vectors),
        joined=tuple(read_rows(joined_rows(rows, external, at), vectors) for at in range(FOLDS)),
        lone=tuple(read_rows(lone_rows(rows, external, at), vectors) for at in range(FOLDS)),
        described={name: vectors.whole(found) for name, found in sentences.items()},
        encoder=vectors.encoder.digest,
    )


def _noisy(rows: Sequence[Row]) -> list[Row]:
    """Short questions with typos, in small letters, and with other wrappers than those measured:
    what differs within such a group is to weigh nothing.
    """
    rng = random.Random(5)
    picked = rng.sample([row for row in rows if len(row.text) < 300], NOISY)
    changes = (typos, lower, lambda text, rng: rng.choice(_WRAPPERS).format(text))
    return [
        replace(row, text=change(row.text, rng), subject=f"question {at}")
        for at, row in enumerate(picked)
        for change in (lambda text, _: text, *changes)
    ]


def train_head(training: Training, *, is_all_wanted: bool = True) -> Head:
    """The head for all rows; card weights and probabilities come from quarters left out in turn.

    The two probabilities, of fit and of a chain, are left out unless all is wanted.
    """
    background = make_prototypes(training.everyday.whole, BACKGROUND)
    head = replace(
        _with_metric(training, np.ones(len(training.questions.rows), bool)),
        background=np.stack([prototype_vector(one) for one in background]),
    )
    folds = np.array([fold_of(one) for one in training.questions.rows])
    quarters = [_quarter(training, head, folds, fold) for fold in range(FOLDS)]
    features = np.concatenate([one.card_features() for one in quarters])
    labels = np.concatenate([one.labels for one in quarters])
    weights = conditional_logit(features, labels)
    guess = _line(features[..., 0].ravel(), features[..., 1].ravel())
    head = replace(head, card_weights=weights, description_guess=guess)
    if not is_all_wanted:
        return head
    head = replace(head, fit_weights=_fit_weights(training, head, quarters))
    return with_chains(
        training.joined, training.lone, head, [(one.head, one.cards) for one in quarters]
    )


@dataclass(frozen=True, slots=True)
class _Quarter:
    """Questions of one fold, and cards and a metric of the other three."""

    head: Head
    cards: TrialCards
    queries: Labelled
    labels: NDArray[np.intp]
    fold: int

    def card_features(self) -> Floats:
        """`[rows, cards, 2]`."""
        near = nearness(self.head, self.queries.whole, prepare(self.head, self.cards.cards))
        described = described_cosines(self.queries.whole, self.cards)
        return np.stack([near.prototypes, described], axis=-1)


def _quarter(training: Training, head: Head, folds: NDArray[np.intp], fold: int) -> _Quarter:
    questions = training.questions
    learned = _with_metric(training, folds != fold)
    both = np.stack([questions.whole, training.with_choices.whole], axis=1)
    examples = {
        name: both[(folds != fold) & (questions.domains == name)].reshape(-1, both.shape[2])
        for name in training.domains
    }
    cards = trial_cards(examples, training.described, training.encoder, head=learned)
    queries = questions.only((folds == fold) & np.isin(questions.domains, training.domains))
    labels = np.array([training.domains.index(one.domain) for one in queries.rows])
    own = replace(learned, background=head.background)
    return _Quarter(own, cards, queries, labels, fold)


def _with_metric(training: Training, kept: NDArray[np.bool_]) -> Head:
    """A head with nothing but the metric, from the questions in `kept` and all other sets."""
    sets = [
        training.questions.only(kept),
        training.with_choices.only(kept),
        training.external,
        training.everyday,
        training.noisy,
    ]
    vectors = np.concatenate([one.whole for one in sets]).astype(np.float64)
    labels = np.array([row.subject for one in sets for row in one.rows])
    mean = vectors.mean(axis=0)
    scatter = np.zeros((vectors.shape[1], vectors.shape[1]))
    for label in np.unique(labels):
        members = vectors[labels == label]
        members = members - members.mean(axis=0)
        scatter += members.T @ members
    scatter /= len(vectors)
    scatter += SHRINK * np.trace(scatter) / len(scatter) * np.eye(len(scatter))
    values, directions = np.linalg.eigh(scatter)
    metric = directions / np.sqrt(values)
    nothing = np.zeros(0, np.float32)
    return Head(
        training.encoder, mean.astype(np.float32), metric.astype(np.float32),
        np.zeros((0, len(mean)), np.float32), SHARPNESS, np.ones(2, np.float32),
        np.zeros(2, np.float32), nothing, nothing, nothing,
    )  # fmt: skip


def _fit_weights(training: Training, head: Head, quarters: Sequence[_Quarter]) -> Floats:
    """Questions whose card is there, against everyday requests; and against questions whose card
    is not, and subjects without cards.
    """
    questions = training.questions
    others = questions.only(~np.isin(questions.domains, DOMAINS)).whole
    rng = np.random.default_rng(0)
    own, far, near = [], [], []
    for quarter in quarters:
        learned = with_metric_of(head, quarter.head)
        for cards in (quarter.cards, *_small_cards(training, quarter, rng)):
            names = np.array(training.domains)[quarter.labels]
            mine = quarter.queries.whole
            is_there = np.isin(names, cards.names)
            own.append(all_fit_features(learned, mine[is_there], cards))
            far.append(all_fit_features(learned, training.strangers.whole, cards))
            near.append(all_fit_features(learned, others, cards))
            if not is_there.all():
                near.append(all_fit_features(learned, mine[~is_there], cards))
                continue
            for name in cards.names:
                lonely = mine[names == name]
                near.append(all_fit_features(learned, lonely, cards.but(name)))
    positive = np.concatenate(own)
    return np.stack([against(positive, np.concatenate(one)) for one in (far, near)])


def _small_cards(
    training: Training, quarter: _Quarter, rng: np.random.Generator
) -> Iterator[TrialCards]:
    """Cards of few examples out of the quarter's other rows, as `dslm card new` makes them."""
    questions, domains = training.questions, list(training.domains)
    folds = np.array([fold_of(one) for one in questions.rows])
    for size, is_described, count in itertools.product(SMALL, (True, False), (len(domains), 4, 1)):
        names = rng.permutation(domains)[:count].tolist() if count < len(domains) else domains
        examples = {}
        for name in names:
            rows = np.flatnonzero((folds != quarter.fold) & (questions.domains == name))
            examples[name] = questions.whole[rng.choice(rows, size, replace=False)]
        wanted = prototypes_wanted(size)
        cards = trial_cards(examples, training.described, training.encoder, wanted)
        yield cards if is_described else cards.without_descriptions()


def all_fit_features(head: Head, vectors: Floats, cards: TrialCards) -> Floats:
    """`[vectors, features]` of `fit_features`."""
    near = nearness(head, vectors, prepare(head, cards.cards))
    return fit_features(head, vectors, near, described_cosines(vectors, cards))


def _line(inputs: Floats, outputs: Floats) -> Floats:
    """Least squares: constant and slope."""
    slope, constant = np.polyfit(inputs, outputs, 1)
    return np.array([constant, slope], dtype=np.float32)
