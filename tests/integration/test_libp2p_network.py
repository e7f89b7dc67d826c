"""How a peer of the real network starts, meets others, and says what is wrong."""

import asyncio
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocols.adapters.clock import SystemClock
from protocols.adapters.libp2p.network import Libp2pConfig, Libp2pNetwork
from protocols.errors import AddressInUse, ConfigError, RecordError
from protocols.ports import Stream
from protocols.signing import Identity

pytestmark = pytest.mark.integration

ANY_PORT = "/ip4/127.0.0.1/tcp/0"
HELLO = "/test/hello/1"


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def network(folder: Path, *bootstrap: str, listen: str = ANY_PORT) -> Libp2pNetwork:
    config = Libp2pConfig(Identity.generate(), (listen,), folder, bootstrap)
    return Libp2pNetwork(config, SystemClock())


async def hello(stream: Stream) -> None:
    await stream.send(b"hello")


async def test_peers_that_share_a_friend_reach_each_other_without_an_address(folder: Path) -> None:
    async with network(folder) as friend:
        (address,) = friend.transport.addresses()
        async with network(folder, address) as first, network(folder, address) as second:
            await second.transport.serve(HELLO, hello)
            stream = await first.transport.open_stream(second.transport.peer_id, HELLO)
            assert await stream.receive() == b"hello"
            await stream.close()
            assert second.transport.peer_id in await first.connected_peers()


async def test_an_unreachable_bootstrap_is_reported_and_does_not_keep_us_from_starting(
    folder: Path,
) -> None:
    nobody = f"/ip4/127.0.0.1/tcp/9/p2p/{Identity.generate().peer_id}"
    async with asyncio.timeout(15), network(folder, nobody) as alone:
        assert alone.status() == "up"
        assert alone.bootstrap_report.reached == ()
        assert "refused" in alone.bootstrap_report.unreachable[nobody]
        report = await alone.join(["nonsense", nobody])
        assert set(report.unreachable) == {"nonsense", nobody}


async def test_a_taken_port_is_named(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(AddressInUse, match=str(port)):
            async with network(folder, listen=f"/ip4/127.0.0.1/tcp/{port}"):
                pass
    assert os.listdir(folder) == []


async def test_another_peer_s_port_is_taken_too(folder: Path) -> None:
    async with network(folder) as first:
        listen = first.transport.addresses()[0].rpartition("/p2p/")[0]
        with pytest.raises(AddressInUse):
            async with network(folder, listen=listen):
                pass


async def test_what_the_body_raises_comes_out_as_it_is(folder: Path) -> None:
    with pytest.raises(LookupError, match="the body's own"):
        async with network(folder):
            raise LookupError("the body's own")
    assert os.listdir(folder) == []


async def test_a_folder_too_deep_for_sockets_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="too long"):
        async with network(folder / ("x" * 90)):
            pass


async def test_sockets_are_for_us_alone_and_the_key_does_not_lie_about(folder: Path) -> None:
    async with network(folder) as peer:
        assert peer.status() == "up"
        (name,) = os.listdir(folder)
        made = folder / name
        assert stat.S_IMODE(os.stat(made).st_mode) == 0o700
        assert not [left for left in os.listdir(made) if left.endswith(".key")]
    assert os.listdir(folder) == []


async def test_records_that_nobody_would_take_are_refused_at_once(folder: Path) -> None:
    now = SystemClock().now()
    async with network(folder) as peer:
        subkey = peer.transport.peer_id
        with pytest.raises(RecordError):
            await peer.records.put("key", subkey, b"x" * 10_000, now + 60)
        for end in (now + 10_000, float("inf"), float("nan")):
            with pytest.raises(RecordError):
                await peer.records.put("key", subkey, b"x", end)
