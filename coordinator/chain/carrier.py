"""The thin shell around a chain: lets specialists answer, waits for what they say, passes it on.

Knows tasks and a queue; must not decide anything (`coordinator.chain.run` does), nor know how one
specialist is asked.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from coordinator.answer import AnswerEvent, AnswerRequest
from coordinator.chain.actions import Action, Begin, Compare, Drop, Judge, Key, Prepare
from coordinator.chain.run import ChainRun
from coordinator.dispatch.actions import Emit, End
from coordinator.jobs import Jobs, relay
from coordinator.opinion import Question
from protocols.errors import DslmError
from protocols.ids import SpecialistId
from protocols.ports import Clock

_log = logging.getLogger(__name__)

INBOX_MAX = 64
"""Events that wait for a slow client before the specialists are made to wait."""


class Surroundings(Protocol):
    """What a chain can have done for it."""

    def answer(
        self, specialist: SpecialistId, request: AnswerRequest
    ) -> AsyncGenerator[AnswerEvent, None]:
        """The events of one specialist's answer, from `Routed` to `Completed` or a `DslmError`."""
        ...

    async def prepare(self, wanted: Prepare) -> None:
        """Make whoever is going to be asked next ready; never raises a `DslmError`."""
        ...

    async def opinion(self, question: Question) -> float | None:
        """How likely the base finds what was said; None if it cannot be asked in time."""
        ...

    def judge(self, verdict: Judge) -> None:
        """Remember how sure a specialist was of its answer."""
        ...


@dataclass(frozen=True, slots=True)
class _Heard:
    key: Key
    event: AnswerEvent


@dataclass(frozen=True, slots=True)
class _Failed:
    key: Key
    error: DslmError


@dataclass(frozen=True, slots=True)
class _Compared:
    key: Key
    base: float | None


_Report = _Heard | _Failed | _Compared
_Inbox = asyncio.Queue[_Report]


class Carrier:
    """Answers run as tasks of `tasks`, so they have a parent that outlives the requests."""

    def __init__(self, tasks: asyncio.TaskGroup, clock: Clock) -> None:
        self._tasks = tasks
        self._clock = clock

    async def carry_out(
        self, run: ChainRun, surroundings: Surroundings
    ) -> AsyncGenerator[AnswerEvent, None]:
        """The events of the whole answer, ending with `Completed` or the chain's error.

        Closing the generator cancels every step.
        """
        inbox: _Inbox = asyncio.Queue(INBOX_MAX)
        jobs = Jobs(self._tasks)
        actions = run.start(self._clock.monotonic())
        try:
            while True:
                for action in actions:
                    match action:
                        case Emit(event):
                            yield event
                        case End(None):
                            return
                        case End(error) if error is not None:
                            raise error
                        case _:
                            self._do(action, surroundings, inbox, jobs)
                actions = self._hear(run, await inbox.get())
        finally:
            run.close()
            jobs.close()

    def _hear(self, run: ChainRun, report: _Report) -> list[Action]:
        now = self._clock.monotonic()
        match report:
            case _Heard(key, event):
                return run.heard(key, event, now)
            case _Failed(key, error):
                return run.failed(key, error, now)
            case _Compared(key, base):
                return run.compared(key, base, now)

    def _do(self, action: Action, surroundings: Surroundings, inbox: _Inbox, jobs: Jobs) -> None:
        match action:
            case Begin(key, specialist, request):
                answer = surroundings.answer(specialist, request)
                arrived, failed = partial(_Heard, key), partial(_Failed, key)
                jobs.spawn(key, relay(answer, inbox, arrived, failed))
            case Drop(key):
                jobs.cancel(key)
            case Prepare():
                jobs.spawn(action, surroundings.prepare(action))
            case Compare(key, question):
                jobs.spawn(action, _compare(key, question, surroundings, inbox))
            case Judge():
                surroundings.judge(action)
            case _:
                raise AssertionError(f"{action!r} is the loop's business")


async def _compare(key: Key, question: Question, surroundings: Surroundings, inbox: _Inbox) -> None:
    """The top of a task: whatever happens the chain hears, for it waits for this."""
    base: float | None = None
    try:
        base = await surroundings.opinion(question)
    # The top of a task: a defect costs the opinion, not the answer.
    except Exception:  # noqa: BLE001
        _log.exception("the base's opinion of %s could not be had", question.specialist)
    await inbox.put(_Compared(key, base))
