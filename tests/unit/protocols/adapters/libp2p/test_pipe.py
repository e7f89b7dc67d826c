"""A pipe hands what arrives to the waiting task at once, and loses nothing when that task stops."""

import asyncio
from collections.abc import Callable
from contextvars import ContextVar

import pytest

from protocols.adapters.libp2p.pipe import READ_BUFFER_BYTES, Pipe

REQUEST: ContextVar[str] = ContextVar("request", default="nobody's")


class Wire(asyncio.Transport):
    """A socket that remembers what was done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_reading_now = True
        self.is_aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True

    def pause_reading(self) -> None:
        self.is_reading_now = False

    def resume_reading(self) -> None:
        self.is_reading_now = True


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def pipe(wire: Wire) -> Pipe:
    made = Pipe()
    made.connection_made(wire)
    return made


def bring(pipe: Pipe, data: bytes) -> None:
    """What asyncio does when a read of the socket brought `data`."""
    pipe.get_buffer(-1)[: len(data)] = data
    pipe.buffer_updated(len(data))


async def in_loop(call: Callable[[], None]) -> None:
    """Run `call` as the loop runs a callback, with no task current."""
    done = asyncio.Event()

    def run() -> None:
        try:
            call()
        finally:
            done.set()

    asyncio.get_running_loop().call_soon(run)
    await done.wait()


async def test_the_waiting_task_goes_on_before_the_loop_turns(pipe: Pipe, wire: Wire) -> None:
    async def echo() -> None:
        while len(wire.written) < len(b"onetwo"):
            await pipe.send(await pipe.receive(100))

    seen = []

    def arrive() -> None:
        for data in (b"one", b"two"):
            bring(pipe, data)
            seen.append(wire.written)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(echo())
        await asyncio.sleep(0)
        await in_loop(arrive)
    assert seen == [b"one", b"onetwo"]


async def test_the_task_keeps_its_context_and_its_identity(pipe: Pipe) -> None:
    seen: list[object] = []

    async def wait() -> None:
        REQUEST.set("mine")
        await pipe.receive(100)
        seen.extend([REQUEST.get(), asyncio.current_task()])

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(wait())
        await asyncio.sleep(0)
        await in_loop(lambda: bring(pipe, b"x"))
    assert seen == ["mine", task]
    assert REQUEST.get() == "nobody's"


async def test_a_task_that_fails_does_not_fail_the_loop(pipe: Pipe) -> None:
    async def fail() -> None:
        await pipe.receive(100)
        raise ValueError

    survived = []

    def arrive() -> None:
        bring(pipe, b"x")
        survived.append(True)

    with pytest.raises(ExceptionGroup) as failures:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail())
            await asyncio.sleep(0)
            await in_loop(arrive)
    assert failures.group_contains(ValueError)
    assert survived


async def test_the_task_may_abort_the_pipe_while_it_is_woken(pipe: Pipe, wire: Wire) -> None:
    async def give_up() -> None:
        await pipe.receive(100)
        pipe.abort()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(give_up())
        await asyncio.sleep(0)
        await in_loop(lambda: bring(pipe, b"x"))
    assert wire.is_aborted


@pytest.mark.parametrize("cancel_first", [True, False])
async def test_bytes_survive_a_cancelled_receive(pipe: Pipe, cancel_first: bool) -> None:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(pipe.receive(100))
        await asyncio.sleep(0)

        def arrive() -> None:
            if cancel_first:
                task.cancel()
            bring(pipe, b"kept")

        if not cancel_first:
            task.cancel()
            await asyncio.wait([task])
        await in_loop(arrive)
        await asyncio.wait([task])
    assert task.cancelled()
    assert await pipe.receive(100) == b"kept"


async def test_bytes_survive_a_timeout(pipe: Pipe) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await pipe.receive(100)
    bring(pipe, b"late")
    assert await pipe.receive(100) == b"late"


async def test_one_task_receives_at_a_time(pipe: Pipe) -> None:
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(pipe.receive(100))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError):
            await pipe.receive(100)
        await in_loop(lambda: bring(pipe, b"for the first"))
    assert first.result() == b"for the first"


async def test_an_orderly_end_wakes_the_waiting_task(pipe: Pipe) -> None:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(pipe.receive(100))
        await asyncio.sleep(0)
        assert pipe.eof_received()
    assert task.result() == b""


async def test_a_broken_connection_wakes_the_waiting_task(pipe: Pipe) -> None:
    async def wait() -> None:
        with pytest.raises(ConnectionResetError):
            await pipe.receive(100)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(wait())
        await asyncio.sleep(0)
        pipe.connection_lost(BrokenPipeError())


async def test_reading_pauses_while_too_much_lies_unread(pipe: Pipe, wire: Wire) -> None:
    seen = []
    for data in (b"a" * READ_BUFFER_BYTES, b"b"):
        bring(pipe, data)
        seen.append(wire.is_reading_now)
    assert await pipe.receive(READ_BUFFER_BYTES) == b"a" * READ_BUFFER_BYTES
    seen.append(wire.is_reading_now)
    assert seen == [True, False, True]
    assert await pipe.receive(100) == b"b"
