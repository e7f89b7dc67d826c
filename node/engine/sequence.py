"""A request inside the engine, and what of it goes through the model next.

Knows requests, token counts and block tables; must not know whose turn it is.
"""

from dataclasses import dataclass, field

from node.engine.base import EngineRequest
from node.engine.pages import PAGE_SIZE, BlockTable, pages_for


@dataclass(slots=True, eq=False)
class TokenSequence:
    """A request inside. `tokens` are prompt and answer so far; `ticket` counts up by arrival."""

    request: EngineRequest
    ticket: int
    table: BlockTable
    tokens: list[int] = field(default_factory=list)
    prompt_read: int = 0
    """How many given tokens were in the cache at some time: the counter's high-water mark."""
    reused: int = 0
    """How many given tokens were found there before they were ever computed for this request."""

    @property
    def computed(self) -> int:
        """How many of `tokens` are in the cache."""
        return self.table.committed

    @property
    def salt(self) -> str:
        """Only sequences of the same salt may learn anything from each other."""
        return self.table.scope.salt

    @property
    def left(self) -> int:
        """How many of `tokens` must be computed before the next one can be chosen."""
        return len(self.tokens) - self.table.committed

    @property
    def answer_length(self) -> int:
        """Tokens of the answer so far, delivered ones included."""
        return len(self.tokens) - len(self.request.prompt)

    @property
    def pages_wanted(self) -> int:
        """Pages that `tokens` and, if there may be so many, the next `PAGE_SIZE` still need."""
        most = len(self.request.prompt) + self.request.max_tokens - 1
        soon = min(len(self.tokens) + PAGE_SIZE, most)
        return max(0, pages_for(soon) - len(self.table.pages))


@dataclass(frozen=True, slots=True)
class Work:
    """The next `count` tokens of a sequence, and guesses at those after them.

    `wants_token` says that they are the last ones known, so that the model says what comes next.
    Only then there may be `drafts`.
    """

    sequence: TokenSequence
    count: int
    wants_token: bool
    drafts: tuple[int, ...] = ()

    @property
    def token_ids(self) -> list[int]:
        """The tokens to compute, drafts included."""
        start = self.sequence.computed
        return [*self.sequence.tokens[start : start + self.count], *self.drafts]

    @property
    def logits(self) -> int:
        """After how many of the last tokens the model has to say what comes next."""
        return 1 + len(self.drafts) if self.wants_token else 0
