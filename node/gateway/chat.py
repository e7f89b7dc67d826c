"""`POST /v1/chat/completions`: OpenAI's shapes of a chat answer and of its chunks.

Knows those shapes; must not know where answers come from or when frames are sent.
"""

from typing import Literal

from aiohttp import web
from msgspec import UNSET, Struct, UnsetType

from node.gateway.answers import AnswerSender
from node.gateway.logprobs import ChatLogprobs, chat_logprobs
from node.gateway.reports import Mark, Report
from node.gateway.requests import RequestReader, Wanted
from node.gateway.tally import Piece, Tally, Usage
from node.gateway.tool_calls import Found, FoundCall, ToolCallReader

FinishReason = Literal["stop", "length", "tool_calls"]


class Called(Struct, frozen=True):
    """Which function to call; `arguments` is JSON as text."""

    name: str
    arguments: str


class Call(Struct, frozen=True, kw_only=True):
    """A call of a tool; `index` is there in streams only."""

    index: int | UnsetType = UNSET
    id: str
    type: str = "function"
    function: Called


class Message(Struct, frozen=True):
    """The answer; `content` is null if it is nothing but calls."""

    role: str
    content: str | None
    refusal: None = None
    tool_calls: tuple[Call, ...] | UnsetType = UNSET


class Choice(Struct, frozen=True):
    """One answer."""

    message: Message
    finish_reason: FinishReason
    index: int = 0
    logprobs: ChatLogprobs | None = None


class ChatCompletion(Struct, frozen=True, kw_only=True):
    """A whole answer."""

    id: str
    object: str = "chat.completion"
    created: int
    model: str
    system_fingerprint: None = None
    choices: tuple[Choice, ...]
    usage: Usage
    dslm: Report


class ChunkDelta(Struct, frozen=True):
    """What a chunk adds."""

    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET
    tool_calls: tuple[Call, ...] | UnsetType = UNSET


class ChunkChoice(Struct, frozen=True):
    """One answer, in part."""

    delta: ChunkDelta
    finish_reason: FinishReason | None = None
    index: int = 0
    logprobs: ChatLogprobs | None = None


class Chunk(Struct, frozen=True, kw_only=True):
    """A piece of a streamed answer."""

    id: str
    object: str = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: None = None
    choices: tuple[ChunkChoice, ...]
    usage: Usage | UnsetType | None = UNSET
    dslm: Report | Mark | UnsetType = UNSET


class ChatShape:
    """Spells one chat answer; `created` is in Unix seconds."""

    def __init__(self, wanted: Wanted, created: int) -> None:
        self._name = wanted.ask.request_id.removeprefix("req_")
        self._created = created
        self._include_usage = wanted.include_usage
        self._wants_logprobs = wanted.ask.sampling.logprobs is not None
        tools = wanted.tools
        self._reader = ToolCallReader(tools.names, one_call=tools.one_call) if tools.names else None
        self._calls = 0

    def whole(self, tally: Tally) -> ChatCompletion:
        """The body of an answer that is not streamed."""
        text, found = tally.text, Found()
        if self._reader is not None:
            parts = (self._reader.feed(text), self._reader.finish())
            text = "".join(part.text for part in parts)
            found = Found(text, tuple(call for part in parts for call in part.calls))
        calls = self._spelled(found.calls, is_stream=False)
        message = Message("assistant", text, tool_calls=calls or UNSET)
        if calls and not text:
            message = Message("assistant", None, tool_calls=calls)
        choice = Choice(message, self._reason(tally), logprobs=self._logprobs(tally.whole))
        return ChatCompletion(
            id=self._id,
            created=self._created,
            model=tally.specialist,
            choices=(choice,),
            usage=tally.usage(),
            dslm=tally.report(),
        )

    def opening(self, tally: Tally) -> tuple[Chunk, ...]:
        """The chunk that names the role."""
        return (self._chunk(tally, ChunkChoice(ChunkDelta("assistant", ""))),)

    def pieces(self, tally: Tally, piece: Piece) -> tuple[Chunk, ...]:
        """A chunk with more text, and one for each call in it."""
        found = Found(piece.text) if self._reader is None else self._reader.feed(piece.text)
        return self._chunks_of(tally, found, self._logprobs(piece), piece.mark)

    def closing(self, tally: Tally) -> tuple[Chunk, ...]:
        """The chunk with the finish reason and dslm's report, then usage if it was asked for.

        Before them comes what was held back because it might have become a call.
        """
        rest = Found() if self._reader is None else self._reader.finish()
        held = self._chunks_of(tally, rest, None)
        last = self._chunk(
            tally, ChunkChoice(ChunkDelta(), self._reason(tally)), report=tally.report()
        )
        if not self._include_usage:
            return (*held, last)
        return (*held, last, self._chunk(tally, None, usage=tally.usage()))

    @property
    def _id(self) -> str:
        return f"chatcmpl-{self._name}"

    def _reason(self, tally: Tally) -> FinishReason:
        return "tool_calls" if self._calls else tally.completed.reason

    def _logprobs(self, piece: Piece) -> ChatLogprobs | None:
        return chat_logprobs(piece.logprobs) if self._wants_logprobs else None

    def _chunks_of(
        self,
        tally: Tally,
        found: Found,
        logprobs: ChatLogprobs | None,
        mark: Mark | UnsetType = UNSET,
    ) -> tuple[Chunk, ...]:
        chunks = []
        if found.text or (logprobs and logprobs.content):
            chunks.append(ChunkChoice(ChunkDelta(content=found.text), logprobs=logprobs))
        chunks += [
            ChunkChoice(ChunkDelta(tool_calls=(call,)))
            for call in self._spelled(found.calls, is_stream=True)
        ]
        return tuple(self._chunk(tally, chunk, report=mark) for chunk in chunks)

    def _spelled(self, calls: tuple[FoundCall, ...], *, is_stream: bool) -> tuple[Call, ...]:
        spelled = []
        for call in calls:
            spelled.append(
                Call(
                    index=self._calls if is_stream else UNSET,
                    id=f"call_{self._name}_{self._calls}",
                    function=Called(call.name, call.arguments),
                )
            )
            self._calls += 1
        return tuple(spelled)

    def _chunk(
        self,
        tally: Tally,
        choice: ChunkChoice | None,
        usage: Usage | None = None,
        report: Report | Mark | UnsetType = UNSET,
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
