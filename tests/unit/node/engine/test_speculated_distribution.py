"""Tokens chosen along drafts follow the model's distribution, jointly; known wrong rules do not.

The model is a table: the logits of the next token by the last one. Of each seed's answer the first
two tokens count, so a rule that ties neighbouring positions together is found as well.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random

import pytest
import torch

from node.engine.base import EngineRequest
from node.engine.sampling import choose, uniform
from node.engine.selection import follow
from protocols.messages.ask import Sampling
from tests.effort import THOROUGH

VOCABULARY = 5
START = 0
DRAWS = 8_000 if THOROUGH else 2_000
BOUND = 51.2
"""Of chi-square with 24 degrees of freedom at p = 0.001."""
TABLE = torch.randn((VOCABULARY, VOCABULARY), generator=torch.Generator().manual_seed(2)) * 0.7
TEMPERATURE = 0.9
PROBABILITIES = (TABLE.double() / TEMPERATURE).softmax(-1)

Rule = Callable[[Sequence[int], list[int], int, Random], list[int]]
"""Drafts, answer so far, seed and other randomness to the tokens that follow."""


def sampling(seed: int) -> Sampling:
    return Sampling(temperature=TEMPERATURE, seed=seed)


def last(answer: Sequence[int]) -> int:
    return answer[-1] if answer else START


def ours(drafts: Sequence[int], answer: list[int], seed: int, _rng: Random) -> list[int]:
    request = EngineRequest("r", (START,), 9, sampling(seed), frozenset())
    logits = TABLE[[last(answer), *drafts]]
    return [one.token_id for one in follow(logits, [0] * len(logits), request, answer, drafts)]


def by_residual(drafts: Sequence[int], answer: list[int], _seed: int, rng: Random) -> list[int]:
    """Leviathan et al. 2023 for a draft that is certain: right as well, but cannot be replayed."""
    guess, chances = drafts[0], PROBABILITIES[last(answer)].tolist()
    if rng.random() < chances[guess]:
        return [guess]
    chances[guess] = 0.0
    return rng.choices(range(VOCABULARY), chances)


def without_residual(
    drafts: Sequence[int], answer: list[int], _seed: int, rng: Random
) -> list[int]:
    guess, chances = drafts[0], PROBABILITIES[last(answer)].tolist()
    if rng.random() < chances[guess]:
        return [guess]
    return rng.choices(range(VOCABULARY), chances)


def if_among_the_likeliest(
    drafts: Sequence[int], answer: list[int], _seed: int, rng: Random
) -> list[int]:
    guess, chances = drafts[0], PROBABILITIES[last(answer)]
    if guess in chances.topk(2).indices.tolist():
        return [guess]
    return rng.choices(range(VOCABULARY), chances.tolist())


def one_number_for_all_positions(
    drafts: Sequence[int], answer: list[int], seed: int, _rng: Random
) -> list[int]:
    """Each token alone has the right distribution; two together do not."""
    chosen: list[int] = []
    for guess in (*drafts, None):
        before = last([*answer, *chosen])
        chosen.append(choose(TABLE[before], sampling(seed), len(answer)))
        if chosen[-1] != guess:
            break
    return chosen


def numbers_by_try(drafts: Sequence[int], answer: list[int], seed: int, _rng: Random) -> list[int]:
    """A number for each draft, and the rejected draft's one again for what comes instead."""
    guess, before = drafts[0], last(answer)
    point = uniform(seed, len(answer))
    if point < float(PROBABILITIES[before][guess]):
        return [guess]
    return [choose(TABLE[before], sampling(seed), len(answer))]


def fixed(_answer: list[int], _rng: Random) -> list[int]:
    return [1, 3]


def guessed(answer: list[int], rng: Random) -> list[int]:
    """By a draft model that is roughly right, and too sure."""
    first = rng.choices(range(VOCABULARY), (PROBABILITIES[last(answer)] ** 3).tolist())[0]
    return [first, *rng.choices(range(VOCABULARY), (PROBABILITIES[first] ** 3).tolist())]


def chi_square(rule: Rule, drafter: Callable[[list[int], Random], list[int]]) -> float:
    rng = Random(9)
    pairs: Counter[tuple[int, int]] = Counter()
    for seed in range(DRAWS):
        answer: list[int] = []
        while len(answer) < 2:
            answer += rule(drafter(answer, rng), answer, seed, rng)
        pairs[answer[0], answer[1]] += 1
    total = 0.0
    for one in range(VOCABULARY):
        for two in range(VOCABULARY):
            expected = DRAWS * float(PROBABILITIES[START][one] * PROBABILITIES[one][two])
            assert expected > 5
            total += (pairs[one, two] - expected) ** 2 / expected
    return total


@pytest.mark.parametrize("drafter", [fixed, guessed])
@pytest.mark.parametrize("rule", [ours, by_residual])
def test_right_rules_follow_the_distribution(
    rule: Rule, drafter: Callable[[list[int], Random], list[int]]
) -> None:
    assert chi_square(rule, drafter) < BOUND


@pytest.mark.parametrize("drafter", [fixed, guessed])
@pytest.mark.parametrize(
    "rule",
    [without_residual, if_among_the_likeliest, one_number_for_all_positions, numbers_by_try],
)
def test_wrong_rules_are_found_out(
    rule: Rule, drafter: Callable[[list[int], Random], list[int]]
) -> None:
    assert chi_square(rule, drafter) > BOUND


@pytest.mark.parametrize("drafter", [fixed, guessed])
def test_drafts_change_no_token_of_any_seed(
    drafter: Callable[[list[int], Random], list[int]],
) -> None:
    rng = Random(3)
    for seed in range(300):
        plain: list[int] = []
        drafted: list[int] = []
        while len(drafted) < 6:
            drafted += ours(drafter(drafted, rng), drafted, seed, rng)
        while len(plain) < len(drafted):
            plain += ours((), plain, seed, rng)
        assert drafted == plain
