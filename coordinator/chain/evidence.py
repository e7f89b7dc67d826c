"""How sure a specialist was of what it said, from the likelihoods of its own tokens.

Knows likelihoods; must not know who said it. Pure.

An answer costs the model that chose it fewer nats a token than a good answer by somebody else does.
So where the specialist's card tells what good answers in its field cost it, an answer that costs
more is doubted; other cards are held to a fixed bound.

If the base is asked, what counts is how much likelier than the base a specialist finds its words.
"""

from collections.abc import Sequence

from coordinator.answer import Delta, Evidence
from coordinator.routing.plan import Plan
from protocols.ids import SpecialistId
from protocols.messages.ask import Likelihood
from protocols.records import CapabilityCard

TOP = 2
"""The likely tokens asked for beside each: the chosen one is mostly the first of them."""
FLOOR = -1.5
"""Nats a token under which the word of a specialist is doubted whose card says nothing."""
METRIC = "nats per answer token"
FLOOR_LOWEST, FLOOR_HIGHEST = -3.0, -0.5
"""A card cannot set itself a bound that means nothing, or that nobody reaches."""
GAIN_MIN = 1.5
"""Nats a token by which a specialist should find its words likelier than the base does."""
LEAD_MAX = 0.5
"""The base is asked where the router prefers a specialist to the next by less than this: where it
is sure, it is right more often than any evidence of this kind."""
JUDGED_TEMPERATURE_MAX = 0.7
"""Above this, chance says more about the likelihood of tokens than doubt does."""


class Gauge:
    """Adds up the likelihoods of one answer."""

    def __init__(self, floor: float) -> None:
        self._floor = floor
        self._tokens = 0
        self._logprob = 0.0
        self._margin = 0.0
        self._first: tuple[int, float] | None = None
        self._gain: float | None = None

    @property
    def tokens(self) -> int:
        """Tokens taken in."""
        return self._tokens

    def mark(self) -> None:
        """The base is asked about the tokens so far."""
        self._first = self._tokens, self._logprob

    def compare(self, base: float) -> None:
        """The base finds the tokens before `mark` that likely, as a mean in nats."""
        if self._first is not None:
            tokens, logprob = self._first
            self._gain = logprob / tokens - base

    def add(self, delta: Delta) -> None:
        """Take in more tokens; those without likelihoods do not count."""
        for token, found in zip(delta.ids, delta.logprobs, strict=False):
            self._tokens += 1
            self._logprob += found.logprob
            self._margin += found.logprob - _next_best(token, found)

    def evidence(self) -> Evidence | None:
        """None before the first token."""
        count = self._tokens
        if not count:
            return None
        return Evidence(
            self._logprob / count, self._margin / count, count, self._floor, self._gain, GAIN_MIN
        )


def lead_of(specialist: SpecialistId, others: Sequence[SpecialistId], plan: Plan) -> float:
    """By how much the router prefers `specialist` to the best of `others`, in the plan's scores."""
    scores = {score.specialist: score.score for score in plan.scores}
    best = max((scores.get(other, 0.0) for other in others), default=0.0)
    return scores.get(specialist, 0.0) - best


def floor_of(cards: Sequence[CapabilityCard]) -> float:
    """The bound for a specialist with these cards (of its replicas): the median of theirs."""
    said = sorted(
        max(FLOOR_LOWEST, min(FLOOR_HIGHEST, -measured.score))
        for card in cards
        for measured in card.scores
        if measured.metric == METRIC
    )
    return said[len(said) // 2] if said else FLOOR


def _next_best(token: int, found: Likelihood) -> float:
    """The likelihood of the likeliest other token; the token's own if there is none."""
    others = (likely.logprob for likely in found.top if likely.id != token)
    return max(others, default=found.logprob)
