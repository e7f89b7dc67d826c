"""All that a request asks for at once: the distribution, its order, likelihoods, replays."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from node.engine.base import EngineRequest, Generated
from node.engine.sampling import uniform
from node.engine.selection import is_plain, select
from protocols.messages.ask import LogitBias, Sampling
from tests.effort import THOROUGH, few
from tests.unit.node.engine.conftest import make_fake, make_torch

PROMPT = (3, 1, 4, 1, 5)
ANSWER = (2, 2, 6)
DRAWS = 6_000 if THOROUGH else 2_500
SAMPLING = Sampling(
    temperature=0.9,
    top_k=8,
    top_p=0.97,
    min_p=0.2,
    repetition_penalty=1.4,
    presence_penalty=0.2,
    frequency_penalty=0.6,
    logit_bias=(LogitBias(0, 1.0),),
)
LOGITS = torch.tensor([0.5, 2.0, 2.2, -1.0, 1.5, 1.9, 1.0, 0.9, 0.2, -3.0])


@dataclass(frozen=True)
class Only:
    """A matcher that allows the same ids always."""

    ids: frozenset[int]
    failure: str = ""

    def allowed(self, answer: Sequence[int]) -> bytes:  # noqa: ARG002
        return sum(1 << one for one in self.ids).to_bytes(2, "little")


def request(sampling: Sampling, matcher: Only | None = None) -> EngineRequest:
    return EngineRequest("r", PROMPT, 9, sampling, frozenset(), matcher=matcher)


def transformers_distribution(sampling: Sampling) -> list[float]:
    """By transformers' processors in the order of its `generate`, OpenAI's penalties by hand."""
    from transformers import (
        LogitsProcessorList,
        MinPLogitsWarper,
        RepetitionPenaltyLogitsProcessor,
        SequenceBiasLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    ids: Any = torch.tensor([PROMPT + ANSWER])
    biases: Any = {(0,): 1.0}
    scores: Any = SequenceBiasLogitsProcessor(biases)(ids, LOGITS[None])
    scores = RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)(ids, scores)
    for token, count in Counter(ANSWER).items():
        scores[0, token] -= count * sampling.frequency_penalty + sampling.presence_penalty
    warpers = LogitsProcessorList(
        [
            TemperatureLogitsWarper(sampling.temperature),
            TopKLogitsWarper(sampling.top_k),
            TopPLogitsWarper(sampling.top_p),
            MinPLogitsWarper(sampling.min_p),
        ]
    )
    probabilities: list[float] = warpers(ids, scores)[0].softmax(0).tolist()
    return probabilities


def chi_square(drawn: Counter[int], probabilities: Sequence[float]) -> tuple[float, float]:
    """The statistic, and its bound at p = 0.001 (Wilson and Hilferty's approximation)."""
    possible = {token: p for token, p in enumerate(probabilities) if p > 0}
    if set(drawn) - set(possible):
        return math.inf, 0.0
    total = sum(drawn.values())
    statistic = sum((drawn[token] - total * p) ** 2 / (total * p) for token, p in possible.items())
    freedom = len(possible) - 1
    bound = freedom * (1 - 2 / (9 * freedom) + 3.09 * math.sqrt(2 / (9 * freedom))) ** 3
    return statistic, bound


def draws(sampling: Sampling, answer: tuple[int, ...] = ANSWER) -> Counter[int]:
    from msgspec.structs import replace

    return Counter(
        select(LOGITS, request(replace(sampling, seed=seed)), answer).token_id
        for seed in range(DRAWS)
    )


def test_draws_follow_the_distribution_of_transformers() -> None:
    statistic, bound = chi_square(draws(SAMPLING), transformers_distribution(SAMPLING))
    assert statistic < bound


WRONG_RULES: list[dict[str, object]] = [
    {"temperature": 1.2},
    {"repetition_penalty": 1.0},
    {"presence_penalty": 0.0},
    {"frequency_penalty": 0.0},
    {"logit_bias": ()},
    {"min_p": 0.0},
    {"top_p": 0.8},
    {"top_k": 4},
    {"presence_penalty": 0.6, "frequency_penalty": 0.2},  # swapped
    {"logit_bias": (LogitBias(0, -1.0),)},  # the wrong sign
]


@pytest.mark.parametrize("wrong", few(WRONG_RULES, 2))
def test_a_wrong_rule_fails_that_test(wrong: dict[str, object]) -> None:
    from msgspec.structs import replace

    statistic, bound = chi_square(
        draws(replace(SAMPLING, **wrong)), transformers_distribution(SAMPLING)
    )
    assert statistic > bound


@pytest.mark.parametrize("answer", few([(), (2, 6), (2, 2, 6, 1), (2, 2, 5)], 2))
def test_a_wrong_history_fails_that_test(answer: tuple[int, ...]) -> None:
    """Prompt counted as answer, delivered tokens forgotten, one counted twice."""
    statistic, bound = chi_square(draws(SAMPLING, answer), transformers_distribution(SAMPLING))
    assert statistic > bound


def test_a_draw_with_the_wrong_number_fails_that_test() -> None:
    """An inverse that forgets to scale by the mass that is left."""
    weights = ((LOGITS.double() - LOGITS.max()) / 1.0).exp()
    probabilities = (LOGITS / 1.0).softmax(0).tolist()
    drawn = Counter(
        min(int(torch.searchsorted(weights.cumsum(0), uniform(s, 0) * 2)), 9) for s in range(DRAWS)
    )
    statistic, bound = chi_square(drawn, probabilities)
    assert statistic > bound


def test_a_mask_leaves_the_rest_in_proportion() -> None:
    allowed = Only(frozenset({1, 4, 8}))
    drawn = Counter(
        select(LOGITS, request(Sampling(temperature=1.0, seed=seed), allowed), ()).token_id
        for seed in range(DRAWS)
    )
    masked = torch.full((10,), float("-inf"))
    masked[[1, 4, 8]] = LOGITS[[1, 4, 8]]
    statistic, bound = chi_square(drawn, masked.softmax(0).tolist())
    assert statistic < bound
    statistic, bound = chi_square(drawn, LOGITS.softmax(0).tolist())
    assert statistic > bound


def test_greedy_heeds_mask_penalties_and_bias() -> None:
    assert select(LOGITS, request(Sampling(), Only(frozenset({0, 8}))), ()).token_id == 0
    assert select(LOGITS, request(Sampling(logit_bias=(LogitBias(9, 9.0),))), ()).token_id == 9
    penalty = Sampling(repetition_penalty=3.0)
    assert select(LOGITS, request(penalty), (2,)).token_id == 6


def test_no_bias_brings_back_what_a_mask_forbids() -> None:
    sampling = Sampling(temperature=1.0, logit_bias=(LogitBias(2, 100.0),))
    only = Only(frozenset({4}))
    assert {select(LOGITS, request(sampling, only), (4,) * n).token_id for n in range(50)} == {4}


def test_likelihoods_are_the_models_own() -> None:
    from msgspec.structs import replace

    chosen = select(LOGITS, request(replace(SAMPLING, logprobs=3), Only(frozenset({8}))), ANSWER)
    wanted = LOGITS.log_softmax(0)
    assert chosen.token_id == 8
    assert chosen.likelihood is not None
    assert chosen.likelihood.logprob == pytest.approx(float(wanted[8]), abs=1e-6)
    assert [one.token_id for one in chosen.likelihood.top] == [2, 1, 5]
    assert [one.logprob for one in chosen.likelihood.top] == pytest.approx(
        wanted[[2, 1, 5]].tolist(), abs=1e-6
    )


def test_none_but_plain_greedy_requests_take_the_short_way() -> None:
    assert is_plain(request(Sampling(top_k=3, seed=4)))
    assert not is_plain(request(Sampling(), Only(frozenset({1}))))
    for sampling in (
        Sampling(temperature=0.1),
        Sampling(logprobs=0),
        Sampling(logit_bias=(LogitBias(1, 0.0),)),
        Sampling(repetition_penalty=1.1),
        Sampling(presence_penalty=-0.1),
        Sampling(frequency_penalty=0.1),
    ):
        assert not is_plain(request(sampling))


BUSY = Sampling(
    temperature=0.8,
    seed=11,
    repetition_penalty=1.3,
    presence_penalty=0.5,
    frequency_penalty=0.4,
    min_p=0.02,
    logprobs=2,
)


def run(engine_request: EngineRequest) -> list[Generated]:
    engine = make_torch()
    engine.submit(engine_request)
    found: list[Generated] = []
    while engine.has_work:
        found += [one for one in engine.step() if isinstance(one, Generated)]
    return found


def test_a_resumed_answer_goes_on_as_if_nothing_had_happened() -> None:
    whole = run(EngineRequest("r", PROMPT, 14, BUSY, frozenset()))
    ids = tuple(one.token_id for one in whole)
    assert len(set(ids)) > 7, "the answer is too dull to show anything"
    for cut in range(14):
        rest = run(EngineRequest("r", PROMPT, 14, BUSY, frozenset(), ids[:cut]))
        assert [(one.position, one.token_id) for one in rest] == list(enumerate(ids))[cut:]
        for before, after in zip(whole[cut:], rest, strict=True):
            assert before.likelihood is not None
            assert after.likelihood is not None
            assert after.likelihood.logprob == pytest.approx(before.likelihood.logprob, abs=1e-4)


def test_penalties_change_answers_of_the_real_engine() -> None:
    plain = run(EngineRequest("r", PROMPT, 14, Sampling(temperature=0.8, seed=11), frozenset()))
    busy = run(EngineRequest("r", PROMPT, 14, BUSY, frozenset()))
    assert [one.token_id for one in plain] != [one.token_id for one in busy]
    assert plain[0].likelihood is None


def test_the_fake_engine_tells_likelihoods_too() -> None:
    engine = make_fake()
    engine.submit(EngineRequest("r", PROMPT, 3, Sampling(logprobs=1), frozenset()))
    found = [one for _ in range(6) for one in engine.step() if isinstance(one, Generated)]
    assert len(found) == 3
    assert all(one.likelihood is not None and one.likelihood.logprob == 0 for one in found)
