"""Choosing the next token from logits, so that another peer would choose the same one.

Knows distributions and how randomness is derived; must not know requests or models.

The random number of a position is a pure function of (seed, position): the first 53 bits of
BLAKE2b over both as little-endian 64-bit numbers, personalised `dslm-sample-1`. The token is drawn
by inverting the cumulative distribution in the order of token ids. That order does not depend on
the logits, so two peers whose logits differ in the last bits disagree only when the number falls
between their two nearly equal boundaries.
"""

from hashlib import blake2b

import torch
from torch import Tensor

from protocols.messages.ask import Sampling

_PERSON = b"dslm-sample-1"


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that belongs to this position of an answer with this seed."""
    message = seed.to_bytes(8, "little") + position.to_bytes(8, "little")
    digest = blake2b(message, digest_size=8, person=_PERSON).digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53


def choose(logits: Tensor, sampling: Sampling, position: int) -> int:
    """The id of the token at `position` of an answer, from `logits` [vocabulary], fp32.

    Temperature, then `top_k`, then `top_p`, then `min_p`, as in Hugging Face's `generate`. Tokens
    exactly as likely as the last one kept are kept too, so that the result never depends on a
    sort's order. What comes before (constraint, bias, penalties) has been done to `logits`.
    """
    if sampling.temperature == 0:
        return int(logits.argmax())
    wide = logits.double()
    weights = ((wide - wide.max()) / sampling.temperature).exp_()
    if sampling.top_k:
        _keep_top_k(weights, sampling.top_k)
    if sampling.top_p < 1:
        _keep_top_p(weights, sampling.top_p)
    if sampling.min_p > 0:
        # The likeliest weighs 1 and is never cut, so this is relative to it.
        weights.masked_fill_(weights < sampling.min_p, 0.0)
    cumulative = weights.cumsum(0)
    point = uniform(sampling.seed, position) * float(cumulative[-1])
    # right=True: a token of weight zero has no interval and can never be drawn.
    index = int(torch.searchsorted(cumulative, point, right=True))
    return index if index < len(weights) and weights[index] > 0 else _last_positive(weights)


def _keep_top_k(weights: Tensor, top_k: int) -> None:
    if top_k < len(weights):
        least = weights.topk(top_k).values[-1]
        weights.masked_fill_(weights < least, 0.0)


def _keep_top_p(weights: Tensor, top_p: float) -> None:
    """Zero all but the smallest set of likeliest tokens that holds `top_p` of the mass."""
    total = float(weights.sum())
    # Those below this are together less than what may be left out, so only the others, mostly
    # few, have to be sorted.
    candidates = weights[weights >= (1 - top_p) * total / len(weights)]
    likeliest = candidates.sort(descending=True).values
    last = int(torch.searchsorted(likeliest.cumsum(0), top_p * total))
    weights.masked_fill_(weights < likeliest[min(last, len(likeliest) - 1)], 0.0)


def _last_positive(weights: Tensor) -> int:
    """Rounding can push a point past the end of the cumulative sum; this is where it belongs."""
    return int(weights.nonzero()[-1])
