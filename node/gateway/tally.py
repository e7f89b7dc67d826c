"""What is known of one answer so far: who makes it, its text, its counts.

Knows the coordinator's events; must not know any endpoint's shape.
"""

from dataclasses import dataclass

from msgspec import UNSET, Struct, UnsetType

from coordinator.answer import AnswerEvent, Completed, Delta, Resumed, Routed, Waiting
from node.gateway.errors import SourceFailed
from node.gateway.requests import Wanted
from protocols.messages.ask import Likelihood


class Usage(Struct, frozen=True):
    """OpenAI's token counts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ShareReport(Struct, frozen=True):
    """What one peer contributed."""

    peer: str
    tokens: int


class Report(Struct, frozen=True):
    """The `dslm` field of an answer: who answered, why they were chosen, and how fast it went.

    `resumed` counts the times that another peer carried the answer on. `tokens_per_second` leaves
    the first token out, and is null for answers of fewer than two. Of several choices it is the
    first's, and `choices` has those of all.
    """

    specialist: str
    peers: tuple[ShareReport, ...]
    why: str
    first_token_ms: float
    tokens_per_second: float | None
    resumed: int
    seed: int
    token_ids: tuple[int, ...] | UnsetType = UNSET
    choices: "tuple[Report, ...] | UnsetType" = UNSET


@dataclass(frozen=True, slots=True)
class Piece:
    """Visible text, and how likely the tokens were that it comes from if the request asked."""

    text: str = ""
    logprobs: tuple[Likelihood, ...] = ()


class Tally:
    """Adds up the events of one answer."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._why = ""
        self._resumed = 0
        self._ids: list[int] = []
        self._texts: list[str] = []
        self._logprobs: list[Likelihood] = []
        self._unseen: list[Likelihood] = []
        self._completed: Completed | None = None
        self.specialist: str = wanted.ask.model
        """Who answers; until it is known, the model that was asked for."""
        self.peer = ""

    def add(self, event: AnswerEvent) -> Piece:
        """Take in `event`; the visible text that it adds.

        Tokens whose text is held back are told of with the text that shows it, or not at all.
        """
        match event:
            case Routed():
                self.specialist, self.peer, self._why = event.specialist, event.peer, event.why
            case Resumed():
                self.peer = event.to_peer
                self._resumed += 1
            case Delta():
                self._ids += event.ids
                self._unseen += event.logprobs
                return self._add_text(event.text)
            case Completed():
                self.specialist = event.specialist
                self._completed = event
                return self._add_text(event.text)
            case Waiting():
                pass
        return Piece()

    def _add_text(self, text: str) -> Piece:
        if not text:
            return Piece()
        self._texts.append(text)
        self._logprobs += self._unseen
        piece = Piece(text, tuple(self._unseen))
        self._unseen.clear()
        return piece

    @property
    def is_complete(self) -> bool:
        """Whether the last event has come."""
        return self._completed is not None

    @property
    def completed(self) -> Completed:
        """The last event; `SourceFailed` if there was none."""
        if self._completed is None:
            raise SourceFailed("the answer ended before it was complete")
        return self._completed

    @property
    def text(self) -> str:
        """All visible text so far."""
        return "".join(self._texts)

    @property
    def whole(self) -> Piece:
        """All visible text so far, as one piece."""
        return Piece(self.text, tuple(self._logprobs))

    def headers(self) -> dict[str, str]:
        """Who answers, as far as it is known, and who can read the prompt."""
        ask = self._wanted.ask
        headers = {
            "x-dslm-model": self.specialist,
            "x-dslm-route": ask.route.value,
            "x-dslm-swarm": ask.swarm or "",
            "x-dslm-readers": self._wanted.readers,
        }
        return headers | ({"x-dslm-node": self.peer} if self.peer else {})

    def usage(self) -> Usage:
        """Counts of the complete answer."""
        prompt, answer = self.completed.prompt_tokens, self.completed.completion_tokens
        return Usage(prompt, answer, prompt + answer)

    def report(self) -> Report:
        """The `dslm` field of the complete answer."""
        last = self.completed
        decode = last.total_seconds - last.first_token_seconds
        measured = last.completion_tokens > 1 and decode > 0
        return Report(
            specialist=last.specialist,
            peers=tuple(ShareReport(share.peer, share.tokens) for share in last.shares),
            why=self._why,
            first_token_ms=round(last.first_token_seconds * 1_000, 1),
            tokens_per_second=round((last.completion_tokens - 1) / decode, 2) if measured else None,
            resumed=self._resumed,
            seed=self._wanted.ask.sampling.seed,
            token_ids=tuple(self._ids) if self._wanted.return_token_ids else UNSET,
        )
