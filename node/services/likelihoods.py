"""The likelihoods of a token as they are told to a client: with spellings, within bounds.

Knows the engine's outputs and the protocol's messages; must not know who asked.
"""

from node.engine.base import Generated
from node.services.ports import Tokenizer
from protocols import limits
from protocols.messages.ask import LOGPROB_MIN, Likelihood, Likely


def likelihoods_of(output: Generated, tokenizer: Tokenizer) -> tuple[Likelihood, ...]:
    """One entry, or none if the request did not ask."""
    found = output.likelihood
    if found is None:
        return ()
    top = tuple(
        Likely(one.token_id, _bounded(one.logprob), _spelling(tokenizer, one.token_id))
        for one in found.top
    )
    return (Likelihood(_bounded(found.logprob), _spelling(tokenizer, output.token_id), top),)


def _bounded(logprob: float) -> float:
    """Rounding can make the logarithm of a sure thing positive."""
    return min(0.0, max(LOGPROB_MIN, logprob))


def _spelling(tokenizer: Tokenizer, token_id: int) -> bytes:
    return tokenizer.spelling(token_id)[: limits.TOKEN_BYTES_MAX]
