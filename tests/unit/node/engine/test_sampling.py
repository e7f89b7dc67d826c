import itertools
import math
from collections import Counter
from typing import Any

import pytest
import torch

from node.engine.sampling import choose, uniform
from protocols.messages.ask import Sampling


def test_the_numbers_of_a_seed_are_fixed_for_ever() -> None:
    """Peers of different versions must draw alike: these constants are part of the protocol."""
    assert uniform(0, 0) == 0.30525781693541176
    assert uniform(2**63 - 1, 65_535) == 0.40176793945450007


def test_numbers_are_uniform_and_unrelated_over_positions_and_seeds() -> None:
    for numbers in (
        [uniform(1, position) for position in range(4000)],
        [uniform(seed, 1) for seed in range(4000)],
    ):
        counts = Counter(int(number * 10) for number in numbers)
        chi_square = sum((counts[bin_] - 400) ** 2 / 400 for bin_ in range(10))
        assert chi_square < 27.9  # 9 degrees of freedom, p = 0.001
        lag = sum((a - 0.5) * (b - 0.5) for a, b in itertools.pairwise(numbers))
        assert abs(lag / 4000 * 12) < 0.06


def test_greedy_takes_the_largest() -> None:
    assert choose(torch.tensor([0.0, 3.0, 2.9]), Sampling(), 0) == 1


@pytest.mark.parametrize("temperature", [1e-6, 5e-324])
def test_a_temperature_near_zero_is_greedy(temperature: float) -> None:
    logits = torch.tensor([50.0, -2.0, 50.1, 3.0])
    drawn = {choose(logits, Sampling(temperature=temperature, seed=s), 0) for s in range(50)}
    assert drawn == {2}


def test_draws_follow_the_distribution() -> None:
    logits = torch.tensor([1.0, 0.0, 2.0, -1.0, 0.5])
    probabilities = (logits / 0.8).softmax(0).tolist()
    count = 8000
    drawn = Counter(
        choose(logits, Sampling(temperature=0.8, seed=5), position) for position in range(count)
    )
    chi_square = sum(
        (drawn[token] - count * p) ** 2 / (count * p) for token, p in enumerate(probabilities)
    )
    assert chi_square < 18.5  # 4 degrees of freedom, p = 0.001


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "min_p"),
    [
        (1.0, 5, 1.0, 0.0),
        (0.7, 0, 0.9, 0.0),
        (1.3, 20, 0.5, 0.0),
        (2.0, 0, 0.999, 0.0),
        (1.0, 1, 1.0, 0.0),
        (1.0, 0, 1e-9, 0.0),
        (1.0, 0, 1.0, 0.05),
        (1.5, 30, 0.9, 0.1),
        (1.0, 0, 1.0, 1.0),
        (2.0, 7, 0.99, 0.3),
    ],
)
def test_the_tokens_that_can_be_drawn_are_those_of_transformers(
    temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    from transformers import (
        MinPLogitsWarper,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    logits = torch.randn(40, generator=torch.Generator().manual_seed(3)) * 2
    scores = TemperatureLogitsWarper(temperature)(torch.zeros(1, 1).long(), logits[None])
    if top_k:
        scores = TopKLogitsWarper(top_k)(torch.zeros(1, 1).long(), scores)
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(torch.zeros(1, 1).long(), scores)
    if min_p:
        ids: Any = torch.zeros(1, 1).long()
        scores = MinPLogitsWarper(min_p)(ids, scores)
    wanted = {i for i, score in enumerate(scores[0].tolist()) if math.isfinite(score)}
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, seed=2, min_p=min_p)
    drawn = {choose(logits, sampling, position) for position in range(3000)}
    assert drawn <= wanted
    likely = {i for i in wanted if scores[0].softmax(0)[i] > 0.01}
    assert likely <= drawn


def test_a_nucleus_wider_than_the_first_guess_is_found() -> None:
    logits = torch.zeros(5000)
    logits[1::2] = -0.5
    sampling = Sampling(temperature=1.0, top_p=0.5)
    drawn = {choose(logits, sampling, position) for position in range(100)}
    assert all(token % 2 == 0 for token in drawn)
    assert max(drawn) > 3000


def test_equal_tokens_are_kept_or_dropped_together() -> None:
    logits = torch.tensor([1.0, 1.0, 1.0, 0.0])
    drawn = {choose(logits, Sampling(temperature=1.0, top_k=2, seed=s), 0) for s in range(200)}
    assert drawn == {0, 1, 2}


def test_impossible_tokens_are_never_drawn() -> None:
    logits = torch.full((1000,), float("-inf"))
    logits[500] = 0.0
    drawn = {choose(logits, Sampling(temperature=1.0, seed=s), 0) for s in range(100)}
    assert drawn == {500}
