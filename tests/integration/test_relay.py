"""A peer that cannot listen is reached through a relay that its operator named.

go-libp2p takes no relay for real whose address is private, so the peers live in a network
namespace of their own, in which a public-looking address lies on the loopback device. The tests run
themselves again as a child there.
"""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from protocols.adapters.clock import SystemClock
from protocols.adapters.libp2p.network import Libp2pConfig, Libp2pNetwork
from protocols.errors import DslmError
from protocols.ports import Stream
from protocols.signing import Identity

pytestmark = pytest.mark.netsim

RELAY_HOST, CLIENT_HOST = "45.90.7.1", "45.90.7.2"
ECHO = "/test/echo/1"
SLOT_SECONDS = 60.0
CIRCUIT_BYTES = 128 * 1024
TIMEOUT = 150


def require_namespaces() -> None:
    missing = [name for name in ("unshare", "ip") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    trial = ["unshare", "-n", "true"]
    if subprocess.run(trial, capture_output=True, check=False).returncode:  # noqa: S603 - our own
        pytest.skip("network namespaces need root")


def run_inside(scenario: str) -> str:
    """What a scenario of this file prints in a namespace of its own."""
    require_namespaces()
    command = ["unshare", "-n", sys.executable, "-W", "ignore", __file__, scenario]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(  # noqa: S603 - our own words
        command,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_peer_behind_a_relay_is_reached_and_the_relay_s_limits_hold() -> None:
    assert "carried" in run_inside("reached")


def test_a_peer_that_does_not_offer_to_relay_does_not() -> None:
    assert "no slot" in run_inside("refused")


# In the namespace ---------------------------------------------------------------------------------


async def echo(stream: Stream) -> None:
    while data := await stream.receive():
        await stream.send(data)


def peer(
    folder: Path, *listen: str, relays: tuple[str, ...] = (), service: bool = False
) -> Libp2pNetwork:
    config = Libp2pConfig(
        Identity.generate(), listen, folder, relays, relays=relays, relay_service=service
    )
    return Libp2pNetwork(config, SystemClock())


async def slot(hidden: Libp2pNetwork, seconds: float) -> tuple[str, ...]:
    """The addresses of a peer that cannot listen, as soon as it has some."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if found := hidden.transport.addresses():
            return found
        await asyncio.sleep(0.1)
    return ()


async def carried(stream: Stream, most: int) -> int:
    """How many bytes go there and back before the relay cuts the circuit."""
    total = 0
    try:
        async with asyncio.timeout(20):
            while total < most:
                await stream.send(b"x" * 1_000)
                while piece := await stream.receive():
                    total += len(piece)
                    if total % 1_000 == 0:
                        break
                else:
                    return total
    except DslmError:
        return total
    return total


async def reached(folder: Path) -> None:
    async with peer(folder, f"/ip4/{RELAY_HOST}/tcp/0", service=True) as relay:
        at_relay = relay.transport.addresses()
        hidden = peer(folder, relays=at_relay)
        client = peer(folder, f"/ip4/{CLIENT_HOST}/tcp/0")
        async with hidden, client:
            await hidden.transport.serve(ECHO, echo)
            (address,) = await slot(hidden, SLOT_SECONDS)
            target = hidden.transport.peer_id
            assert address == f"{at_relay[0]}/p2p-circuit/p2p/{target}", address
            assert await client.connected_peers() == ()
            stream = await client.transport.open_stream(target, ECHO, [address])
            await stream.send(b"hello")
            assert await stream.receive() == b"hello"
            (seen,) = await client.observed(target)
            assert seen.endswith("/p2p-circuit"), seen
            count = await carried(stream, 4 * CIRCUIT_BYTES)
            assert CIRCUIT_BYTES // 2 < count <= CIRCUIT_BYTES, count
            stream.abort()
            again = await client.transport.open_stream(target, ECHO, [address])
            await again.send(b"again")
            assert await again.receive() == b"again"
            print("carried", count)  # noqa: T201 - for the parent


async def refused(folder: Path) -> None:
    async with peer(folder, f"/ip4/{RELAY_HOST}/tcp/0") as unwilling:  # noqa: SIM117 - in order
        async with peer(folder, relays=unwilling.transport.addresses()) as hidden:
            await asyncio.sleep(0)
            found = await slot(hidden, 15)
            print(found or "no slot")  # noqa: T201 - for the parent


def main() -> None:
    for command in (
        ["link", "set", "lo", "up"],
        ["addr", "add", f"{RELAY_HOST}/32", "dev", "lo"],
        ["addr", "add", f"{CLIENT_HOST}/32", "dev", "lo"],
    ):
        subprocess.run(["ip", *command], check=True)  # noqa: S603, S607 - our own words
    with tempfile.TemporaryDirectory() as folder:
        scenario = {"reached": reached, "refused": refused}[sys.argv[1]]
        asyncio.run(scenario(Path(folder)))


if __name__ == "__main__":
    main()
