"""The thin shell around a chain: lets specialists answer, waits for what they say, passes it on.

Knows tasks and a queue; must not decide anything (`coordinator.chain.run` does), nor know how one
specialist is asked.
"""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from coordinator.answer import AnswerEvent, AnswerRequest
from coordinator.chain.actions import Action, Begin, Drop, Judge, Key, Prepare
from coordinator.chain.run import ChainRun
from coordinator.dispatch.actions import Emit, End
from coordinator.jobs import Jobs, relay
from protocols.errors import DslmError
from protocols.ids import SpecialistId
from protocols.ports import Clock

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


_Report = _Heard | _Failed
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
            case Judge():
                surroundings.judge(action)
            case _:
                raise AssertionError(f"{action!r} is the loop's business")
