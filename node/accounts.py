"""Sums over all answers asked here: who was set to work, how much of what there was, what it moved.

Knows the coordinator's events; must not know prompts, words or who asked. Kept in memory since the
node started.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from coordinator.answer import (
    Activity,
    AnswerEvent,
    AnswerRequest,
    Completed,
    Planned,
    Resumed,
    Routed,
    StepEnded,
)
from node.metrics import AnswerFunction
from node.state import SCHEMA_VERSION
from node.work_state import SpecialistWork, StatsState
from protocols.ids import SpecialistId

SPECIALISTS_MAX = 1_024
"""Specialists that are told apart; more are counted together."""
OTHERS = SpecialistId("others")


@dataclass(slots=True)
class _Work:
    """What one specialist has done."""

    answers: int = 0
    """Whole ones, or steps of some."""
    failed: int = 0
    doubted: int = 0
    tokens: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class Accounts:
    """Of one node."""

    answers: int = 0
    failed: int = 0
    steps: int = 0
    resumed: int = 0
    tokens: int = 0
    activated: int = 0
    parameters: int = 0
    parameters_known: int = 0
    specialists_known: int = 0
    peers: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    bytes_of_pages: int = 0
    plans: dict[str, int] = field(default_factory=dict)
    """Answers by how it was decided who answers (`Routed.way`, or the kind of the plan)."""
    _work: dict[SpecialistId, _Work] = field(default_factory=dict)

    def observed(self, answer: AnswerFunction) -> AnswerFunction:
        """`answer`, with what it sets to work added up on the way."""

        async def observing(request: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:
            account = _Account(self)
            try:
                async with aclosing(answer(request)) as events:
                    async for event in events:
                        account.see(event)
                        yield event
            finally:
                account.close()

        return observing

    def work_of(self, specialist: SpecialistId) -> _Work:
        """Where the work of `specialist` is added up."""
        if specialist not in self._work and len(self._work) >= SPECIALISTS_MAX:
            specialist = OTHERS
        return self._work.setdefault(specialist, _Work())

    def add(self, activity: Activity) -> None:
        """One answer's."""
        self.activated += len(activity.specialists)
        self.specialists_known += activity.specialists_known
        self.parameters += activity.parameters
        self.parameters_known += activity.parameters_known
        self.peers += len(activity.peers)
        self.bytes_sent += activity.bytes_sent
        self.bytes_received += activity.bytes_received
        self.bytes_of_pages += activity.bytes_of_pages

    def state(self) -> StatsState:
        """The sums now, specialists by falling number of tokens."""
        ranked = sorted(self._work.items(), key=lambda item: (-item[1].tokens, item[0]))
        return StatsState(
            schema_version=SCHEMA_VERSION,
            answers=self.answers,
            failed=self.failed,
            steps=self.steps,
            resumed=self.resumed,
            tokens=self.tokens,
            specialists=self.activated,
            specialists_known=self.specialists_known,
            parameters=self.parameters,
            parameters_known=self.parameters_known,
            peers=self.peers,
            bytes_sent=self.bytes_sent,
            bytes_received=self.bytes_received,
            bytes_of_pages=self.bytes_of_pages,
            plans=dict(sorted(self.plans.items())),
            by_specialist=tuple(
                SpecialistWork(
                    name, work.answers, work.failed, work.doubted, work.tokens, work.seconds
                )
                for name, work in ranked
            ),
        )


class _Account:
    """Follows one answer. It counts when it is closed, or complete."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self._kind = ""
        self._has_steps = False
        self._specialist: SpecialistId | None = None
        self._is_complete = False

    def see(self, event: AnswerEvent) -> None:
        match event:
            case Routed():
                self._specialist = event.specialist
                self._kind = event.way
            case Planned(plan):
                self._kind, self._has_steps = plan.kind, True
            case Resumed():
                self._accounts.resumed += 1
            case StepEnded():
                self._add_step(event)
            case Completed():
                self._add_answer(event)
            case _:
                pass

    def close(self) -> None:
        accounts = self._accounts
        if self._kind:
            accounts.plans[self._kind] = accounts.plans.get(self._kind, 0) + 1
        if self._is_complete:
            return
        accounts.failed += 1
        if self._specialist is not None:
            accounts.work_of(self._specialist).failed += 1

    def _add_step(self, step: StepEnded) -> None:
        self._accounts.steps += 1
        work = self._accounts.work_of(step.specialist)
        work.answers += not step.error
        work.failed += bool(step.error)
        work.tokens += step.tokens
        work.seconds += step.seconds
        for other in step.others:
            theirs = self._accounts.work_of(other.specialist)
            theirs.doubted += bool(other.evidence and other.evidence.is_low)
            theirs.tokens += other.tokens

    def _add_answer(self, event: Completed) -> None:
        accounts, self._is_complete = self._accounts, True
        accounts.answers += 1
        accounts.tokens += event.completion_tokens
        if event.activity is not None:
            accounts.add(event.activity)
        if self._has_steps:
            return
        accounts.steps += 1
        work = accounts.work_of(event.specialist)
        work.answers += 1
        work.tokens += event.completion_tokens
        work.seconds += event.total_seconds
