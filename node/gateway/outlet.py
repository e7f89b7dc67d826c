"""One streamed answer on its way out: events in, frames of its endpoint's shape out.

Knows the order of frames; must not know when they are due (`answers` does).
"""

from typing import Protocol

from msgspec import UNSET, Struct, UnsetType

from coordinator.answer import (
    Completed,
    Delta,
    Planned,
    Resumed,
    Routed,
    StepEnded,
    StepStarted,
    Waiting,
)
from node.gateway.reports import PlanReport, plan_report
from node.gateway.sse import DONE, PING, FrameSink, data_frame
from node.gateway.tally import Piece, Tally

Note = Routed | Planned | Waiting | StepStarted | Resumed | StepEnded
"""Events of which clients of dslm are told between chunks."""


class Shape(Protocol):
    """How one endpoint spells one answer: ids, dates and field names."""

    def whole(self, tally: Tally) -> Struct:
        """The body of an answer that is not streamed."""
        ...

    def opening(self, tally: Tally) -> tuple[Struct, ...]:
        """The chunks before the text."""
        ...

    def pieces(self, tally: Tally, piece: Piece) -> tuple[Struct, ...]:
        """The chunks that more text makes; none while it may become something else."""
        ...

    def closing(self, tally: Tally) -> tuple[Struct, ...]:
        """The chunks after the text: why it ended, and what it used if the client asked."""
        ...


class _RoutedNote(Struct, frozen=True, tag="routed", tag_field="phase"):
    specialist: str
    peer: str
    why: str
    scores: dict[str, float]
    second_choice: str | None
    plan: PlanReport | UnsetType = UNSET


class _WaitingNote(Struct, frozen=True):
    phase: str
    peer: str
    ahead: int


class _ResumedNote(Struct, frozen=True, tag="resumed", tag_field="phase"):
    from_peer: str
    to_peer: str
    position: int
    reason: str


class _PlannedNote(Struct, frozen=True, tag="planned", tag_field="phase"):
    plan: PlanReport


class _StartedNote(Struct, frozen=True, tag="step", tag_field="phase"):
    step: int
    specialist: str
    peer: str
    prompt: str
    pages_at: str | None


class _EndedNote(Struct, frozen=True, tag="step_ended", tag_field="phase"):
    step: int
    specialist: str
    tokens: int
    seconds: float
    error: str | None


def note_of(event: Note) -> Struct:
    """What clients of dslm read in a comment; it has a `phase` that says which event it is."""
    match event:
        case Routed():
            scores = {str(score.specialist): round(score.score, 4) for score in event.scores}
            plan = plan_report(event.plan) if event.plan else UNSET
            return _RoutedNote(
                event.specialist, event.peer, event.why, scores, event.second_choice, plan
            )
        case Planned(planned):
            return _PlannedNote(plan_report(planned))
        case StepStarted(index=step, handed=handed):
            return _StartedNote(step, event.specialist, event.peer, event.prompt, handed.pages_at)
        case StepEnded(index=step):
            return _EndedNote(
                step, event.specialist, event.tokens, round(event.seconds, 3), event.error or None
            )
        case Waiting():
            return _WaitingNote(event.phase, event.peer, event.ahead)
        case Resumed():
            return _ResumedNote(event.from_peer, event.to_peer, event.position, event.reason)


class Outlet:
    """Writes the frames of one answer to `stream`, spelled by `shape`."""

    def __init__(self, stream: FrameSink, shape: Shape, tally: Tally) -> None:
        self._stream = stream
        self._shape = shape
        self._tally = tally
        self._is_open = False

    @property
    def is_started(self) -> bool:
        """Whether the status is out."""
        return self._stream.is_started

    @property
    def is_complete(self) -> bool:
        """Whether the last frame is written."""
        return self._tally.is_complete

    async def start(self) -> None:
        """Send the status and the notes so far."""
        await self._stream.start(self._tally.headers())

    async def ping(self) -> None:
        """Show that the connection lives."""
        await self._stream.write(PING)

    async def note(self, event: Note) -> None:
        """Tell clients of dslm about `event`, at the start if there was none yet."""
        self._tally.add(event)
        await self._stream.note(note_of(event))

    async def tell(self, event: Delta | Completed) -> None:
        """Send the text that `event` adds, and all that ends the answer if it is the last."""
        pieces = self._tally.add(event)
        await self.start()
        frames = []
        if not self._is_open:
            self._is_open = True
            frames += [data_frame(chunk) for chunk in self._shape.opening(self._tally)]
        for piece in pieces:
            frames += [data_frame(chunk) for chunk in self._shape.pieces(self._tally, piece)]
        if self._tally.is_complete:
            frames += [data_frame(chunk) for chunk in self._shape.closing(self._tally)]
            frames.append(DONE)
        if frames:
            await self._stream.write(*frames)
