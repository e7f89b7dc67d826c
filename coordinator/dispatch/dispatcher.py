"""The thin shell around a run: starts attempts, waits for what they report, passes events on.

Knows tasks, a queue and the clock; must not decide anything (`coordinator.dispatch.run` does).
"""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

from coordinator.answer import AnswerEvent
from coordinator.dispatch.actions import Action, Drop, Emit, End, LookAgain, Predial, Start
from coordinator.dispatch.run import AnswerRun
from coordinator.ports import Answerer
from protocols.errors import DslmError, PeerLost, Refused
from protocols.ids import PeerId
from protocols.messages.ask import Ask, ServerMessage
from protocols.ports import Clock

INBOX_MAX = 64
"""Messages that wait for a slow client before the peers are made to wait."""


class Surroundings(Protocol):
    """What a run can have done for it."""

    def answerer(self, peer: PeerId) -> Answerer:
        """How to ask `peer`."""
        ...

    async def predial(self, peer: PeerId) -> None:
        """Open a connection to `peer` if possible; never raises a `DslmError`."""
        ...

    async def look_again(self) -> None:
        """Look for more replicas; never raises a `DslmError`."""
        ...


@dataclass(frozen=True, slots=True)
class _Arrived:
    number: int
    message: ServerMessage
    at: float


@dataclass(frozen=True, slots=True)
class _Failed:
    number: int
    error: DslmError


_Report = _Arrived | _Failed


class Dispatcher:
    """Attempts run as tasks of `tasks`, so they have a parent that outlives the requests."""

    def __init__(self, tasks: asyncio.TaskGroup, clock: Clock) -> None:
        self._tasks = tasks
        self._clock = clock

    async def carry_out(
        self, run: AnswerRun, surroundings: Surroundings
    ) -> AsyncGenerator[AnswerEvent, None]:
        """The events of one answer, ending with `Completed` or the run's error.

        Closing the generator cancels all attempts.
        """
        inbox: asyncio.Queue[_Report] = asyncio.Queue(INBOX_MAX)
        jobs: dict[object, asyncio.Task[None]] = {}
        actions = run.start(self._clock.monotonic())
        try:
            while True:
                for action in actions:
                    match action:
                        case Emit(event):
                            before = self._clock.monotonic()
                            yield event
                            run.paused(self._clock.monotonic() - before)
                        case End(None):
                            return
                        case End(error) if error is not None:
                            raise error
                        case _:
                            self._do(action, surroundings, inbox, jobs)
                actions = await self._next(run, inbox)
        finally:
            run.close()
            for job in jobs.values():
                job.cancel()

    def _do(
        self,
        action: Action,
        surroundings: Surroundings,
        inbox: "asyncio.Queue[_Report]",
        jobs: dict[object, "asyncio.Task[None]"],
    ) -> None:
        match action:
            case Start(number, peer, ask):
                answerer = surroundings.answerer(peer)
                self._spawn(number, self._pump(number, answerer, ask, inbox), jobs)
            case Drop(number):
                if number in jobs:
                    jobs[number].cancel()
            case Predial(peer):
                self._spawn(action, surroundings.predial(peer), jobs)
            case LookAgain():
                self._spawn(action, surroundings.look_again(), jobs)
            case _:
                raise AssertionError(f"{action!r} is the loop's business")

    def _spawn(
        self,
        name: object,
        work: Coroutine[Any, Any, None],
        jobs: dict[object, "asyncio.Task[None]"],
    ) -> None:
        """Run `work` beside the loop, unless it goes on already."""
        if name in jobs:
            work.close()
            return
        task = jobs[name] = self._tasks.create_task(work)
        task.add_done_callback(lambda _: jobs.pop(name, None))

    async def _next(self, run: AnswerRun, inbox: "asyncio.Queue[_Report]") -> list[Action]:
        wait = run.wake_at() - self._clock.monotonic()
        try:
            report = inbox.get_nowait() if inbox.qsize() else await _get(inbox, wait)
        except TimeoutError:
            return run.tick(self._clock.monotonic())
        now = self._clock.monotonic()
        match report:
            case _Arrived(number, message, at):
                return run.received(number, message, at, now)
            case _Failed(number, error):
                return run.failed(number, error, now)

    async def _pump(
        self, number: int, answerer: Answerer, ask: Ask, inbox: "asyncio.Queue[_Report]"
    ) -> None:
        """Everything that one attempt reports goes into the inbox, its failure last."""
        error: DslmError = PeerLost("the answer stopped before its end")
        try:
            async with aclosing(answerer.answer(ask)) as messages:
                async for message in messages:
                    await inbox.put(_Arrived(number, message, self._clock.monotonic()))
        except DslmError as failure:
            error = failure
        except Exception as defect:  # noqa: BLE001 - top of a task: a defect fails this attempt
            error = Refused(f"asking failed inside: {type(defect).__name__}")
            error.__cause__ = defect
        await inbox.put(_Failed(number, error))


async def _get(inbox: "asyncio.Queue[_Report]", wait: float) -> _Report:
    async with asyncio.timeout(max(0.0, wait)):
        return await inbox.get()
