"""Asking the node for a chat answer and reading the stream: text, notes, the closing report.

Knows the API's event stream as a client; must not know where text and notes are shown.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import typer
from msgspec import UNSET, Struct, UnsetType

from node.cli.client import ApiError, Client, ErrorDetail
from protocols.errors import PeerLost

_DATA = "data: "
_NOTE = ": dslm "
_DONE = "[DONE]"

RouteName = Literal["any", "trusted", "local"]
"""Which peers may see the prompt."""
RouteFlag = Annotated[
    RouteName | None,
    typer.Option(
        help="Who may read prompts: any peer of the swarm, trusted ones, or local: this node's own "
        "models only. The node's setting router.route by default."
    ),
]


class ChatMessage(Struct, frozen=True):
    """One turn of a conversation."""

    role: str
    content: str


class StreamOptions(Struct, frozen=True):
    """What a stream tells besides the text."""

    include_usage: bool


class OwnOptions(Struct, frozen=True, omit_defaults=True):
    """dslm's own part of a request."""

    route: RouteName | UnsetType = UNSET
    swarm: str | UnsetType = UNSET


def own_options(route: RouteName | None, swarm: str) -> OwnOptions:
    """What was given on the command line; the node has a default for the rest."""
    return OwnOptions(route or UNSET, swarm or UNSET)


class ChatRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of `POST /v1/chat/completions`."""

    model: str
    messages: Sequence[ChatMessage]
    stream: bool = False
    max_tokens: int | UnsetType = UNSET
    temperature: float | UnsetType = UNSET
    seed: int | UnsetType = UNSET
    stream_options: StreamOptions | UnsetType = UNSET
    dslm: OwnOptions | UnsetType = UNSET


class Share(Struct, frozen=True):
    """What one peer contributed."""

    peer: str = ""
    tokens: int = 0


class Report(Struct, frozen=True):
    """Who answered and how fast it went."""

    specialist: str = ""
    peers: tuple[Share, ...] = ()
    why: str = ""
    first_token_ms: float | None = None
    tokens_per_second: float | None = None
    resumed: int = 0


class Usage(Struct, frozen=True):
    """Counts of tokens."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class Note(Struct, frozen=True):
    """What happens before and between tokens; `phase` says which fields have a meaning."""

    phase: str
    specialist: str = ""
    peer: str = ""
    why: str = ""
    to_peer: str = ""
    ahead: int = 0


class Text(Struct, frozen=True):
    """What a chunk adds."""

    content: str | None = None


class Choice(Struct, frozen=True):
    """The only choice of a chunk."""

    delta: Text = Text()
    finish_reason: str | None = None


class Chunk(Struct, frozen=True):
    """A piece of a streamed answer."""

    choices: tuple[Choice, ...] = ()
    usage: Usage | None = None
    dslm: Report | None = None
    error: ErrorDetail | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer."""

    text: str
    finish_reason: str
    report: Report
    usage: Usage | None = None


def ask_whole(client: Client, request: ChatRequest) -> Answer:
    """The answer in one piece, with its counts; errors as of `ask_streaming`.

    It is streamed all the same: a long answer would be silent for longer than `Client` waits.
    """
    counted = msgspec.structs.replace(request, stream_options=StreamOptions(include_usage=True))
    return ask_streaming(client, counted, lambda _: None)


def ask_streaming(
    client: Client,
    request: ChatRequest,
    on_text: Callable[[str], None],
    on_note: Callable[[Note], None] | None = None,
) -> Answer:
    """The answer, each piece handed to `on_text` as it comes; errors as of `Client.get`.

    `PeerLost` if the stream ends before the answer does.
    """
    texts: list[str] = []
    reason, report, usage = "", Report(), None
    streaming = msgspec.structs.replace(request, stream=True)
    for line in client.lines("/v1/chat/completions", streaming):
        if on_note is not None and line.startswith(_NOTE):
            on_note(msgspec.json.decode(line[len(_NOTE) :], type=Note))
        if not line.startswith(_DATA) or line == _DATA + _DONE:
            continue
        chunk = msgspec.json.decode(line[len(_DATA) :], type=Chunk)
        if chunk.error is not None:
            raise ApiError(chunk.error)
        report, usage = chunk.dslm or report, chunk.usage or usage
        for choice in chunk.choices:
            reason = choice.finish_reason or reason
            if choice.delta.content:
                texts.append(choice.delta.content)
                on_text(choice.delta.content)
    if not reason:
        raise PeerLost("the node ended the stream before the answer was complete")
    return Answer("".join(texts), reason, report, usage)


def closing_line(report: Report, names: dict[str, str]) -> str:
    """Who answered and how fast, on one line; `names` maps peer ids to what people call them."""
    peers = ", ".join(_peer_text(share.peer, names) for share in report.peers) or "nobody"
    rate = report.tokens_per_second
    parts = [
        f"answered by {peers}",
        f"specialist {report.specialist}",
        f"first token after {(report.first_token_ms or 0.0) / 1000:.2f} s",
        f"{rate:.1f} tokens/s" if rate is not None else "too short to time",
    ]
    if report.resumed:
        parts.append(f"carried on by another peer {report.resumed} time(s)")
    return "[" + " | ".join(parts) + "]"


def _peer_text(peer: str, names: dict[str, str]) -> str:
    name = names.get(peer, "")
    return f"{name} ({peer})" if name else peer
