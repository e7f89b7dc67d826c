"""The next token of one request, all that its sampling asks for included.

Knows the order in which constraint, penalties and drawing follow each other; must not know batches.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from node.engine.base import Alternative, EngineRequest, TokenLikelihood
from node.engine.penalties import only_allowed, penalised
from node.engine.sampling import choose
from protocols.features import has_penalties


@dataclass(frozen=True, slots=True)
class Selection:
    """A token, and how likely the model found it if the request asks."""

    token_id: int
    likelihood: TokenLikelihood | None = None


def is_plain(request: EngineRequest) -> bool:
    """Whether the request takes the likeliest token, and wants to know nothing else."""
    sampling = request.sampling
    return (
        sampling.temperature == 0
        and sampling.logprobs is None
        and not sampling.logit_bias
        and not has_penalties(sampling)
        and request.matcher is None
    )


def select(logits: Tensor, request: EngineRequest, answer: Sequence[int]) -> Selection:
    """The token that follows `answer`, delivered ids included, from `logits` [vocabulary].

    A pure function, also of the request's matcher: any peer and any replay selects the same.
    """
    sampling = request.sampling
    logits = logits.float()
    wanted = logits
    if request.matcher is not None:
        wanted = only_allowed(wanted, request.matcher.allowed(answer))
    wanted = penalised(wanted, sampling, request.prompt, answer)
    token_id = choose(wanted, sampling, len(answer))
    if sampling.logprobs is None:
        return Selection(token_id)
    return Selection(token_id, likelihood(logits, token_id, sampling.logprobs))


def likelihood(logits: Tensor, token_id: int, count: int) -> TokenLikelihood:
    """Of `token_id` and the `count` likeliest, from the model's own `logits` [vocabulary]."""
    logprobs = logits.double().log_softmax(0)
    best = torch.topk(logprobs, min(count, len(logits)))
    top = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return TokenLikelihood(
        float(logprobs[token_id]), tuple(Alternative(index, value) for index, value in top)
    )
