"""A request inside the engine, and what of it goes through the model next.

Knows requests, token counts and block tables; must not know whose turn it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from node.engine.base import EngineRequest
from node.engine.pages import PAGE_SIZE, BlockTable, pages_for

FORCED_ROWS_MAX = 64
"""So many forced tokens of all requests are looked up in a step: each takes a row of logits.

Besides them a request whose last forced token is next takes one row, as an answer under way does.
"""


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
    told: int = 0
    """How many forced tokens came out already."""

    @property
    def computed(self) -> int:
        """How many of `tokens` are in the cache."""
        return self.table.committed

    @property
    def given(self) -> int:
        """How many of `tokens` were there from the start."""
        known = self.request.delivered or self.request.forced[:-1]
        return len(self.request.prompt) + len(known)

    @property
    def findable(self) -> Sequence[int]:
        """The tokens whose keys and values may come from the cache.

        A forced answer is computed whatever is there: cached pages do not say how likely it was.
        """
        return self.tokens[: len(self.request.prompt)] if self.request.forced else self.tokens

    @property
    def salt(self) -> str:
        """Only sequences of the same salt may learn anything from each other."""
        return self.table.scope.salt

    @property
    def left(self) -> int:
        """How many of `tokens` must be computed before the next one can be chosen."""
        return len(self.tokens) - self.table.committed

    def at_once(self, forced_rows: int) -> int:
        """The most tokens that go through the model in one step that has room for them all, and for
        `forced_rows` rows of logits of forced answers.
        """
        if not self.request.forced:
            return self.left
        return min(self.left, max(0, len(self.request.prompt) - 1 - self.computed) + forced_rows)

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
    Only then there may be `drafts`. Of a forced answer none is wanted.
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
        if self.sequence.request.forced:
            return max(0, min(self.count, self.stop - len(self.sequence.request.prompt) + 1))
        return 1 + len(self.drafts) if self.wants_token else 0

    @property
    def stop(self) -> int:
        """How many tokens of the sequence are computed after it, drafts aside."""
        return self.sequence.computed + self.count

    @property
    def position(self) -> int:
        """The place in the answer of what comes after the first token that wants `logits`."""
        if self.sequence.request.forced:
            return self.stop - self.logits + 1 - len(self.sequence.request.prompt)
        return self.sequence.answer_length
