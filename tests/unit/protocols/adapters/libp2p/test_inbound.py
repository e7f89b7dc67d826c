"""Inbound streams: who gets a handler, and how long they may keep it waiting."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import cast

import pytest
from hivemind.p2p import PeerID
from hivemind.proto import p2pd_pb2

from protocols import limits
from protocols.adapters.clock import ManualClock
from protocols.adapters.libp2p.daemon import Daemon
from protocols.adapters.libp2p.inbound import Inbound
from protocols.adapters.libp2p.pipe import Pipe
from protocols.adapters.libp2p.stream import Libp2pStream
from protocols.adapters.libp2p.turnstile import Turnstile
from protocols.errors import PeerLost
from protocols.ids import PeerId
from protocols.ports import Stream, StreamHandler
from protocols.signing import Identity

HERE = "/test/here/1"
PEER = Identity(b"p" * 32).peer_id
DAEMON = cast("Daemon", object())


class FakePipe:
    """What p2pd sends about a stream; nothing comes after it unless a test says so."""

    def __init__(self, peer: PeerId = PEER, protocol: str = HERE, data: bytes | None = None):
        info = p2pd_pb2.StreamInfo(
            peer=PeerID.from_base58(peer).to_bytes(), addr=b"", proto=protocol
        ).SerializeToString()
        self._data = bytes([len(info)]) + info if data is None else data
        self.bytes_received = 0
        self.bytes_sent = 0
        self._is_aborted = False

    async def receive_exactly(self, count: int) -> bytes:
        data, self._data = self._data[:count], self._data[count:]
        if len(data) < count:
            raise EOFError
        self.bytes_received += count
        return data

    def abort(self) -> None:
        self._is_aborted = True

    def was_aborted(self) -> bool:
        return self._is_aborted


class FakeStream:
    """A stream whose end the handler feels."""

    def __init__(self, peer: PeerId, pipe: FakePipe) -> None:
        self.peer = peer
        self._pipe = pipe
        self._over = asyncio.Event()
        self.is_closed = False

    async def receive(self, _max_bytes: int = 1) -> bytes:
        await self._over.wait()
        raise PeerLost("over")

    async def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self._pipe.abort()
        self._over.set()


class World:
    """An `Inbound` under a clock that stands still."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.clock = ManualClock()
        self.turnstile = Turnstile(self.clock)
        self.streams: list[FakeStream] = []
        self.inbound = Inbound(tasks, self.turnstile, self.clock, self._make)

    def _make(self, peer: PeerId, pipe: Pipe, _daemon: Daemon) -> Libp2pStream:
        stream = FakeStream(peer, cast("FakePipe", pipe))
        self.streams.append(stream)
        return cast("Libp2pStream", stream)

    async def bring(self, pipe: FakePipe) -> FakePipe:
        self.inbound.accept(DAEMON, cast("Pipe", pipe))
        await settle()
        return pipe

    async def serve(self, handler: StreamHandler) -> None:
        self.inbound.handlers[HERE] = handler


@pytest.fixture
async def world() -> AsyncGenerator[World, None]:
    async with asyncio.TaskGroup() as tasks:
        made = World(tasks)
        await made.serve(hold)
        yield made
        await made.inbound.close()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def hold(stream: Stream) -> None:
    await stream.receive()


async def test_a_stream_is_served_and_closed(world: World) -> None:
    served: list[PeerId] = []

    async def serve(stream: Stream) -> None:
        served.append(stream.peer)

    await world.serve(serve)
    pipe = await world.bring(FakePipe())
    assert served == [PEER]
    assert world.streams[0].is_closed
    assert not pipe.was_aborted()
    assert repr(world.turnstile) == "<Turnstile 0 streams, 0 requests>"


@pytest.mark.parametrize(
    "pipe",
    [
        FakePipe(protocol="/test/elsewhere/1"),
        FakePipe(data=b""),
        FakePipe(data=b"\x05abc"),
        FakePipe(data=b"\x03abc"),
        FakePipe(data=b"\xff\xff\xff\xff\x7f"),
    ],
)
async def test_what_cannot_be_served_is_broken_off(world: World, pipe: FakePipe) -> None:
    await world.bring(pipe)
    assert pipe.was_aborted()
    assert world.streams == []


async def test_silence_after_opening(world: World) -> None:
    pipe = await world.bring(FakePipe())
    world.clock.advance(limits.FIRST_MESSAGE_SECONDS - 0.1)
    world.inbound.sweep()
    assert not pipe.was_aborted()
    world.clock.advance(0.2)
    world.inbound.sweep()
    assert pipe.was_aborted()
    await settle()
    assert repr(world.turnstile) == "<Turnstile 0 streams, 0 requests>", "the seat is free again"


async def test_a_first_word_that_came_at_once_is_heard(world: World) -> None:
    pipe = await world.bring(FakePipe())
    pipe.bytes_received += 1
    for _ in range(50):
        world.clock.advance(1)
        world.inbound.sweep()
        assert not pipe.was_aborted()
    world.clock.advance(limits.STREAM_IDLE_SECONDS - 48.5)
    world.inbound.sweep()
    assert pipe.was_aborted()


@pytest.mark.parametrize("direction", ["bytes_received", "bytes_sent"])
async def test_a_byte_in_either_direction_keeps_a_stream(world: World, direction: str) -> None:
    pipe = await world.bring(FakePipe())
    pipe.bytes_received += 1
    for _ in range(10):
        world.clock.advance(limits.STREAM_IDLE_SECONDS - 1)
        setattr(pipe, direction, getattr(pipe, direction) + 1)
        world.inbound.sweep()
        assert not pipe.was_aborted()
    world.clock.advance(limits.STREAM_IDLE_SECONDS + 1)
    world.inbound.sweep()
    assert pipe.was_aborted()


async def test_a_peer_that_sends_too_much_loses_its_stream(world: World) -> None:
    pipe, quiet = await world.bring(FakePipe()), await world.bring(FakePipe(PEER))
    pipe.bytes_received += int(limits.STREAM_BYTES_BURST) + 1
    world.inbound.sweep()
    assert pipe.was_aborted()
    assert not quiet.was_aborted()


async def test_more_streams_than_a_peer_may_have_are_broken_off(world: World) -> None:
    pipes = [await world.bring(FakePipe()) for _ in range(100)]
    assert sum(not pipe.was_aborted() for pipe in pipes) == limits.STREAMS_IN_PER_PEER_MAX


async def test_a_defect_is_told_once_in_a_while_and_without_its_text(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def fail(_stream: Stream) -> None:
        raise LookupError("part of a prompt")

    await world.serve(fail)
    for _ in range(50):
        pipe = await world.bring(FakePipe())
        assert pipe.was_aborted()
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert 0 < len(warnings) < 10
    assert "LookupError at test_inbound.py" in caplog.text
    assert "prompt" not in caplog.text


async def test_a_peer_s_fault_is_no_warning(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async def lose(_stream: Stream) -> None:
        raise PeerLost("gone")

    await world.serve(lose)
    pipe = await world.bring(FakePipe())
    assert pipe.was_aborted()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_nothing_is_accepted_after_the_end(world: World) -> None:
    pipe = await world.bring(FakePipe())
    await world.inbound.close()
    assert pipe.was_aborted()
    assert (await world.bring(FakePipe())).was_aborted()
