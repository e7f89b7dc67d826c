"""The thin shell around a run: starts attempts, waits for what they report, passes events on.

Knows tasks, a queue and the clock; must not decide anything (`coordinator.dispatch.run` does).
"""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from coordinator.answer import AnswerEvent
from coordinator.dispatch.actions import Action, Drop, Emit, End, LookAgain, Predial, Start
from coordinator.dispatch.run import AnswerRun
from coordinator.jobs import Jobs, relay
from coordinator.ports import Answerer
from protocols.errors import DslmError
from protocols.ids import PeerId
from protocols.messages.ask import ServerMessage
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
_Inbox = asyncio.Queue[_Report]


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
        inbox: _Inbox = asyncio.Queue(INBOX_MAX)
        jobs = Jobs(self._tasks)
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
            jobs.close()

    def _do(self, action: Action, surroundings: Surroundings, inbox: _Inbox, jobs: Jobs) -> None:
        match action:
            case Start(number, peer, ask):
                messages = surroundings.answerer(peer).answer(ask)

                def arrived(message: ServerMessage) -> _Report:
                    return _Arrived(number, message, self._clock.monotonic())

                jobs.spawn(number, relay(messages, inbox, arrived, partial(_Failed, number)))
            case Drop(number):
                jobs.cancel(number)
            case Predial(peer):
                jobs.spawn(action, surroundings.predial(peer))
            case LookAgain():
                jobs.spawn(action, surroundings.look_again())
            case _:
                raise AssertionError(f"{action!r} is the loop's business")

    async def _next(self, run: AnswerRun, inbox: _Inbox) -> list[Action]:
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


async def _get(inbox: _Inbox, wait: float) -> _Report:
    async with asyncio.timeout(max(0.0, wait)):
        return await inbox.get()
