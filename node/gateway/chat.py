"""`POST /v1/chat/completions`: OpenAI's shapes of a chat answer and of its chunks.

Knows those shapes; must not know where answers come from or when frames are sent.
"""

from typing import Literal

from aiohttp import web
from msgspec import UNSET, Struct, UnsetType

from node.gateway.answers import AnswerSender
from node.gateway.requests import RequestReader, Wanted
from node.gateway.tally import Report, Tally, Usage

FinishReason = Literal["stop", "length"]


class Message(Struct, frozen=True):
    """The answer."""

    role: str
    content: str
    refusal: None = None


class Choice(Struct, frozen=True):
    """The only choice."""

    message: Message
    finish_reason: FinishReason
    index: int = 0
    logprobs: None = None


class ChatCompletion(Struct, frozen=True, kw_only=True):
    """A whole answer."""

    id: str
    object: str = "chat.completion"
    created: int
    model: str
    system_fingerprint: None = None
    choices: tuple[Choice]
    usage: Usage
    dslm: Report


class ChunkDelta(Struct, frozen=True):
    """What a chunk adds."""

    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET


class ChunkChoice(Struct, frozen=True):
    """The only choice, in part."""

    delta: ChunkDelta
    finish_reason: FinishReason | None = None
    index: int = 0
    logprobs: None = None


class Chunk(Struct, frozen=True, kw_only=True):
    """A piece of a streamed answer."""

    id: str
    object: str = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: None = None
    choices: tuple[ChunkChoice, ...]
    usage: Usage | UnsetType | None = UNSET
    dslm: Report | UnsetType = UNSET


class ChatShape:
    """Spells one chat answer; `created` is in Unix seconds."""

    def __init__(self, wanted: Wanted, created: int) -> None:
        self._id = f"chatcmpl-{wanted.ask.request_id.removeprefix('req_')}"
        self._created = created
        self._include_usage = wanted.include_usage

    def whole(self, tally: Tally) -> ChatCompletion:
        """The body of an answer that is not streamed."""
        return ChatCompletion(
            id=self._id,
            created=self._created,
            model=tally.specialist,
            choices=(Choice(Message("assistant", tally.text), tally.completed.reason),),
            usage=tally.usage(),
            dslm=tally.report(),
        )

    def opening(self, tally: Tally) -> tuple[Chunk, ...]:
        """The chunk that names the role."""
        return (self._chunk(tally, ChunkChoice(ChunkDelta("assistant", ""))),)

    def piece(self, tally: Tally, text: str) -> Chunk:
        """A chunk with more text."""
        return self._chunk(tally, ChunkChoice(ChunkDelta(content=text)))

    def closing(self, tally: Tally) -> tuple[Chunk, ...]:
        """The chunk with the finish reason and dslm's report, then usage if it was asked for."""
        last = self._chunk(
            tally, ChunkChoice(ChunkDelta(), tally.completed.reason), report=tally.report()
        )
        if not self._include_usage:
            return (last,)
        return (last, self._chunk(tally, None, usage=tally.usage()))

    def _chunk(
        self,
        tally: Tally,
        choice: ChunkChoice | None,
        usage: Usage | None = None,
        report: Report | UnsetType = UNSET,
    ) -> Chunk:
        return Chunk(
            id=self._id,
            created=self._created,
            model=tally.specialist,
            choices=() if choice is None else (choice,),
            usage=usage if self._include_usage else UNSET,
            dslm=report,
        )


class ChatRoutes:
    """The endpoint."""

    def __init__(self, reader: RequestReader, sender: AnswerSender) -> None:
        self._reader = reader
        self._sender = sender

    def routes(self) -> list[web.RouteDef]:
        """What the server adds."""
        return [web.post("/v1/chat/completions", self._post)]

    async def _post(self, request: web.Request) -> web.StreamResponse:
        return await self._sender.send(request, await self._reader.chat(request), ChatShape)
