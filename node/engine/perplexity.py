"""How well a model predicts a text: the figure by which precisions are compared.

Knows the forward pass; must not know text or files.
"""

import math
from collections.abc import Sequence

import torch

from node.engine.batch import Chunk
from node.engine.pages import PAGE_SIZE, pages_for
from node.engine.runner import RunnableModel, Runner

_STEP = 128
"""Tokens at a time: the logits of so many rows are what lies in memory."""


def perplexity(model: RunnableModel, token_ids: Sequence[int], window: int = 512) -> float:
    """exp of the mean negative log-likelihood of each token but the first of each window.

    The text is cut into windows that know nothing of each other, as llama.cpp and the papers on
    quantisation do, but all tokens of a window count. Needs two tokens at least. Whoever computes
    `model` when it serves computes this.
    """
    runner = model.open(pages_for(window) * PAGE_SIZE)
    total, count = 0.0, 0
    for start in range(0, len(token_ids), window):
        ids = token_ids[start : start + window]
        if len(ids) > 1:
            total += _surprise(runner, ids)
            count += len(ids) - 1
    if not count:
        raise ValueError("a text of less than two tokens has no perplexity")
    return math.exp(total / count)


def _surprise(runner: Runner, ids: Sequence[int]) -> float:
    """The sum of the negative log-likelihoods of all tokens but the first."""
    pages = range(pages_for(len(ids)))
    total = 0.0
    for start in range(0, len(ids), _STEP):
        stop = min(start + _STEP, len(ids))
        chunk = Chunk(ids[start:stop], start, pages, logits=stop - start)
        logits = runner.run([chunk])
        following = torch.tensor(ids[start + 1 : stop + 1])
        known = logits[: len(following)].log_softmax(dim=-1)
        total -= float(known.gather(1, following.unsqueeze(1)).sum())
    return total
