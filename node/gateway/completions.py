"""`POST /v1/completions`: OpenAI's older shapes, for a bare prompt without a chat template.

Knows those shapes; must not know where answers come from or when frames are sent.
"""

from typing import Literal

from aiohttp import web
from msgspec import UNSET, Struct, UnsetType

from node.gateway.answers import AnswerSender
from node.gateway.logprobs import TextLogprobs, TextLogprobsMaker
from node.gateway.reports import Report
from node.gateway.requests import RequestReader, Wanted
from node.gateway.tally import Piece, Tally, Usage


class TextChoice(Struct, frozen=True):
    """One answer, or a piece of it; `finish_reason` is null before the last piece."""

    text: str
    finish_reason: Literal["stop", "length"] | None
    index: int = 0
    logprobs: TextLogprobs | None = None


class TextCompletion(Struct, frozen=True, kw_only=True):
    """A whole answer, or a piece of a streamed one: the shapes are the same."""

    id: str
    object: str = "text_completion"
    created: int
    model: str
    system_fingerprint: str | UnsetType = UNSET
    choices: tuple[TextChoice, ...]
    usage: Usage | UnsetType | None = UNSET
    dslm: Report | UnsetType = UNSET


class CompletionShape:
    """Spells one completion; `created` is in Unix seconds."""

    def __init__(self, wanted: Wanted, created: int) -> None:
        self._id = f"cmpl-{wanted.ask.request_id.removeprefix('req_')}"
        self._created = created
        self._include_usage = wanted.include_usage
        self._logprobs = None if wanted.ask.sampling.logprobs is None else TextLogprobsMaker()

    def whole(self, tally: Tally) -> TextCompletion:
        """The body of an answer that is not streamed."""
        return TextCompletion(
            id=self._id,
            created=self._created,
            model=tally.specialist,
            choices=(self._choice(tally.whole, tally.completed.reason),),
            usage=tally.usage(),
            dslm=tally.report(),
        )

    def opening(self, tally: Tally) -> tuple[TextCompletion, ...]:  # noqa: ARG002  (a Shape)
        """Nothing: completions have no roles."""
        return ()

    def pieces(self, tally: Tally, piece: Piece) -> tuple[TextCompletion, ...]:
        """A chunk with more text."""
        return (self._chunk(tally, (self._choice(piece, None),)),)

    def closing(self, tally: Tally) -> tuple[TextCompletion, ...]:
        """The chunk with the finish reason and dslm's report, then usage if it was asked for."""
        last = self._chunk(tally, (TextChoice("", tally.completed.reason),), report=tally.report())
        if not self._include_usage:
            return (last,)
        return (last, self._chunk(tally, (), usage=tally.usage()))

    def _choice(self, piece: Piece, reason: Literal["stop", "length"] | None) -> TextChoice:
        made = self._logprobs.make(piece.logprobs) if self._logprobs else None
        return TextChoice(piece.text, reason, logprobs=made)

    def _chunk(
        self,
        tally: Tally,
        choices: tuple[TextChoice, ...],
        usage: Usage | None = None,
        report: Report | UnsetType = UNSET,
    ) -> TextCompletion:
        return TextCompletion(
            id=self._id,
            created=self._created,
            model=tally.specialist,
            choices=choices,
            usage=usage if self._include_usage else UNSET,
            dslm=report,
        )


class CompletionRoutes:
    """The endpoint."""

    def __init__(self, reader: RequestReader, sender: AnswerSender) -> None:
        self._reader = reader
        self._sender = sender

    def routes(self) -> list[web.RouteDef]:
        """What the server adds."""
        return [web.post("/v1/completions", self._post)]

    async def _post(self, request: web.Request) -> web.StreamResponse:
        return await self._sender.send(
            request, await self._reader.completion(request), CompletionShape
        )
