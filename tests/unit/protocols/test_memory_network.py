"""The memory network: delay, order, backpressure, death, freezing, partition, loss, by seed."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from protocols.adapters.memory import Conditions, MemoryNetwork, MemoryPeer
from protocols.adapters.memory.address import address_of
from protocols.adapters.virtual import LoopClock, run_virtual
from protocols.errors import PeerLost, PeerUnreachable, TransportDown
from protocols.ports import Stream
from protocols.signing import Identity

ECHO = "/test/echo/1"
IDENTITIES = [Identity(bytes([number]) * 32) for number in range(8)]
STEADY = Conditions(delay_min=0.01, delay_max=0.01, jitter=0.0, dead_after=20.0)

Test = Callable[[MemoryNetwork, MemoryPeer, MemoryPeer], Awaitable[None]]


async def echo(stream: Stream) -> None:
    while data := await stream.receive():
        await stream.send(data)


def run_pair(test: Test, conditions: Conditions = STEADY) -> None:
    """Run `test` with two peers, of which the second echoes; handlers must have no defects."""

    async def main() -> None:
        async with MemoryNetwork(1, LoopClock(), conditions) as network:
            client, server = network.join(IDENTITIES[0]), network.join(IDENTITIES[1])
            await server.transport.serve(ECHO, echo)
            await test(network, client, server)
            assert network.defects == []

    run_virtual(main())


async def open_echo(client: MemoryPeer, server: MemoryPeer) -> Stream:
    return await client.transport.open_stream(server.peer_id, ECHO, server.transport.addresses())


def now() -> float:
    return asyncio.get_running_loop().time()


def test_bytes_take_their_time() -> None:
    async def test(_: MemoryNetwork, client: MemoryPeer, server: MemoryPeer) -> None:
        stream = await open_echo(client, server)
        assert now() == pytest.approx(0.04)  # dial, then open: a round trip each
        await stream.send(b"hello")
        assert await stream.receive() == b"hello"
        assert now() == pytest.approx(0.06)
        second = await open_echo(client, server)
        assert now() == pytest.approx(0.08)  # the connection is there already
        await second.close()

    run_pair(test)


def test_a_slow_reader_holds_the_writer_up() -> None:
    async def test(_: MemoryNetwork, client: MemoryPeer, server: MemoryPeer) -> None:
        release, got = asyncio.Event(), bytearray()

        async def lazy(stream: Stream) -> None:
            await release.wait()
            while data := await stream.receive(1_000):
                got.extend(data)

        await server.transport.serve("/test/lazy/1", lazy)
        stream = await client.transport.open_stream(
            server.peer_id, "/test/lazy/1", server.transport.addresses()
        )
        payload = bytes(range(256)) * 1_024
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30.0):
                await stream.send(payload)
        release.set()
        await stream.send(b"end")
        await stream.close()
        await asyncio.sleep(30.0)
        assert bytes(got[: STEADY.window]) == payload[: STEADY.window]
        assert got.endswith(b"end")

    run_pair(test)


def test_death_breaks_streams_and_cancels_handlers() -> None:
    async def test(network: MemoryNetwork, client: MemoryPeer, server: MemoryPeer) -> None:
        cancelled = []

        async def hang(_: Stream) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.append(True)

        await server.transport.serve("/test/hang/1", hang)
        stream = await client.transport.open_stream(
            server.peer_id, "/test/hang/1", server.transport.addresses()
        )
        await asyncio.sleep(1.0)
        network.kill(server.peer_id)
        began = now()
        with pytest.raises(PeerLost):
            await stream.receive()
        assert now() - began == pytest.approx(0.01)
        with pytest.raises(PeerLost):
            await stream.send(b"x")
        assert cancelled == [True]
        with pytest.raises(PeerUnreachable):
            await open_echo(client, server)
        with pytest.raises(TransportDown):
            await server.transport.open_stream(client.peer_id, ECHO)
        with pytest.raises(TransportDown):
            await server.records.get("key")

    run_pair(test)


def test_a_dead_peer_may_come_back_empty() -> None:
    async def test(network: MemoryNetwork, client: MemoryPeer, server: MemoryPeer) -> None:
        network.kill(server.peer_id)
        again = network.join(IDENTITIES[1])
        with pytest.raises(PeerUnreachable):
            await open_echo(client, again)  # it serves nothing yet
        await again.transport.serve(ECHO, echo)
        stream = await open_echo(client, again)
        await stream.send(b"x")
        assert await stream.receive() == b"x"

    run_pair(test)


def test_a_frozen_peer_holds_its_connections_and_loses_nothing() -> None:
    async def test(network: MemoryNetwork, client: MemoryPeer, server: MemoryPeer) -> None:
        stream = await open_echo(client, server)
        network.freeze(server.peer_id)
        await stream.send(b"one")
        await stream.send(b"two")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(100.0):
                await stream.receive()
        with pytest.raises(PeerUnreachable):
            await open_echo(client, server)
        network.thaw(server.peer_id)
        received = b""
        while len(received) < 6:
            received += await stream.receive()
        assert received == b"onetwo"

    run_pair(test)


def test_a_short_partition_delays_a_long_one_breaks() -> None:
    async def test(network: MemoryNetwork, client: MemoryPeer, server: MemoryPeer) -> None:
        stream = await open_echo(client, server)
        network.partition([client.peer_id])
        await stream.send(b"late")
        await asyncio.sleep(10.0)
        network.heal()
        assert await stream.receive() == b"late"
        network.partition([client.peer_id], [server.peer_id])
        began = now()
        with pytest.raises(PeerLost):
            await stream.receive()
        assert now() - began == pytest.approx(STEADY.dead_after)
        began = now()
        with pytest.raises(PeerUnreachable):
            await open_echo(client, server)
        assert now() - began == pytest.approx(STEADY.dial_timeout)
        network.heal()
        await open_echo(client, server)

    run_pair(test)


def test_lost_dials_and_lost_streams() -> None:
    async def dials(_: MemoryNetwork, client: MemoryPeer, server: MemoryPeer) -> None:
        with pytest.raises(PeerUnreachable):
            await open_echo(client, server)
        assert now() == pytest.approx(STEADY.dial_timeout)

    async def streams(_: MemoryNetwork, client: MemoryPeer, server: MemoryPeer) -> None:
        stream = await open_echo(client, server)
        with pytest.raises(PeerLost):
            await stream.receive()
        assert now() <= 0.04 + STEADY.stream_life_max

    run_pair(dials, Conditions(delay_min=0.01, delay_max=0.01, dial_loss=1.0))
    run_pair(streams, Conditions(delay_min=0.01, delay_max=0.01, jitter=0.0, stream_loss=1.0))


def test_what_cannot_be_dialled() -> None:
    async def test(_: MemoryNetwork, client: MemoryPeer, server: MemoryPeer) -> None:
        stranger = IDENTITIES[5].peer_id
        for address in ("", "/memory/x/p2p/x", address_of(stranger), address_of(client.peer_id)):
            with pytest.raises(PeerUnreachable):
                await client.transport.connect(address)
        with pytest.raises(PeerUnreachable, match="no address"):
            await client.transport.open_stream(server.peer_id, ECHO)
        with pytest.raises(PeerUnreachable, match="no address"):
            await client.transport.open_stream(server.peer_id, ECHO, [address_of(stranger)])
        assert await client.transport.connect(address_of(server.peer_id)) == server.peer_id
        with pytest.raises(PeerUnreachable, match="speak"):
            await client.transport.open_stream(server.peer_id, "/test/other/1")

    run_pair(test)


def test_a_handlers_defect_breaks_its_stream_and_is_kept() -> None:
    async def main() -> None:
        async with MemoryNetwork(1, LoopClock(), STEADY) as network:
            client, server = network.join(IDENTITIES[0]), network.join(IDENTITIES[1])

            async def broken(_: Stream) -> None:
                raise ZeroDivisionError

            await server.transport.serve(ECHO, broken)
            stream = await open_echo(client, server)
            with pytest.raises(PeerLost):
                await stream.receive()
            assert [type(defect) for defect in network.defects] == [ZeroDivisionError]

    run_virtual(main())


def test_records_expire_survive_deaths_and_respect_partitions() -> None:
    async def main() -> None:
        clock = LoopClock()
        async with MemoryNetwork(3, clock, STEADY) as network:
            peers = [network.join(identity) for identity in IDENTITIES]
            first, last = peers[0], peers[-1]
            assert await first.records.put("key", "me", b"value", clock.now() + 60)
            assert not await first.records.put("key", "you", b"old", clock.now() - 1)
            assert {k: v.value for k, v in (await last.records.get("key")).items()} == {
                "me": b"value"
            }
            for peer in peers[1:4]:
                network.kill(peer.peer_id)
            assert "me" in await last.records.get("key")
            left = [peer.peer_id for peer in (first, peers[4])]
            network.partition(left)
            await first.records.put("cut", "me", b"left", clock.now() + 60)
            assert "me" in await peers[4].records.get("cut")
            assert await last.records.get("cut") == {}
            network.heal()
            assert "me" in await last.records.get("cut")
            await asyncio.sleep(61.0)
            assert await last.records.get("key") == {}

    run_virtual(main())


def test_an_older_store_does_not_replace_a_newer_one() -> None:
    async def test(_: MemoryNetwork, client: MemoryPeer, server: MemoryPeer) -> None:
        wall = LoopClock().now()
        assert await client.records.put("k", "s", b"new", wall + 90)
        assert not await server.records.put("k", "s", b"old", wall + 30)
        await asyncio.sleep(45.0)
        assert (await server.records.get("k"))["s"].value == b"new"

    run_pair(test)
