"""What a peer of the real network refuses, cuts off and gives up, and what its daemon may use."""

import asyncio
import contextlib
import os
import signal
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from pathlib import Path

import psutil
import pytest

from protocols import limits
from protocols.adapters.clock import SystemClock
from protocols.adapters.libp2p import inbound
from protocols.adapters.libp2p.flags import OPEN_FILES_MAX
from protocols.adapters.libp2p.network import Libp2pConfig, Libp2pNetwork
from protocols.errors import DslmError, PeerLost, PeerUnreachable, UserError
from protocols.ids import PeerId
from protocols.ports import Stream
from protocols.signing import Identity
from tests.conformance.fake_gate import FakeGate

pytestmark = pytest.mark.integration

ANY_PORT = "/ip4/127.0.0.1/tcp/0"
WAIT = "/test/wait/1"

Drop = Callable[[PeerId], Awaitable[None]]


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def network(folder: Path, *bootstrap: str, gate: FakeGate | None = None) -> Libp2pNetwork:
    config = Libp2pConfig(Identity.generate(), (ANY_PORT,), folder, bootstrap)
    return Libp2pNetwork(config, SystemClock(), gate)


@pytest.fixture
async def pair(folder: Path) -> AsyncGenerator[tuple[Libp2pNetwork, Libp2pNetwork], None]:
    async with network(folder) as server:  # noqa: SIM117 - one needs the other's address
        async with network(folder, *server.transport.addresses()) as client:
            yield client, server


async def wait(stream: Stream) -> None:
    while await stream.receive():
        await stream.send(b".")


def is_stopped(pid: int) -> bool:
    """Whether every thread stands still; the signal alone does not say so."""
    states = [
        path.read_text().rpartition(") ")[2][0] for path in Path(f"/proc/{pid}/task").glob("*/stat")
    ]
    return all(state == "T" for state in states)


async def connected_again(client: Libp2pNetwork, server: Libp2pNetwork) -> None:
    """Both ends know the connection; the client may take a while to notice that the old one ended.

    Until then `connect` changes nothing.
    """
    async with asyncio.timeout(30):
        while not (
            await server.observed(client.transport.peer_id)
            and server.transport.peer_id in await client.connected_peers()
        ):
            with contextlib.suppress(PeerUnreachable):
                await client.transport.connect(server.transport.addresses()[0])


async def asked(client: Libp2pNetwork, server: Libp2pNetwork) -> bytes:
    """An answer of one who is found sooner or later."""
    while True:
        try:
            stream = await client.transport.open_stream(server.transport.peer_id, WAIT)
        except PeerUnreachable:
            await asyncio.sleep(0.1)
            continue
        await stream.send(b"?")
        return await stream.receive()


async def ended(stream: Stream) -> float:
    """Seconds until the other end is gone."""
    began = time.monotonic()
    with contextlib.suppress(PeerLost):
        assert await stream.receive() == b""
    return time.monotonic() - began


@pytest.mark.slow
async def test_a_silent_stream_is_cut_off(
    pair: tuple[Libp2pNetwork, Libp2pNetwork], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FIRST_MESSAGE_SECONDS", 0.5)
    monkeypatch.setattr(limits, "STREAM_IDLE_SECONDS", 2.0)
    monkeypatch.setattr(inbound, "SWEEP_SECONDS", 0.1)
    client, server = pair
    await asyncio.sleep(1.1)  # the sweeper still sleeps as it was told before
    await server.transport.serve(WAIT, wait)
    peer = server.transport.peer_id
    silent = await client.transport.open_stream(peer, WAIT)
    talking = await client.transport.open_stream(peer, WAIT)
    await talking.send(b"?")
    assert await talking.receive() == b"."
    async with asyncio.timeout(5):
        assert await ended(silent) < 2
        assert 1 < await ended(talking) < 4


async def test_the_streams_of_one_peer_are_bounded_and_another_gets_in(
    pair: tuple[Libp2pNetwork, Libp2pNetwork], folder: Path
) -> None:
    client, server = pair
    await server.transport.serve(WAIT, wait)
    peer, heard = server.transport.peer_id, 0
    for _ in range(limits.STREAMS_IN_PER_PEER_MAX + 10):
        stream = await client.transport.open_stream(peer, WAIT)
        try:
            await stream.send(b"?")
            heard += await stream.receive() == b"."
        except DslmError:
            continue
    assert heard == limits.STREAMS_IN_PER_PEER_MAX
    async with network(folder, *server.transport.addresses()) as other:
        stream = await other.transport.open_stream(peer, WAIT)
        await stream.send(b"?")
        assert await stream.receive() == b"."


async def test_a_stranger_that_goes_on_and_on_loses_its_connection(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with network(folder, gate=FakeGate()) as server, network(folder) as client:
        dropped: list[str] = []
        monkeypatch.setattr(server.transport, "drop", _noting(dropped, server.transport.drop))
        await server.transport.serve(WAIT, wait)
        address = server.transport.addresses()[0]
        async with asyncio.timeout(60):
            while not dropped:
                try:
                    stream = await client.transport.open_stream(
                        server.transport.peer_id, WAIT, [address]
                    )
                except DslmError:
                    continue
                stream.abort()
        assert dropped[0] == client.transport.peer_id


def _noting(notes: list[str], function: Drop) -> Drop:
    async def noting(peer: PeerId) -> None:
        notes.append(peer)
        await function(peer)

    return noting


@pytest.mark.slow
async def test_a_frozen_daemon_makes_calls_fail_in_time(
    pair: tuple[Libp2pNetwork, Libp2pNetwork],
) -> None:
    client, server = pair
    pid = client.transport.daemon().pid
    os.kill(pid, signal.SIGSTOP)
    try:
        while not is_stopped(pid):  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(0.01)
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: client.transport.open_stream(server.transport.peer_id, WAIT),
            client.connected_peers,
            lambda: client.observed(server.transport.peer_id),
            lambda: client.drop(server.transport.peer_id),
            lambda: client.transport.serve("/test/other/1", wait),
            lambda: client.transport.connect(server.transport.addresses()[0]),
        ]
        for call in calls:
            began = time.monotonic()
            with pytest.raises(DslmError):
                await call()
            assert time.monotonic() - began < 6
    finally:
        os.kill(pid, signal.SIGCONT)
    await connected_again(client, server)


async def test_a_dropped_peer_is_gone_and_may_come_back(
    pair: tuple[Libp2pNetwork, Libp2pNetwork],
) -> None:
    client, server = pair
    me = client.transport.peer_id
    (seen,) = await server.observed(me)
    assert seen.startswith("/ip4/127.0.0.1/tcp/")
    await server.transport.serve(WAIT, wait)
    stream = await client.transport.open_stream(server.transport.peer_id, WAIT)
    await stream.send(b"?")
    assert await stream.receive() == b"."
    await server.drop(me)
    with contextlib.suppress(PeerLost):
        assert await stream.receive() == b""
    await connected_again(client, server)
    assert len(await server.observed(me)) == 1


async def test_the_daemon_may_open_many_files(folder: Path) -> None:
    async with network(folder) as peer:
        soft, hard = psutil.Process(peer.transport.daemon().pid).rlimit(psutil.RLIMIT_NOFILE)
        assert soft >= min(hard, OPEN_FILES_MAX)


async def test_a_peer_that_does_not_listen_has_no_address_and_can_call(folder: Path) -> None:
    async with network(folder) as server:
        config = Libp2pConfig(Identity.generate(), (), folder, server.transport.addresses())
        async with Libp2pNetwork(config, SystemClock()) as quiet:
            assert quiet.transport.addresses() == ()
            assert quiet.bootstrap_report.reached == (server.transport.peer_id,)
            await server.transport.serve(WAIT, wait)
            stream = await quiet.transport.open_stream(server.transport.peer_id, WAIT)
            await stream.send(b"?")
            assert await stream.receive() == b"."
            daemon = psutil.Process(quiet.transport.daemon().pid)
            listening = [c for c in daemon.net_connections("inet") if c.status == "LISTEN"]
            assert listening == []


async def test_a_relay_that_is_no_address_is_refused(folder: Path) -> None:
    config = Libp2pConfig(Identity.generate(), (), folder, relays=("nonsense",))
    with pytest.raises(UserError):
        async with Libp2pNetwork(config, SystemClock()):
            pass


async def test_the_daemon_s_own_table_takes_nothing_from_anybody(
    pair: tuple[Libp2pNetwork, Libp2pNetwork],
) -> None:
    """p2pd would keep what a stranger stores with it until memory is full."""
    client, server = pair
    stream = await client.transport.open_stream(server.transport.peer_id, "/ipfs/kad/1.0.0")
    body = bytes([8, 2, 18, 34]) + bytes(34)  # ADD_PROVIDER
    await stream.send(bytes([len(body)]) + body)
    async with asyncio.timeout(5):
        await ended(stream)


@pytest.mark.slow
async def test_members_behind_gates_find_each_other_through_a_friend(folder: Path) -> None:
    async with network(folder, gate=FakeGate()) as friend:
        (address,) = friend.transport.addresses()
        async with (
            network(folder, address, gate=FakeGate()) as first,
            network(folder, address, gate=FakeGate()) as second,
        ):
            await second.transport.serve(WAIT, wait)
            for node in (first, second):
                await node.records.get("anything")
            async with asyncio.timeout(10):
                assert await asked(first, second) == b"."


async def test_a_stranger_learns_of_no_member_s_address(folder: Path) -> None:
    async with network(folder, gate=FakeGate()) as friend:
        (address,) = friend.transport.addresses()
        async with network(folder, address, gate=FakeGate()) as member, network(folder) as stranger:
            await member.records.get("anything")
            await stranger.transport.connect(address)
            assert member.transport.peer_id in await friend.connected_peers()
            with pytest.raises(PeerUnreachable):
                await stranger.transport.open_stream(member.transport.peer_id, WAIT)
            assert await stranger.observed(member.transport.peer_id) == ()
