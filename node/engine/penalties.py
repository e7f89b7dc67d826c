"""What a request does to the model's logits before a token is drawn: constraint, bias, penalties.

Knows logits and token ids; must not know randomness, requests or text. Pure: the result depends on
the tokens before a position and nothing else, so a resumed or replayed answer gets the same.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from protocols.features import has_penalties
from protocols.messages.ask import LogitBias, Sampling


def only_allowed(logits: Tensor, allowed: bytes) -> Tensor:
    """`logits` [vocabulary] with minus infinity where the bits of `Matcher.allowed` are not set."""
    bits = np.unpackbits(np.frombuffer(allowed, dtype=np.uint8), bitorder="little")
    forbidden = torch.ones(len(logits), dtype=torch.bool)
    size = min(len(bits), len(logits))
    forbidden[:size] = torch.from_numpy(bits[:size] == 0)
    return logits.masked_fill(forbidden.to(logits.device), float("-inf"))


def penalised(
    logits: Tensor, sampling: Sampling, prompt: Sequence[int], answer: Sequence[int]
) -> Tensor:
    """`logits` [vocabulary], fp32, with the sampling's bias and penalties for the next token.

    `logit_bias` is added; then the logits of all ids in `prompt` and `answer` are divided by
    `repetition_penalty` if positive, else multiplied (Keskar et al. 2019, CTRL, as in Hugging
    Face's `RepetitionPenaltyLogitsProcessor`); then `frequency_penalty` is subtracted once for each
    time that an id is in `answer`, and `presence_penalty` once (OpenAI's formula).
    """
    if sampling.logit_bias:
        logits = _biased(logits, sampling.logit_bias)
    if not has_penalties(sampling):
        return logits
    logits = logits.clone()
    if sampling.repetition_penalty != 1:
        seen = torch.tensor(sorted({*prompt, *answer}), device=logits.device)
        score = logits[seen]
        penalty = sampling.repetition_penalty
        logits[seen] = torch.where(score > 0, score / penalty, score * penalty)
    if answer and (sampling.presence_penalty or sampling.frequency_penalty):
        said = torch.tensor(answer, device=logits.device)
        tokens, counts = torch.unique(said, return_counts=True)
        logits[tokens] -= counts * sampling.frequency_penalty + sampling.presence_penalty
    return logits


def _biased(logits: Tensor, biases: Sequence[LogitBias]) -> Tensor:
    """Ids outside the vocabulary can never be chosen, so a bias for them changes nothing."""
    inside = [bias for bias in biases if bias.token < len(logits)]
    tokens = torch.tensor([bias.token for bias in inside], dtype=torch.int64)
    amounts = torch.tensor([bias.bias for bias in inside], dtype=logits.dtype)
    return logits.index_add(0, tokens.to(logits.device), amounts.to(logits.device))
