"""Penalties, bias and masks: equal to transformers' and OpenAI's formulas."""

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from node.engine.penalties import only_allowed, penalised
from protocols.messages.ask import LogitBias, Sampling
from tests.effort import examples

SIZE = 24
tokens = st.lists(st.integers(0, SIZE - 1), max_size=12)


def random_logits(seed: int) -> torch.Tensor:
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(seed)) * 3


@settings(max_examples=examples(200), deadline=None)
@given(
    tokens,
    tokens.filter(bool),
    st.floats(0.01, 100),
    st.dictionaries(st.integers(0, SIZE - 1), st.floats(-100, 100, width=32), max_size=4),
    st.integers(0, 99),
)
def test_bias_and_repetition_penalty_are_those_of_transformers(
    answer: list[int], prompt: list[int], penalty: float, biases: dict[int, float], seed: int
) -> None:
    from transformers import RepetitionPenaltyLogitsProcessor, SequenceBiasLogitsProcessor

    scores = random_logits(seed)[None]
    ids = torch.tensor([prompt + answer])
    if biases:
        named: Any = {(token,): bias for token, bias in biases.items()}
        scores = SequenceBiasLogitsProcessor(named)(ids, scores)
    wanted = RepetitionPenaltyLogitsProcessor(penalty)(ids, scores)[0]
    sampling = Sampling(
        repetition_penalty=penalty,
        logit_bias=tuple(LogitBias(token, bias) for token, bias in biases.items()),
    )
    got = penalised(random_logits(seed), sampling, prompt, answer)
    assert torch.allclose(got, wanted, rtol=1e-6, atol=1e-6)


@settings(max_examples=examples(200), deadline=None)
@given(tokens, tokens, st.floats(-2, 2), st.floats(-2, 2), st.integers(0, 99))
def test_presence_and_frequency_count_the_answer_only(
    answer: list[int], prompt: list[int], presence: float, frequency: float, seed: int
) -> None:
    """The formula of OpenAI's API reference: mu[j] - c[j] * frequency - (c[j] > 0) * presence."""
    logits = random_logits(seed)
    counts = Counter(answer)
    wanted = torch.tensor(
        [float(logits[j]) - counts[j] * frequency - (counts[j] > 0) * presence for j in range(SIZE)]
    )
    sampling = Sampling(presence_penalty=presence, frequency_penalty=frequency)
    got = penalised(logits, sampling, prompt, answer)
    assert torch.allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_the_repetition_penalty_comes_before_the_other_two() -> None:
    """The order of vLLM's `apply_penalties`."""
    sampling = Sampling(repetition_penalty=2.0, presence_penalty=0.5, frequency_penalty=0.25)
    got = penalised(torch.tensor([4.0, -4.0, 1.0]), sampling, (1,), (0, 0))
    assert got.tolist() == [4.0 / 2 - 2 * 0.25 - 0.5, -8.0, 1.0]


def test_the_models_logits_stay_as_they_were() -> None:
    logits = random_logits(1)
    before = logits.clone()
    sampling = Sampling(
        repetition_penalty=1.5, presence_penalty=1.0, logit_bias=(LogitBias(3, 5.0),)
    )
    penalised(logits, sampling, (1, 2), (3,))
    only_allowed(logits, b"\x01")
    assert torch.equal(logits, before)


def test_a_bias_for_an_id_that_the_model_has_not_changes_nothing() -> None:
    sampling = Sampling(logit_bias=(LogitBias(SIZE, 100.0), LogitBias(2**31 - 1, 1.0)))
    assert torch.equal(penalised(random_logits(1), sampling, (1,), ()), random_logits(1))


@pytest.mark.parametrize("size", [1, 8, 9, 24])
def test_only_what_a_bit_is_set_for_is_left(size: int) -> None:
    kept = {0, 7, 8, 23}
    mask = bytearray(3)
    for index in kept:
        mask[index // 8] |= 1 << index % 8
    got = only_allowed(torch.zeros(size), bytes(mask))
    assert {i for i, logit in enumerate(got.tolist()) if logit == 0} == {
        i for i in kept if i < size
    }


def test_ids_beyond_the_mask_are_not_allowed() -> None:
    assert only_allowed(torch.zeros(20), b"\xff").isinf().tolist() == [False] * 8 + [True] * 12
