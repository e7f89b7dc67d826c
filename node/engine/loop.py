"""One thread that steps an engine, and its asyncio side.

Knows threads, queues and the engine's contract; must not know torch or what tokens mean. The event
loop never waits for the engine: commands go over in a queue, tokens come back once per step.
"""

import asyncio
import contextlib
import logging
import queue
import threading
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from node.engine.base import (
    Ended,
    Engine,
    EngineRequest,
    EngineStatistics,
    Generated,
    StepOutput,
)
from node.engine.errors import EngineFailed
from protocols.errors import DslmError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Submit:
    request: EngineRequest


@dataclass(frozen=True, slots=True)
class _Cancel:
    ticket: str


@dataclass(frozen=True, slots=True)
class _Between:
    """Work for the engine's thread, between two steps."""

    work: Callable[[], None]


@dataclass(frozen=True, slots=True)
class _Stop:
    pass


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why there are no answers. Each waiting answer gets an exception of its own."""

    message: str
    cause: Exception | None = None

    def as_error(self) -> EngineFailed:
        error = EngineFailed(self.message)
        error.__cause__ = self.cause
        return error


_Command = _Submit | _Cancel | _Between | _Stop
_Item = StepOutput | DslmError
_DeliveryT = TypeVar("_DeliveryT")
_ResultT = TypeVar("_ResultT")


class Generation:
    """One request in the engine, for one reader."""

    def __init__(
        self, request_id: str, answer: "asyncio.Queue[_Item]", forget: Callable[[], None]
    ) -> None:
        self._request_id = request_id
        self._answer = answer
        self._forget = forget

    async def next(self) -> Generated | Ended:
        """Wait for the next output; after `Ended`, or an error, there is none.

        The engine's refusals (`TooLong`, `Unsupported`, `ProtocolError`) are raised here, and
        `EngineFailed` when the engine broke or was stopped. Safe to cancel: an output that was not
        returned is returned by the next call.
        """
        item = await self._answer.get()
        if isinstance(item, DslmError):
            raise item
        return replace(item, request_id=self._request_id)

    def close(self) -> None:
        """Forget the answer and free what it holds before the next step; harmless at any time."""
        self._forget()


class EngineLoop:
    """Owns an engine from `start` to `close`; all methods belong to one event loop."""

    def __init__(self, engine: Engine, name: str = "engine") -> None:
        self._engine = engine
        self._name = name
        self._context_length = engine.context_length
        self._statistics = engine.statistics()
        self._commands: queue.SimpleQueue[_Command] = queue.SimpleQueue()
        self._answers: dict[str, asyncio.Queue[_Item]] = {}
        self._between: set[asyncio.Future[Any]] = set()
        self._tickets = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._failure: _Failure | None = _Failure("The engine has not been started.")

    def __repr__(self) -> str:
        return f"<EngineLoop {self._name} healthy={self.healthy} answers={len(self._answers)}>"

    @property
    def context_length(self) -> int:
        """The most tokens, prompt and answer together, that one request can have."""
        return self._context_length

    @property
    def healthy(self) -> bool:
        """Whether `generate` can succeed: started, not closed, and the thread has not failed."""
        return self._failure is None

    def statistics(self) -> EngineStatistics:
        """As of the end of the last step, or the last command when idle; any thread may ask."""
        return self._statistics

    async def start(self) -> None:
        """Start the thread. Once only."""
        if self._thread is not None:
            raise RuntimeError("an EngineLoop starts once")
        self._loop = asyncio.get_running_loop()
        self._failure = None
        # Daemon: an interpreter that dies without `close` must not hang on this thread.
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Fail what is under way, end the thread after its present step and free the engine.

        Harmless when called again or before `start`.
        """
        self._fail(_Failure("The engine was stopped."))
        if self._thread is None:
            self._engine.close()
        else:
            self._commands.put(_Stop())
            await asyncio.to_thread(self._thread.join)

    def submit(self, request: EngineRequest) -> "Generation":
        """Hand a request to the engine's thread; `EngineFailed` when there is none to take it.

        Request ids need not be unique: each call gets its own ticket in the engine.
        """
        if self._failure is not None:
            raise self._failure.as_error()
        self._tickets += 1
        ticket = f"{self._name}-{self._tickets}"
        answer: asyncio.Queue[_Item] = asyncio.Queue()
        self._answers[ticket] = answer
        self._commands.put(_Submit(replace(request, request_id=ticket)))
        return Generation(request.request_id, answer, lambda: self._forget(ticket))

    async def generate(self, request: EngineRequest) -> AsyncGenerator[Generated | Ended, None]:
        """The tokens of one answer and, last, its `Ended`.

        As `submit` and `Generation.next`, from the moment the first item is asked for. Closing or
        cancelling the generator frees everything before the engine's next step.
        """
        generation = self.submit(request)
        try:
            while True:
                output = await generation.next()
                yield output
                if isinstance(output, Ended):
                    return
        finally:
            generation.close()

    async def between_steps(self, work: Callable[[], _ResultT]) -> _ResultT:
        """What `work` returns or raises, called in the engine's thread between two steps.

        It should take a few milliseconds at most: answers wait. `EngineFailed` if there is no
        engine, or none any more. Work whose caller was cancelled before its turn is not done.
        """
        if self._failure is not None or self._loop is None:
            raise (self._failure or _Failure("The engine has not been started.")).as_error()
        done: asyncio.Future[_ResultT] = self._loop.create_future()
        self._between.add(done)
        done.add_done_callback(self._between.discard)

        def settle(outcome: "_ResultT | Exception") -> None:
            if done.done():
                return
            if isinstance(outcome, Exception):
                done.set_exception(outcome)
            else:
                done.set_result(outcome)

        def carry_out() -> None:
            if done.cancelled():
                return
            outcome: _ResultT | Exception
            try:
                outcome = work()
            # The caller gets it, in the task that waits.
            except Exception as error:  # noqa: BLE001
                outcome = error
            self._call(settle, outcome)

        self._commands.put(_Between(carry_out))
        return await done

    def _forget(self, ticket: str) -> None:
        if self._answers.pop(ticket, None) is not None:
            self._commands.put(_Cancel(ticket))

    # From here to the end of the class: what the two sides do.

    def _run(self) -> None:
        """The thread."""
        try:
            while self._obey():
                if self._engine.has_work:
                    outputs = self._engine.step()
                    self._statistics = self._engine.statistics()
                    self._hand_over(outputs)
        # The top of the thread: whatever broke, every waiting answer must hear of it.
        except Exception as error:  # noqa: BLE001
            _log.exception("the engine %s failed", self._name)
            self._hand_over_failure(error)
        finally:
            self._engine.close()

    def _obey(self) -> bool:
        """Carry out commands, waiting for one when there is nothing else to do; False to stop."""
        while True:
            try:
                command = self._commands.get(block=not self._engine.has_work)
            except queue.Empty:
                return True
            match command:
                case _Submit():
                    self._submit(command.request)
                case _Cancel():
                    self._engine.cancel(command.ticket)
                case _Between():
                    command.work()
                case _Stop():
                    return False
            self._statistics = self._engine.statistics()

    def _submit(self, request: EngineRequest) -> None:
        try:
            self._engine.submit(request)
        except DslmError as error:
            self._call(self._deliver, {request.request_id: [error]})

    def _hand_over(self, outputs: Sequence[StepOutput]) -> None:
        if outputs:
            items: dict[str, list[_Item]] = defaultdict(list)
            for output in outputs:
                items[output.request_id].append(output)
            self._call(self._deliver, items)

    def _hand_over_failure(self, error: Exception) -> None:
        self._call(self._fail, _Failure(f"The engine failed: {error}", error))

    def _call(self, callback: Callable[[_DeliveryT], None], delivery: _DeliveryT) -> None:
        """Run `callback` in the event loop; a loop that is gone has nobody left to tell."""
        if self._loop is None:
            raise RuntimeError("the engine's thread runs before `start`")
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, delivery)

    def _deliver(self, items: Mapping[str, Sequence[_Item]]) -> None:
        """In the event loop: hand items to the answers that are still wanted."""
        for ticket, parts in items.items():
            answer = self._answers.get(ticket)
            if answer is not None:
                for part in parts:
                    answer.put_nowait(part)

    def _fail(self, failure: _Failure) -> None:
        """In the event loop: end all answers, and refuse new ones from now on."""
        self._failure = failure
        for answer in self._answers.values():
            answer.put_nowait(failure.as_error())
        for waiting in tuple(self._between):
            if not waiting.done():
                waiting.set_exception(failure.as_error())
