"""What does one hop between two peers cost, and how much can it carry?

Method: two processes on loopback, each with its own libp2p daemon. One stream is kept open; a
frame of our codec with a payload of 1,152 bytes (a hidden state of 576 fp16 values) goes there,
is decoded, encoded and comes back. The median of the round trips is compared, in the same run,
with hivemind's unary call and hivemind's stream of protobuf messages carrying the same bytes: over
the same two daemons, and over two that hivemind starts itself (`P2P.create` with its defaults, but
without asking a router for a port); and with two py-libp2p hosts (their own client and server, raw
bytes without a codec). Throughput is 1 MiB payloads echoed with 8 on the way (unary: 8 calls at
once), counted one way; hivemind's over its own daemons, for ours refuse calls of that size. The
rounds of the compared ways alternate, so that a busy machine hits all alike; only py-libp2p, in
processes of its own, comes after them, so its ratio means something on an idle machine alone.

The floors say what the machine makes possible: the same bytes between the two processes over plain
TCP, and through the two daemons with nothing but blocking sockets at both ends. No Python program
that uses the daemons can be quicker than the latter, whatever it does.

Run: `.venv/bin/python benchmarks/hop.py [--quick] [--interop-python PATH]`; py-libp2p may live in
another interpreter (default: this one).
"""

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

from hivemind.p2p import P2P, PeerID

from hop_floor import AsyncioTrip, blocking_trip, connect_blocking
from hop_peer import Echoes
from hop_ways import BLOCKING, FRAMES, MEBIBYTE, PAYLOAD, RAW, Frames, Hivemind
from protocols.adapters.clock import SystemClock
from protocols.adapters.libp2p.network import Libp2pConfig, Libp2pNetwork
from protocols.signing import Identity
from report import Row, print_report

HERE = Path(__file__).parent
ROUNDS = 10
OURS = "our frames"
TARGETS = {"hivemind unary": 8.0, "hivemind stream": 3.0, "py-libp2p pair": 20.0}
"""How many times as long as ours the round trip of another way should take."""

Trip = Callable[[], Awaitable[None]]
Carry = Callable[[int], Awaitable[None]]


async def median_trips(ways: dict[str, Trip], trips: int) -> dict[str, float]:
    """Median round trip of each way, in microseconds."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        for _ in range(trips // 10):
            await way()
    for _ in range(ROUNDS):
        for name, way in ways.items():
            for _ in range(trips // ROUNDS):
                before = time.perf_counter()
                await way()
                times[name].append(time.perf_counter() - before)
    return {name: statistics.median(found) * 1e6 for name, found in times.items()}


async def carried(ways: dict[str, Carry], count: int) -> dict[str, float]:
    """Best throughput of each way in three rounds, in MB/s one way."""
    best = dict.fromkeys(ways, 0.0)
    for _ in range(3):
        for name, way in ways.items():
            before = time.perf_counter()
            await way(count)
            rate = count * MEBIBYTE / 1e6 / (time.perf_counter() - before)
            best[name] = max(best[name], rate)
    return best


@contextmanager
def child(python: str, *arguments: str) -> Iterator[str]:
    """A process that prints where it is found and ends with its standard input."""
    with subprocess.Popen(  # noqa: S603 - our own programs
        [python, "-W", "ignore", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
            process.wait(20)


def pylibp2p_trip(python: str, trips: int, address: str | None = None) -> float | None:
    """Median round trip from a py-libp2p client (to its own kind by default); None if absent."""
    if subprocess.run([python, "-c", "import libp2p"], capture_output=True, check=False).returncode:  # noqa: S603
        return None
    program = str(HERE / "hop_pylibp2p_peer.py")
    if address is None:
        with child(python, program, "serve") as served:
            return pylibp2p_trip(python, trips, served)
    command = [python, "-W", "ignore", program, "measure", address, RAW, str(trips)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)  # noqa: S603
    return float(run.stdout.splitlines()[-1])


@asynccontextmanager
async def as_shipped(address: str) -> AsyncIterator[Hivemind]:
    """hivemind over a daemon of its own, connected to the one at `address`."""
    p2p = await P2P.create(initial_peers=[address], nat_port_map=False)
    try:
        await p2p.wait_for_at_least_n_peers(1)
        hivemind = Hivemind(p2p, PeerID.from_base58(address.rpartition("/")[2]))
        await hivemind.open()
        yield hivemind
    finally:
        await p2p.shutdown()


@asynccontextmanager
async def floors(echoes: Echoes, p2p: P2P, peer: PeerID) -> AsyncIterator[dict[str, Trip]]:
    """The ways that do without us."""
    loop = asyncio.get_running_loop()
    _, plain = await loop.create_connection(AsyncioTrip, "127.0.0.1", echoes.asyncio_port)
    _, _, writer = await p2p.call_binary_stream_handler(peer, BLOCKING)
    writer.transport.pause_reading()
    through: socket.socket = writer.get_extra_info("socket").dup()
    with connect_blocking(echoes.blocking_port) as direct, through:
        through.setblocking(True)

        async def blocking(connection: socket.socket) -> None:
            blocking_trip(connection, PAYLOAD)

        yield {
            "floor: blocking TCP": partial(blocking, direct),
            "floor: asyncio TCP": partial(plain.round_trip, PAYLOAD),
            "floor: blocking, through the daemons": partial(blocking, through),
        }
    plain.close()
    writer.close()


async def measure(trips: int, mebibytes: int, python: str) -> list[Row]:
    """All rows."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        served = stack.enter_context(child(sys.executable, str(HERE / "hop_peer.py"), folder))
        echoes = Echoes(**json.loads(served))
        began = time.perf_counter()
        config = Libp2pConfig(
            Identity.generate(),
            ("/ip4/127.0.0.1/tcp/0",),
            Path(folder),
            message_bytes_max=4 << 20,  # for the unary calls that we compare with
        )
        network = await stack.enter_async_context(Libp2pNetwork(config, SystemClock()))
        started = time.perf_counter() - began
        peer = await network.transport.connect(echoes.ours)
        frames = Frames(await network.transport.open_stream(peer, FRAMES))
        p2p, remote = network.transport.daemon().p2p, PeerID.from_base58(peer)
        shared = Hivemind(p2p, remote)
        await shared.open()
        shipped = await stack.enter_async_context(as_shipped(echoes.shipped))
        ways: dict[str, Trip] = {
            OURS: frames.round_trip,
            "hivemind unary": shared.unary,
            "hivemind stream": shared.stream,
            "hivemind as shipped, unary": shipped.unary,
            "hivemind as shipped, stream": shipped.stream,
        }
        async with floors(echoes, p2p, remote) as below:
            trip = await median_trips(ways | below, trips)
        carries: dict[str, Carry] = {
            OURS: frames.carry,
            "hivemind as shipped, unary": shipped.carry_unary,
            "hivemind as shipped, stream": shipped.carry_stream,
        }
        rate = await carried(carries, mebibytes)
        mixed = await asyncio.to_thread(pylibp2p_trip, python, trips, echoes.ours)
    pair = await asyncio.to_thread(pylibp2p_trip, python, trips)
    trips_found = {**trip, "py-libp2p pair": pair, "py-libp2p client to our daemon": mixed}
    return [Row("start of a network", started, "s"), *trip_rows(trips_found), *rate_rows(rate)]


def trip_rows(trip: dict[str, float | None]) -> list[Row]:
    """How many times as long as our round trip each other one takes."""
    ours = trip[OURS]
    assert ours is not None
    found = [Row(f"round trip, {OURS}", ours, "us")]
    for name, value in trip.items():
        if name == OURS:
            continue
        ratio = None if value is None else value / ours
        goal = TARGETS.get(name)
        met = None if ratio is None or goal is None else ratio >= goal
        target = None if goal is None else f"at least {goal:g}x"
        found.append(Row(f"round trip, {name}", value, "us", OURS, ratio, target, met))
    return found


def rate_rows(rate: dict[str, float]) -> list[Row]:
    """Throughput of each way."""
    ours = rate[OURS]
    return [
        Row(f"throughput, {name}", value, "MB/s", *(() if name == OURS else (OURS, value / ours)))
        for name, value in rate.items()
    ]


def main() -> int:
    """Measure, print the table and the line of JSON; 1 if a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer round trips")
    parser.add_argument("--interop-python", default=sys.executable, help="one with py-libp2p")
    arguments = parser.parse_args()
    trips, mebibytes = (500, 16) if arguments.quick else (5_000, 64)
    machine = [
        Row("cores that we may use", len(os.sched_getaffinity(0)), "cores"),
        Row("load before the run", os.getloadavg()[0], "processes"),
    ]
    found = asyncio.run(measure(trips, mebibytes, arguments.interop_python))
    return print_report("hop", machine + found)


if __name__ == "__main__":
    sys.exit(main())
