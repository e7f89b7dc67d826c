"""The libp2p daemon and its node die in every way; nothing hangs and nothing is left behind."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import psutil
import pytest

from protocols.adapters.clock import SystemClock
from protocols.adapters.libp2p.network import Libp2pConfig, Libp2pNetwork
from protocols.errors import DslmError, PeerLost, TransportDown
from protocols.ids import PeerId
from protocols.ports import Stream
from protocols.signing import Identity

pytestmark = pytest.mark.chaos

ECHO = "/chaos/echo/1"
ROOT = Path(__file__).parent.parent.parent
PEER_PROCESS = ROOT / "tests" / "conformance" / "peer_process.py"
BACK_SECONDS = 5.0


async def echo(stream: Stream) -> None:
    while data := await stream.receive():
        await stream.send(data)


@pytest.fixture
async def networks() -> AsyncGenerator[tuple[Libp2pNetwork, Libp2pNetwork], None]:
    with tempfile.TemporaryDirectory() as folder:
        first, second = (
            Libp2pNetwork(
                Libp2pConfig(Identity.generate(), ("/ip4/127.0.0.1/tcp/0",), Path(folder)),
                SystemClock(),
            )
            for _ in range(2)
        )
        async with first, second:
            await second.transport.serve(ECHO, echo)
            await first.join(second.transport.addresses())
            yield first, second
        assert os.listdir(folder) == [], "a folder for sockets was left behind"


async def open_echo(client: Libp2pNetwork, server: Libp2pNetwork) -> Stream:
    stream = await client.transport.open_stream(
        server.transport.peer_id, ECHO, server.transport.addresses()
    )
    await stream.send(b"hello")
    assert await stream.receive() == b"hello"
    return stream


def kill_daemon(network: Libp2pNetwork) -> None:
    os.kill(network.transport.daemon().pid, signal.SIGKILL)


async def wait_until_back(network: Libp2pNetwork, old_pid: int) -> float:
    began = time.monotonic()
    async with asyncio.timeout(BACK_SECONDS):
        while True:
            with contextlib.suppress(TransportDown):
                if network.status() == "up" and network.transport.daemon().pid != old_pid:
                    return time.monotonic() - began
            await asyncio.sleep(0.01)


async def test_our_daemon_dies_with_a_stream_open(
    networks: tuple[Libp2pNetwork, Libp2pNetwork],
) -> None:
    client, server = networks
    stream = await open_echo(client, server)
    began, pid = time.monotonic(), client.transport.daemon().pid
    asyncio.get_running_loop().call_later(0.05, kill_daemon, client)
    async with asyncio.timeout(1):
        with pytest.raises(TransportDown):
            await stream.receive()
    assert time.monotonic() - began < 1
    await wait_until_back(client, pid)
    assert (await open_echo(client, server)).peer == server.transport.peer_id


async def test_our_daemon_dies_in_the_middle_of_record_calls(
    networks: tuple[Libp2pNetwork, Libp2pNetwork],
) -> None:
    client, _server = networks
    pid = client.transport.daemon().pid

    async def hammer() -> int:
        calls = 0
        while client.status() == "up":
            try:
                async with asyncio.timeout(3):
                    await client.records.get(f"chaos/{calls}")
            except TransportDown:
                break
            calls += 1
        return calls

    asyncio.get_running_loop().call_later(0.2, kill_daemon, client)
    async with asyncio.timeout(8):
        assert await hammer() > 0
    await wait_until_back(client, pid)


async def test_the_daemon_comes_back_as_the_same_peer_at_the_same_address(
    networks: tuple[Libp2pNetwork, Libp2pNetwork],
) -> None:
    client, server = networks
    addresses, pid = server.transport.addresses(), server.transport.daemon().pid
    end = SystemClock().now() + 60
    subkey = server.transport.peer_id
    assert await server.records.put("chaos/key", subkey, b"kept", end)
    stream = await open_echo(client, server)
    kill_daemon(server)
    async with asyncio.timeout(1):
        with contextlib.suppress(PeerLost):
            assert await stream.receive() == b""
    await stream.close()
    await wait_until_back(server, pid)
    assert server.transport.addresses() == addresses
    async with asyncio.timeout(10):
        while True:
            try:
                await open_echo(client, server)
                break
            except DslmError:
                await asyncio.sleep(0.2)
    assert (await server.records.get("chaos/key"))[subkey].value == b"kept"
    assert (await client.records.get("chaos/key"))[subkey].value == b"kept"


async def test_five_deaths_in_a_row(networks: tuple[Libp2pNetwork, Libp2pNetwork]) -> None:
    client, server = networks
    for _ in range(5):
        pid = client.transport.daemon().pid
        kill_daemon(client)
        await wait_until_back(client, pid)
        await open_echo(client, server)


async def test_after_a_death_the_two_find_each_other_again(
    networks: tuple[Libp2pNetwork, Libp2pNetwork],
) -> None:
    client, server = networks
    pid = server.transport.daemon().pid
    kill_daemon(server)
    await wait_until_back(server, pid)
    async with asyncio.timeout(20):  # the client dials again by itself, after go-libp2p's back-off
        connected: tuple[PeerId, ...] = ()
        while not connected:
            await asyncio.sleep(0.05)
            connected = await server.connected_peers()
    assert connected == (client.transport.peer_id,)


def start_process(folder: str) -> "tuple[subprocess.Popen[str], list[psutil.Process]]":
    process = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-W", "ignore", str(PEER_PROCESS), folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("/ip4/")
    children = psutil.Process(process.pid).children(recursive=True)
    assert [child.name() for child in children] == ["p2pd"]
    return process, children


def end(process: "subprocess.Popen[str]") -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    process.wait(15)


def still_alive(children: list[psutil.Process]) -> list[psutil.Process]:
    """Those that run after some seconds. A dead one may wait for the system to bury it."""
    _, left = psutil.wait_procs(children, timeout=5)
    return [one for one in left if is_alive(one)]


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_no_daemon_outlives_a_killed_node() -> None:
    with tempfile.TemporaryDirectory() as folder:
        process, children = start_process(folder)
        process.kill()
        end(process)
        assert still_alive(children) == []
        left = list(Path(folder).iterdir())
        assert len(left) == 1, "a killed node cannot tidy up"
        assert not list(left[0].glob("*.key")), "its key is not among what it leaves"
        process, children = start_process(folder)
        assert not left[0].exists(), "the next node sweeps up"
        end(process)


def test_an_orderly_end_leaves_nothing() -> None:
    with tempfile.TemporaryDirectory() as folder:
        process, children = start_process(folder)
        end(process)
        assert still_alive(children) == []
        assert list(Path(folder).iterdir()) == []


def test_an_interrupt_leaves_nothing() -> None:
    with tempfile.TemporaryDirectory() as folder:
        process, children = start_process(folder)
        process.send_signal(signal.SIGINT)
        end(process)
        assert still_alive(children) == []
        assert list(Path(folder).iterdir()) == []
