"""How well a model predicts a text: the figure by which precisions are compared.

Knows the forward pass; must not know text or files.
"""

import math
from collections.abc import Sequence

import torch

from node.engine.batch import Chunk, build_batch
from node.engine.cache import KeyValueCache
from node.engine.model import LlamaModel
from node.engine.pages import pages_for

_STEP = 128
"""Tokens at a time: the logits of so many rows are what lies in memory."""


def perplexity(model: LlamaModel, token_ids: Sequence[int], window: int = 512) -> float:
    """exp of the mean negative log-likelihood of each token but the first of each window.

    The text is cut into windows that know nothing of each other, as llama.cpp and the papers on
    quantisation do, but all tokens of a window count. Needs two tokens at least.
    """
    total, count = 0.0, 0
    for start in range(0, len(token_ids), window):
        ids = token_ids[start : start + window]
        if len(ids) > 1:
            total += _surprise(model, ids)
            count += len(ids) - 1
    if not count:
        raise ValueError("a text of less than two tokens has no perplexity")
    return math.exp(total / count)


def _surprise(model: LlamaModel, ids: Sequence[int]) -> float:
    """The sum of the negative log-likelihoods of all tokens but the first."""
    cache = KeyValueCache(model.config, len(ids), model.dtype)
    pages = range(pages_for(len(ids)))
    total = 0.0
    for start in range(0, len(ids), _STEP):
        stop = min(start + _STEP, len(ids))
        chunk = Chunk(ids[start:stop], start, pages, logits=stop - start)
        logits = model.forward(build_batch([chunk], model.dtype), cache)
        following = torch.tensor(ids[start + 1 : stop + 1])
        known = logits[: len(following)].log_softmax(dim=-1)
        total -= float(known.gather(1, following.unsqueeze(1)).sum())
    return total
