"""What a guess at the next tokens is, who makes them, and who decides how many are worth a try.

Knows tokens and requests only. A guess never changes an answer: each token is chosen as if there
were no guesses, and those that agree with what was chosen save a step each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from node.engine.base import EngineRequest

DRAFTED_MAX = 15
"""The most tokens drafted for one text at a time; with the token before them a page full."""


class Text(Protocol):
    """Prompt and answer so far of one request. Only grows; no guess is ever in it."""

    @property
    def ticket(self) -> int:
        """Belongs to this text alone, for as long as the engine lives."""
        ...

    @property
    def salt(self) -> str:
        """Only texts of the same salt may learn from each other."""
        ...

    @property
    def request(self) -> EngineRequest:
        """How the next token will be chosen."""
        ...

    @property
    def tokens(self) -> Sequence[int]:
        """All that is known."""
        ...


@dataclass(frozen=True, slots=True)
class Draft:
    """The tokens that may come next, at least one.

    `kind` says how they were found: it is learned for each kind how often it is right. `prior` is
    the chance that a token is right if those before it are, as far as one can tell before that.
    """

    token_ids: Sequence[int]
    kind: str
    prior: float


class Drafter(Protocol):
    """Guesses. Used from one thread; any answer is allowed, a bad one costs time only."""

    @property
    def is_free(self) -> bool:
        """Whether a guess costs so little next to a step that it may be made and not used."""
        ...

    def propose(self, text: Text, most: int) -> Draft | None:
        """Up to `most` tokens (at least 1) that may follow `text`; None for no idea."""
        ...

    def leave(self, text: Text) -> None:
        """`text` has ended: forget it, or keep it as an example. Harmless for one never seen."""
        ...


@dataclass(frozen=True, slots=True)
class Wish:
    """A text that will get its next token, and how many drafted ones it could use (maybe 0)."""

    text: Text
    most: int


class Speculation(Protocol):
    """Says which drafts are worth their rows in a step; see `speculator.Speculator`."""

    def plan(self, wishes: Sequence[Wish], spare: int) -> Sequence[Sequence[int]]:
        """For each wish the drafted tokens to try, at most `spare` in all.

        The step has one row for each wish besides these.
        """
        ...

    def settle(self, text: Text, came: int) -> None:
        """The last `came` of the text's tokens are what came after the last `plan`."""
        ...

    def leave(self, text: Text) -> None:
        """`text` has ended. Harmless for one that was never planned for."""
        ...
