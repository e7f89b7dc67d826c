"""The thin shell around a chain: lets specialists answer, waits for what they say, passes it on.

Knows tasks and a queue; must not decide anything (`coordinator.chain.run` does), nor know how one
specialist is asked.
"""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

from coordinator.answer import AnswerEvent, AnswerRequest
from coordinator.chain.actions import Action, Begin, Drop, Emit, End, Judge, Key, Prepare
from coordinator.chain.run import ChainRun
from protocols.errors import DslmError, PeerLost, Refused
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
_Jobs = dict[object, "asyncio.Task[None]"]


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
        jobs: _Jobs = {}
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
            for job in list(jobs.values()):
                job.cancel()

    def _hear(self, run: ChainRun, report: _Report) -> list[Action]:
        now = self._clock.monotonic()
        match report:
            case _Heard(key, event):
                return run.heard(key, event, now)
            case _Failed(key, error):
                return run.failed(key, error, now)

    def _do(self, action: Action, surroundings: Surroundings, inbox: _Inbox, jobs: _Jobs) -> None:
        match action:
            case Begin(key, specialist, request):
                answer = surroundings.answer(specialist, request)
                self._spawn(key, self._pump(key, answer, inbox), jobs)
            case Drop(key):
                if key in jobs:
                    jobs[key].cancel()
            case Prepare():
                self._spawn(action, surroundings.prepare(action), jobs)
            case Judge():
                surroundings.judge(action)
            case _:
                raise AssertionError(f"{action!r} is the loop's business")

    def _spawn(self, name: object, work: Coroutine[Any, Any, None], jobs: _Jobs) -> None:
        task = jobs[name] = self._tasks.create_task(work)

        def forget(done: "asyncio.Task[None]") -> None:
            if jobs.get(name) is done:  # else it was begun again meanwhile
                del jobs[name]

        task.add_done_callback(forget)

    async def _pump(
        self, key: Key, answer: AsyncGenerator[AnswerEvent, None], inbox: _Inbox
    ) -> None:
        """Everything that one try reports goes into the inbox, its failure last."""
        error: DslmError = PeerLost("the answer stopped before its end")
        try:
            async with aclosing(answer) as events:
                async for event in events:
                    await inbox.put(_Heard(key, event))
        except DslmError as failure:
            error = failure
        except Exception as defect:  # noqa: BLE001 - top of a task: a defect fails this step
            error = Refused(f"a step failed inside: {type(defect).__name__}")
            error.__cause__ = defect
        await inbox.put(_Failed(key, error))
