"""The next token of one request, all that its sampling asks for included.

Knows the order in which constraint, penalties and drawing follow each other; must not know batches.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
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
    return request.sampling.temperature == 0 and _has_nothing_else(request)


def is_drawn(request: EngineRequest) -> bool:
    """Whether the request draws from the model's own distribution, and wants nothing else."""
    return request.sampling.temperature > 0 and _has_nothing_else(request)


def _has_nothing_else(request: EngineRequest) -> bool:
    sampling = request.sampling
    return (
        sampling.logprobs is None
        and not sampling.logit_bias
        and not has_penalties(sampling)
        and request.matcher is None
        and not request.forced
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


def follow(
    logits: Tensor,
    likeliest: Sequence[int],
    request: EngineRequest,
    answer: Sequence[int],
    drafts: Sequence[int],
) -> list[Selection]:
    """The tokens that follow `answer`: of `drafts` those that are right, and one more.

    Row i of `logits` [drafts + 1, vocabulary] comes after `answer` and i drafts, and `likeliest[i]`
    is its largest. Each token is chosen as if there were no drafts, with the random number of its
    own position, and the next row counts only if the draft was that token (sample and match, as in
    SpecExec, arXiv 2406.02532). So drafts change nothing but the time it takes.
    """
    if is_plain(request):
        return settled(likeliest, drafts)
    chosen: list[Selection] = []
    so_far = list(answer)
    logits = logits.cpu()
    for row, guess in enumerate([*drafts, None]):
        chosen.append(select(logits[row], request, so_far))
        if chosen[-1].token_id != guess:
            break
        so_far.append(chosen[-1].token_id)
    return chosen


def settled(tokens: Sequence[int], drafts: Sequence[int]) -> list[Selection]:
    """As `follow`, where the token of each row is known."""
    right = 0
    while right < len(drafts) and tokens[right] == drafts[right]:
        right += 1
    return [Selection(token) for token in tokens[: right + 1]]


def likeliest_of(logits: Tensor) -> list[int]:
    """The token of the largest of each row of `logits` [rows, vocabulary]; -1 for no number.

    Logits may be on any device: only the tokens are copied from there.
    """
    if not len(logits):
        return []
    if logits.is_cpu:
        # numpy finds the largest of 49,152 numbers in a tenth of the time that torch's max() takes.
        rows = logits.numpy()
        chosen = rows.argmax(axis=1)
        is_number = np.isfinite(np.take_along_axis(rows, chosen[:, None], axis=1)[:, 0])
        return [int(token) for token in np.where(is_number, chosen, -1)]
    best, tokens = logits.max(dim=-1)
    # max() passes NaN on, so one look at the maxima finds a row that is not numbers.
    found: list[int] = torch.where(torch.isfinite(best), tokens, -1).tolist()
    return found


def scored(logits: Tensor, request: EngineRequest, position: int) -> list[Selection]:
    """The forced ids from `position` on, one for each row of `logits`, with their likelihoods."""
    count = request.sampling.logprobs or 0
    ids = request.forced[position : position + len(logits)]
    rows = zip(logits.cpu(), ids, strict=True)
    return [Selection(token_id, likelihood(row, token_id, count)) for row, token_id in rows]


def likelihood(logits: Tensor, token_id: int, count: int) -> TokenLikelihood:
    """Of `token_id` and the `count` likeliest, from the model's own `logits` [vocabulary]."""
    logprobs = logits.double().log_softmax(0)
    best = torch.topk(logprobs, min(count, len(logits)))
    top = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return TokenLikelihood(
        float(logprobs[token_id]), tuple(Alternative(index, value) for index, value in top)
    )
