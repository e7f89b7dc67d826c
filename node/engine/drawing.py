"""Drawing the next tokens of many rows at once, where the logits are: on a GPU.

Knows distributions; must not know requests. The numbers and their order are those of
`node.engine.sampling.choose`, which draws for one row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from node.engine.sampling import uniform
from protocols.messages.ask import Sampling


@dataclass(frozen=True, slots=True)
class Draw:
    """Row `row` of a step's logits, by `sampling` (warm) at `position` of its answer."""

    row: int
    sampling: Sampling
    position: int


def draw(logits: Tensor, draws: Sequence[Draw]) -> list[int]:
    """The token of each of `draws`, from `logits` [rows, vocabulary]; all as `choose` would say.

    But for the last bit of a sum, which decides nothing unless a random number falls on it.
    """
    samplings = [one.sampling for one in draws]
    wide = logits[[one.row for one in draws]].double()

    def column(numbers: Sequence[float]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.float64, device=logits.device).unsqueeze(1)

    weights = (wide - wide.amax(1, keepdim=True)) / column([one.temperature for one in samplings])
    weights.exp_()
    width = weights.shape[1]
    if any(one.top_k for one in samplings):
        _keep_top_k(weights, [min(one.top_k or width, width) for one in samplings])
    if any(one.top_p < 1 for one in samplings):
        _keep_top_p(weights, column([one.top_p for one in samplings]))
    if any(one.min_p > 0 for one in samplings):
        weights.masked_fill_(weights < column([one.min_p for one in samplings]), 0.0)
    cumulative = weights.cumsum(1)
    chances = [uniform(one.sampling.seed, one.position) for one in draws]
    points = column(chances) * cumulative[:, -1:]
    found = torch.searchsorted(cumulative, points, right=True)
    # Rounding can push a point past the end of the sum: the last that can be drawn is meant.
    numbers = torch.arange(width, device=logits.device)
    last = torch.where(weights > 0, numbers, 0).amax(1, keepdim=True)
    tokens: list[int] = torch.minimum(found, last).flatten().tolist()
    return tokens


def _keep_top_k(weights: Tensor, counts: Sequence[int]) -> None:
    places = torch.tensor(counts, device=weights.device).unsqueeze(1) - 1
    bounded = [count for count in counts if count < weights.shape[1]]
    if not bounded:
        return
    likeliest = weights.topk(max(bounded)).values
    least = likeliest.gather(1, places.clamp(max=likeliest.shape[1] - 1))
    is_bounded = places < weights.shape[1] - 1
    weights.masked_fill_((weights < least) & is_bounded, 0.0)


def _keep_top_p(weights: Tensor, shares: Tensor) -> None:
    """Zero all but the smallest set of likeliest tokens that holds that share of the mass."""
    likeliest = weights.sort(descending=True).values
    total = weights.sum(1, keepdim=True)
    last = torch.searchsorted(likeliest.cumsum(1), shares * total)
    least = likeliest.gather(1, last.clamp(max=weights.shape[1] - 1))
    weights.masked_fill_((weights < least) & (shares < 1), 0.0)
