"""Many rows at once draw what each would draw alone."""

import random

import pytest
import torch

from node.engine.drawing import Draw, draw
from node.engine.sampling import choose
from protocols.messages.ask import Sampling

WIDTH = 500


def samplings(rng: random.Random) -> list[Sampling]:
    return [
        Sampling(
            temperature=rng.choice((0.2, 0.7, 1.0, 2.5)),
            seed=rng.randrange(2**32),
            top_k=rng.choice((0, 0, 1, 5, 40, WIDTH, 2 * WIDTH)),
            top_p=rng.choice((1.0, 1.0, 0.3, 0.9, 0.999)),
            min_p=rng.choice((0.0, 0.0, 0.05, 0.9)),
        )
        for _ in range(40)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_rows_are_drawn_as_one_by_one(seed: int) -> None:
    rng = random.Random(seed)
    logits = torch.randn(60, WIDTH, generator=torch.Generator().manual_seed(seed)) * 4
    logits[3, 7:90] = logits[3, 7]  # ties at the borders of what is kept
    draws = [Draw(rng.randrange(60), sampling, rng.randrange(1000)) for sampling in samplings(rng)]
    expected = [choose(logits[one.row], one.sampling, one.position) for one in draws]
    assert draw(logits, draws) == expected
    assert len(set(expected)) > 10


@pytest.mark.parametrize("kept", [{"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.2}])
def test_rows_without_a_limit_are_not_cut_by_those_with_one(kept: dict[str, float]) -> None:
    logits = torch.zeros(2, WIDTH)
    draws = [Draw(0, Sampling(temperature=1.0, seed=n, **kept), 0) for n in range(50)]  # type: ignore[arg-type]
    free = [Draw(1, Sampling(temperature=1.0, seed=n), 0) for n in range(50)]
    tokens = draw(logits, [*draws, *free])[50:]
    assert tokens == [choose(logits[1], one.sampling, 0) for one in free]
    assert max(tokens) > 400


def test_a_token_that_cannot_be_is_never_drawn() -> None:
    logits = torch.full((1, WIDTH), float("-inf"))
    logits[0, 13] = 1.0
    assert draw(logits, [Draw(0, Sampling(temperature=1.0, seed=n), n) for n in range(20)]) == (
        [13] * 20
    )
