"""The head's arithmetic on small spaces, and the head that ships."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from coordinator.routing.card_set import CardSet, card_set
from coordinator.routing.chains import CHAIN_FEATURES, CUT_FEATURES
from coordinator.routing.head import (
    Head,
    card_logits,
    dump_head,
    load_head,
    logistic,
    nearness,
    prepare,
    shares,
)
from coordinator.routing.score import make_prototype
from protocols.errors import ModelFileError
from protocols.records import CapabilityCard
from tests.effort import examples

X, Y, Z = np.eye(3, dtype=np.float32)
HEAD = Head(
    encoder="e", mean=np.zeros(3, np.float32), metric=np.eye(3, dtype=np.float32),
    background=Z[None], sharpness=15.0, card_weights=np.array([20, 5], np.float32),
    description_guess=np.array([0.1, 0.8], np.float32),
    fit_weights=np.ones((2, 18), np.float32),
    cut_weights=np.ones(CUT_FEATURES, np.float32),
    chain_weights=np.ones(CHAIN_FEATURES + 1, np.float32),
)  # fmt: skip


def card(name: str, *directions: NDArray[np.float32], encoder: str = "e") -> CapabilityCard:
    prototypes = tuple(make_prototype(direction) for direction in directions)
    return CapabilityCard(
        "p", "s", 1, 1e10, name, "d", "b", "f", 9, encoder=encoder, prototypes=prototypes
    )


def cards(*given: CapabilityCard) -> CardSet:
    return card_set(given, "e", 3)


def test_only_cards_of_the_encoder_and_its_dimensions_compare() -> None:
    small = card("small", np.ones(2, np.float32))
    found = cards(card("a", X, Y), card("foreign", X, encoder="other"), small, card("b", Z))
    assert [one.specialist for one in found.cards] == ["a", "b"]
    assert found.starts.tolist() == [0, 2]
    assert found.counts.tolist() == [2, 1]
    assert len(cards()) == 0
    assert nearness(HEAD, X[None], prepare(HEAD, cards())).prototypes.shape == (1, 0)


def test_the_nearest_prototype_counts_most() -> None:
    near = nearness(HEAD, np.stack([X, Y]), prepare(HEAD, cards(card("a", X, Y), card("b", Z, Z))))
    assert near.cosine[:, 0].tolist() == pytest.approx([1, 1], abs=0.01)
    assert near.prototypes[0, 0] == pytest.approx(1 - np.log(2) / 15, abs=0.01)
    assert near.prototypes[0, 1] == pytest.approx(0, abs=0.01)


def test_repeating_a_prototype_changes_no_score() -> None:
    once, often = cards(card("a", X, Y)), cards(card("a", X, X, X, Y, Y, Y))
    for vector in (X, Y, (X + Z) / np.sqrt(2).astype(np.float32)):
        first, second = (nearness(HEAD, vector[None], prepare(HEAD, c)) for c in (once, often))
        assert first.prototypes == pytest.approx(second.prototypes, abs=1e-5)


def test_a_description_that_was_not_read_is_guessed() -> None:
    near = nearness(HEAD, X[None], prepare(HEAD, cards(card("a", X), card("b", X))))
    described = np.array([[0.9, np.nan]], np.float32)
    good, guessed = card_logits(HEAD, near, described)[0]
    assert good == pytest.approx(20 * near.prototypes[0, 0] + 5 * 0.9, abs=1e-4)
    assert guessed == card_logits(HEAD, near)[0, 1]


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=20), st.floats(0, 5))
@settings(max_examples=examples(200), deadline=None)
def test_probabilities_sum_to_one_and_grow_with_their_logit(
    logits: list[float], more: float
) -> None:
    before = shares(np.array(logits, np.float32))
    assert float(before.sum()) == pytest.approx(1, abs=1e-4)
    after = shares(np.array([logits[0] + more, *logits[1:]], np.float32))
    assert after[0] >= before[0] - 1e-6


@given(st.floats(-1e6, 1e6), st.floats(0, 10))
@settings(max_examples=examples(200), deadline=None)
def test_calibration_is_monotone_and_bounded(value: float, more: float) -> None:
    weights = np.array([1.5, -0.3], np.float32)
    low, high = logistic(np.array([[value], [value + more]], np.float32), weights)
    assert 0 <= low <= high <= 1


def test_a_head_survives_being_written() -> None:
    again = load_head(dump_head(HEAD))
    assert again.encoder == "e"
    assert np.array_equal(again.metric, HEAD.metric)
    assert np.array_equal(again.fit_weights, HEAD.fit_weights)


@pytest.mark.parametrize("spoil", [lambda d: d[:100], lambda _: b"", lambda d: b"x" + d[1:]])
def test_a_damaged_head_is_refused(spoil: object) -> None:
    with pytest.raises(ModelFileError, match="damaged"):
        load_head(spoil(dump_head(HEAD)))  # type: ignore[operator]


def test_the_head_that_ships_fits_its_arithmetic() -> None:
    head = load_head()
    assert len(bytes.fromhex(head.encoder)) == 32
    assert head.metric.shape == (384, 384)
    assert len(head.card_weights) == 2
    assert head.fit_weights.shape == (2, 18)
    assert len(head.cut_weights) == CUT_FEATURES
    assert len(head.chain_weights) == CHAIN_FEATURES + 1
    assert head.card_weights[0] > 0
    assert len(dump_head(head)) < 1_000_000
    assert all(np.isfinite(getattr(head, name)).all() for name in ("metric", "mean", "background"))


def test_the_metric_turns_nothing_into_numbers() -> None:
    projected = replace(HEAD, mean=X).project(np.stack([X, Y]))
    assert np.isfinite(projected).all()
