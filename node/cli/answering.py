"""Asking the node for a chat answer and reading the stream: text, notes, the closing report.

Knows the API's event stream as a client; must not know where text and notes are shown.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import typer
from msgspec import UNSET, Struct, UnsetType

from node.cli.client import ApiError, Client, ErrorDetail
from node.cli.output import show_piece, tell_dimly
from protocols.errors import PeerLost

_DATA = "data: "
_NOTE = ": dslm "
_DONE = "[DONE]"

PlanName = Literal["auto", "single"]
QualityName = Literal["normal", "best"]
PlanFlag = Annotated[
    PlanName | None,
    typer.Option(help="auto: as many specialists as the router plans; single: one answers."),
]
QualityFlag = Annotated[
    QualityName | None,
    typer.Option(help="best: a doubtful answer is tried by another specialist, too."),
]
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
    plan: PlanName | UnsetType = UNSET
    quality: QualityName | UnsetType = UNSET


def own_options(
    route: RouteName | None,
    swarm: str,
    plan: PlanName | None = None,
    quality: QualityName | None = None,
) -> OwnOptions:
    """What was given on the command line; the node has a default for the rest."""
    return OwnOptions(route or UNSET, swarm or UNSET, plan or UNSET, quality or UNSET)


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


class PlannedStep(Struct, frozen=True):
    """One step of a plan."""

    specialist: str = ""
    prompt: str = ""
    after: tuple[int, ...] = ()
    alternatives: tuple[str, ...] = ()


class Plan(Struct, frozen=True):
    """What the router decided, and why."""

    kind: str = ""
    why: str = ""
    margin: float = 0.0
    scores: dict[str, float] = {}
    steps: tuple[PlannedStep, ...] = ()
    fit: float | None = None
    chain: float | None = None


class Evidence(Struct, frozen=True):
    """How sure a specialist was of its words."""

    logprob: float = 0.0
    margin: float = 0.0
    tokens: int = 0
    floor: float = 0.0
    gain: float | None = None
    gain_floor: float = 0.0


class Other(Struct, frozen=True):
    """Who else tried a step, and why that was not kept."""

    specialist: str = ""
    why: str = ""
    tokens: int = 0
    evidence: Evidence | None = None


class Memory(Struct, frozen=True):
    """What a step was given of earlier ones."""

    steps: tuple[int, ...] = ()
    characters: int = 0
    dropped: int = 0
    pages_at: str | None = None
    pages_reused: int = 0
    pages_fetched: int = 0
    bytes_fetched: int = 0


class StepReport(Struct, frozen=True):
    """What became of one step."""

    step: int = 0
    specialist: str = ""
    prompt: str = ""
    peers: tuple[Share, ...] = ()
    tokens: int = 0
    prompt_tokens: int = 0
    first_token_ms: float = 0.0
    seconds: float = 0.0
    evidence: Evidence | None = None
    memory: Memory = Memory()
    others: tuple[Other, ...] = ()
    error: str | None = None
    text: str = ""


class Activity(Struct, frozen=True):
    """What an answer set to work, out of what the node knew of."""

    specialists: tuple[str, ...] = ()
    specialists_known: int = 0
    parameters: int = 0
    parameters_known: int = 0
    peers: tuple[str, ...] = ()
    bytes_sent: int = 0
    bytes_received: int = 0
    bytes_of_pages: int = 0


class Report(Struct, frozen=True):
    """Who answered and how fast it went; `steps` is empty if one specialist answered alone."""

    specialist: str = ""
    peers: tuple[Share, ...] = ()
    why: str = ""
    first_token_ms: float | None = None
    tokens_per_second: float | None = None
    resumed: int = 0
    plan: Plan | None = None
    steps: tuple[StepReport, ...] = ()
    activity: Activity | None = None


class ChunkReport(Report, frozen=True):
    """What a chunk has: the report at the end, or whose words it holds; a `heading` is nobody's."""

    step: int | None = None
    heading: bool = False


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
    step: int = 0
    plan: Plan | None = None


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
    dslm: ChunkReport | None = None
    error: ErrorDetail | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer."""

    text: str
    finish_reason: str
    report: Report
    usage: Usage | None = None


def ask_whole(
    client: Client, request: ChatRequest, on_note: Callable[[Note], None] | None = None
) -> Answer:
    """The answer in one piece, with its counts; errors as of `ask_streaming`.

    It is streamed all the same: a long answer would be silent for longer than `Client` waits.
    """
    counted = msgspec.structs.replace(request, stream_options=StreamOptions(include_usage=True))
    return ask_streaming(client, counted, lambda _: None, on_note)


def ask_streaming(
    client: Client,
    request: ChatRequest,
    on_text: Callable[[str], None],
    on_note: Callable[[Note], None] | None = None,
    on_heading: Callable[[str], None] | None = None,
) -> Answer:
    """The answer, each piece handed to `on_text` as it comes; errors as of `Client.get`.

    Lines between the words of several specialists go to `on_heading` instead, if it is there.
    `PeerLost` if the stream ends before the answer does.
    """
    texts: list[str] = []
    reason, report, usage = "", ChunkReport(), None
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
        is_heading = chunk.dslm is not None and chunk.dslm.heading and on_heading is not None
        for choice in chunk.choices:
            reason = choice.finish_reason or reason
            if choice.delta.content:
                texts.append(choice.delta.content)
                show = on_heading if is_heading and on_heading else on_text
                show(choice.delta.content)
    if not reason:
        raise PeerLost("the node ended the stream before the answer was complete")
    whole = msgspec.convert(report, Report, from_attributes=True)
    return Answer("".join(texts), reason, whole, usage)


def spoken_text(answer: Answer) -> str:
    """What specialists said, without the lines between them."""
    said = [step.text.strip() for step in answer.report.steps if step.text.strip()]
    return "\n\n".join(said) if len(said) > 1 else answer.text


def show_heading(line: str) -> None:
    """Say dimly on the terminal who speaks next; where stderr is none, the line is in the text."""
    show_piece("\n" if line.startswith("\n") else "")
    tell_dimly(line.strip())


def heading_shower() -> Callable[[str], None] | None:
    """`show_heading` where a person sees both streams in one place."""
    return show_heading if sys.stderr.isatty() and sys.stdout.isatty() else None


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
    if len(report.steps) > 1:
        parts[1] = "specialists " + ", ".join(step.specialist for step in report.steps)
    if report.resumed:
        parts.append(f"carried on by another peer {report.resumed} time(s)")
    return "[" + " | ".join(parts) + "]"


def _peer_text(peer: str, names: dict[str, str]) -> str:
    name = names.get(peer, "")
    return f"{name} ({peer})" if name else peer
