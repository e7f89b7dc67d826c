"""What is known of one answer so far: who makes it, its text, its counts.

Knows the coordinator's events; must not know any endpoint's shape.

An answer by several specialists is one text. Before each one's words stands a line that says who
speaks, and where somebody fell silent a line that says why; with one specialist there are none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import UNSET, Struct, UnsetType

from coordinator.answer import (
    AnswerEvent,
    Completed,
    Delta,
    Planned,
    Resumed,
    Routed,
    StepEnded,
    StepStarted,
    Waiting,
)
from coordinator.routing.plan import Plan
from node.gateway.errors import SourceFailed
from node.gateway.reports import (
    Mark,
    Report,
    StepReport,
    activity_report,
    plan_report,
    share_reports,
    step_report,
)
from node.gateway.requests import Wanted
from protocols.messages.ask import Likelihood


class Usage(Struct, frozen=True):
    """OpenAI's token counts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Visible text, and how likely the tokens were that it comes from if the request asked.

    `mark` says whose words they are, if several specialists answer.
    """

    text: str = ""
    logprobs: tuple[Likelihood, ...] = ()
    mark: Mark | UnsetType = UNSET


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
        self._plan: Plan | None = None
        self._has_turns = False
        """Whether several specialists speak, one after the other."""
        self._started: dict[int, StepStarted] = {}
        self._said: dict[int, list[str]] = {}
        self._steps: list[StepReport] = []
        self._pending: list[Piece] = []
        """Lines that are said with the next words, so that an answer of lines alone is none."""
        self.specialist: str = wanted.ask.model
        """Who answers; until it is known, or if several do, the model that was asked for."""
        self.peer = ""

    def add(self, event: AnswerEvent) -> tuple[Piece, ...]:
        """Take in `event`; the visible text that it adds.

        Tokens whose text is held back are told of with the text that shows it, or not at all.
        """
        match event:
            case Routed():
                self.specialist, self.peer, self._why = event.specialist, event.peer, event.why
                self._plan = event.plan
            case Planned(plan):
                self._plan, self._why = plan, plan.why
                self._has_turns = plan.kind != "parallel" and len(plan.steps) > 1
            case StepStarted():
                self._start_step(event)
            case Resumed():
                self.peer = event.to_peer
                self._resumed += 1
            case Delta():
                self._ids += event.ids
                self._unseen += event.logprobs
                return self._add_text(event.text, event.step)
            case StepEnded():
                self._end_step(event)
            case Completed():
                self._completed = event
                if not self._has_turns:
                    self.specialist = event.specialist
                return self._add_text(event.text, 0) or self._add_pending()
            case Waiting():
                pass
        return ()

    def _start_step(self, event: StepStarted) -> None:
        self._started[event.index] = event
        self.peer = event.peer
        if self._has_turns:
            self._add_lines(event.index, [self._heading(event.index, event.specialist)], "\n\n")
        else:
            self.specialist = event.specialist

    def _end_step(self, event: StepEnded) -> None:
        if event.error:
            verb = "said no more" if event.tokens else "did not answer"
            lines = [f"({event.specialist} {verb}: {event.error})"]
            if self._has_turns and event.index not in self._started:
                lines.insert(0, self._heading(event.index, event.specialist))
            self._add_lines(event.index, lines)
        steps = self._plan.steps if self._plan else ()
        prompt = steps[event.index].prompt if event.index < len(steps) else ""
        text = "".join(self._said.get(event.index, ()))
        self._steps.append(step_report(event, self._started.get(event.index), prompt, text))

    def _heading(self, index: int, specialist: str) -> str:
        count = len(self._plan.steps) if self._plan else 0
        return f"-- {specialist} (step {index + 1} of {count}) --"

    def _add_lines(self, index: int, lines: Sequence[str], end: str = "") -> None:
        gap = "\n\n" if self._texts or self._pending else ""
        mark = Mark(index, self._name_of(index), heading=True)
        self._pending.append(Piece(gap + "\n\n".join(lines) + end, (), mark))

    def _name_of(self, index: int) -> str:
        started = self._started.get(index)
        if started is not None:
            return started.specialist
        return self._plan.steps[index].specialist if self._plan else ""

    def _add_text(self, text: str, step: int) -> tuple[Piece, ...]:
        if not text:
            return ()
        lines = self._add_pending()
        self._texts.append(text)
        self._said.setdefault(step, []).append(text)
        self._logprobs += self._unseen
        mark = Mark(step, self._name_of(step)) if self._has_turns else UNSET
        piece = Piece(text, tuple(self._unseen), mark)
        self._unseen.clear()
        return (*lines, piece)

    def _add_pending(self) -> tuple[Piece, ...]:
        lines = tuple(self._pending)
        self._texts += [line.text for line in lines]
        self._pending.clear()
        return lines

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
        steps = self._plan.steps if self._plan and self._has_turns else ()
        headers = {
            "x-dslm-model": ", ".join(step.specialist for step in steps) or self.specialist,
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
            peers=share_reports(last.shares),
            why=self._why,
            first_token_ms=round(last.first_token_seconds * 1_000, 1),
            tokens_per_second=round((last.completion_tokens - 1) / decode, 2) if measured else None,
            resumed=self._resumed,
            seed=self._wanted.ask.sampling.seed,
            token_ids=tuple(self._ids) if self._wanted.return_token_ids else UNSET,
            plan=plan_report(self._plan) if self._plan else UNSET,
            steps=tuple(self._steps) or UNSET,
            activity=activity_report(last.activity) if last.activity else UNSET,
        )
