"""How often drafts were right lately, for one text and each kind of draft.

Knows drafts and what came instead; must not know costs. Drafts that were not tried are judged by
the tokens that came all the same, so that a good source is found before anything is spent on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from node.engine.speculation.drafts import Draft

_PRIOR_WEIGHT = 1.0
_KEPT_BY_TRIAL = 0.9
"""What is left of older evidence after each trial: some ten trials count."""
_KEPT_BY_TOKEN = 0.99
"""And after each token of the text, tried or not: what went wrong is tried again, rarely."""


@dataclass(slots=True)
class _Evidence:
    right: float = 0.0
    tried: float = 0.0
    at: int = 0

    def age(self, now: int) -> None:
        kept = _KEPT_BY_TOKEN ** (now - self.at)
        self.right *= kept
        self.tried *= kept
        self.at = now


class Acceptance:
    """Of one text. `now` is its length in tokens, which never falls."""

    def __init__(self) -> None:
        self._kinds: dict[str, _Evidence] = {}

    def chance(self, kind: str, prior: float, now: int) -> float:
        """That a token of such a draft is right if those before it are; below 1."""
        evidence = self._kinds.get(kind)
        if evidence is None:
            return prior
        evidence.age(now)
        return (prior * _PRIOR_WEIGHT + evidence.right) / (_PRIOR_WEIGHT + evidence.tried)

    def observe(self, draft: Draft, came: Sequence[int], now: int) -> None:
        """`came` is what came where `draft` was made for; what follows a miss says nothing."""
        right = 0
        for guess, token in zip(draft.token_ids, came, strict=False):
            if guess != token:
                break
            right += 1
        tried = min(right + 1, len(draft.token_ids), len(came))
        evidence = self._kinds.setdefault(draft.kind, _Evidence(at=now))
        evidence.age(now)
        kept = _KEPT_BY_TRIAL**tried
        evidence.right = evidence.right * kept + right
        evidence.tried = evidence.tried * kept + tried
