"""The ask protocol end to end in one process: service, stream handler, network, remote answerer."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

import pytest

from coordinator.asking import RemoteAnswerer
from node.services.ask_stream import FIRST_MESSAGE_SECONDS, SEND_SECONDS, AskStream
from node.services.info import IDLE_SECONDS, InfoStream
from protocols import versions
from protocols.adapters.memory import MemoryNetwork, MemoryPeer
from protocols.adapters.virtual import LoopClock, run_virtual
from protocols.channel import Channel
from protocols.codec import encode
from protocols.errors import Busy, DslmError, PeerLost, ProtocolError, Refused, TooLong, Unsupported
from protocols.ids import PeerId
from protocols.messages.ask import (
    Accepted,
    Ask,
    Cancel,
    Finished,
    Refusal,
    Sampling,
    ServerMessage,
    Text,
    Tokens,
)
from protocols.messages.info import InfoReply, InfoRequest, Load
from protocols.signing import Identity

ASK = Ask("r1", 0, "tale", Text("tell"), Sampling(), max_tokens=0, budget=60.0)
ONE = (
    Accepted(4, 64, "d"),
    Tokens(0, (1,), "a"),
    Tokens(1, (2,), "b"),
    Finished("stop", "", 4, 2),
)


@dataclass
class Script:
    """An `Answerer` that says `messages`, one a second, then raises or hangs if told to."""

    messages: tuple[ServerMessage, ...] = ONE
    error: DslmError | None = None
    hangs: bool = False
    asked: list[Ask] = field(default_factory=list)
    askers: list[PeerId | None] = field(default_factory=list)
    closed: int = 0

    async def answer(
        self, ask: Ask, peer: PeerId | None = None
    ) -> AsyncGenerator[ServerMessage, None]:
        self.asked.append(ask)
        self.askers.append(peer)
        try:
            for message in self.messages:
                await asyncio.sleep(1)
                yield message
            if self.hangs:
                await asyncio.Event().wait()
            if self.error:
                raise self.error
        finally:
            self.closed += 1


Story = Callable[[MemoryPeer, MemoryPeer, MemoryNetwork], Awaitable[None]]


def play(script: Script, story: Story) -> None:
    """Run `story` with a client and a peer that serves `script`, in virtual time."""

    async def main() -> None:
        async with MemoryNetwork(1, LoopClock()) as network:
            client, server = (network.join(Identity(bytes([n] * 32))) for n in (1, 2))
            await server.transport.serve(versions.ASK, AskStream(script))
            await story(client, server, network)
        assert network.defects == []

    run_virtual(main(), limit_seconds=600)


def remote(client: MemoryPeer, server: MemoryPeer) -> RemoteAnswerer:
    return RemoteAnswerer(client.transport, server.peer_id, server.transport.addresses())


def test_the_messages_arrive_as_they_were_said() -> None:
    script = Script()

    async def story(client: MemoryPeer, server: MemoryPeer, _: MemoryNetwork) -> None:
        async with aclosing(remote(client, server).answer(ASK)) as messages:
            assert tuple([one async for one in messages]) == ONE

        assert script.askers == [client.peer_id]

    play(script, story)
    assert script.asked == [ASK]
    assert script.closed == 1


@pytest.mark.parametrize(
    "error",
    [Busy("full", 3.0), TooLong(10, 12), Unsupported("no template"), Refused("broken inside")],
)
def test_a_refusal_is_raised_as_its_error(error: DslmError) -> None:
    async def story(client: MemoryPeer, server: MemoryPeer, _: MemoryNetwork) -> None:
        with pytest.raises(type(error)) as refused:
            async with aclosing(remote(client, server).answer(ASK)) as messages:
                async for _message in messages:
                    pass
        if isinstance(error, Busy) and isinstance(refused.value, Busy):
            assert refused.value.retry_after == error.retry_after

    play(Script(messages=(), error=error), story)


def test_a_client_that_stops_listening_stops_the_generation() -> None:
    script = Script(messages=ONE[:2], hangs=True)

    async def story(client: MemoryPeer, server: MemoryPeer, _: MemoryNetwork) -> None:
        async with aclosing(remote(client, server).answer(ASK)) as messages:
            async for message in messages:
                if isinstance(message, Tokens):
                    break
        await asyncio.sleep(1)
        assert script.closed == 1

    play(script, story)


def test_a_client_that_dies_stops_the_generation() -> None:
    script = Script(messages=ONE[:2], hangs=True)

    async def story(client: MemoryPeer, server: MemoryPeer, network: MemoryNetwork) -> None:
        stream = await client.transport.open_stream(
            server.peer_id, versions.ASK, server.transport.addresses()
        )
        await stream.send(encode(ASK))
        await asyncio.sleep(3)
        assert script.closed == 0
        network.kill(client.peer_id)
        await asyncio.sleep(1)
        assert script.closed == 1

    play(script, story)


def test_a_peer_that_dies_is_lost() -> None:
    async def story(client: MemoryPeer, server: MemoryPeer, network: MemoryNetwork) -> None:
        with pytest.raises(PeerLost):
            async with aclosing(remote(client, server).answer(ASK)) as messages:
                async for message in messages:
                    if isinstance(message, Tokens):
                        network.kill(server.peer_id)

    play(Script(hangs=True), story)


@pytest.mark.parametrize(
    "nonsense",
    [b"\xff" * 64, encode(Cancel()), encode(Refusal("busy")), b"GET / HTTP/1.1\r\n\r\n"],
    ids=["noise", "cancel first", "server's message", "http"],
)
def test_nonsense_is_refused_and_nothing_is_generated(nonsense: bytes) -> None:
    script = Script()

    async def story(client: MemoryPeer, server: MemoryPeer, _: MemoryNetwork) -> None:
        stream = await client.transport.open_stream(
            server.peer_id, versions.ASK, server.transport.addresses()
        )
        await stream.send(nonsense)
        channel: Channel[ServerMessage] = Channel(stream, ServerMessage)
        answer = await channel.receive()
        assert isinstance(answer, Refusal)
        assert answer.code == "unsupported"

    play(script, story)
    assert script.asked == []


def test_asking_twice_on_one_stream_ends_it() -> None:
    script = Script(messages=ONE[:2], hangs=True)

    async def story(client: MemoryPeer, server: MemoryPeer, _: MemoryNetwork) -> None:
        stream = await client.transport.open_stream(
            server.peer_id, versions.ASK, server.transport.addresses()
        )
        await stream.send(encode(ASK) + encode(ASK))
        channel: Channel[ServerMessage] = Channel(stream, ServerMessage)
        with pytest.raises((PeerLost, ProtocolError)):
            while await channel.receive() is not None:
                pass
            raise PeerLost("ended in order")

    play(script, story)
    assert script.closed == len(script.asked)


def test_a_client_that_says_nothing_is_dropped() -> None:
    async def story(client: MemoryPeer, server: MemoryPeer, _: MemoryNetwork) -> None:
        stream = await client.transport.open_stream(
            server.peer_id, versions.ASK, server.transport.addresses()
        )
        started = asyncio.get_running_loop().time()
        with pytest.raises(PeerLost):
            if await stream.receive() == b"":
                raise PeerLost("ended")
        waited = asyncio.get_running_loop().time() - started
        assert FIRST_MESSAGE_SECONDS <= waited < FIRST_MESSAGE_SECONDS + 1

    play(Script(), story)


def test_a_client_that_drips_is_dropped_in_a_bounded_time() -> None:
    """It takes a little before each single wait is too long, and would hold its place for ever."""
    text = "x" * 200_000
    script = Script((ONE[0], *(Tokens(n, (1,), text) for n in range(60))), hangs=True)

    async def story(client: MemoryPeer, server: MemoryPeer, _: MemoryNetwork) -> None:
        stream = await client.transport.open_stream(
            server.peer_id, versions.ASK, server.transport.addresses()
        )
        await stream.send(encode(ASK))
        now = asyncio.get_running_loop().time
        started = now()
        while script.closed == 0:
            await asyncio.sleep(SEND_SECONDS / 10)
            with suppress(PeerLost):
                await stream.receive(10_000)
            assert now() - started < 4 * SEND_SECONDS
        assert now() - started > SEND_SECONDS

    play(script, story)


def test_info_answers_each_nonce_and_drops_the_idle() -> None:
    def describe(nonce: int) -> InfoReply:
        return InfoReply(nonce, "0.1.0", "lab", versions.ALL, (), Load(), 0.0)

    async def story(client: MemoryPeer, server: MemoryPeer, _: MemoryNetwork) -> None:
        await server.transport.serve(versions.INFO, InfoStream(describe))
        stream = await client.transport.open_stream(
            server.peer_id, versions.INFO, server.transport.addresses()
        )
        channel: Channel[InfoReply] = Channel(stream, InfoReply)
        for nonce in (7, 8):
            await channel.send(InfoRequest(nonce))
            reply = await channel.receive()
            assert reply is not None
            assert reply.nonce == nonce
        await asyncio.sleep(IDLE_SECONDS + 1)
        with pytest.raises(PeerLost):
            await channel.send(InfoRequest(9))
            if await channel.receive() is None:
                raise PeerLost("ended")

    play(Script(), story)
