"""What does one hop between two peers cost, and how much can it carry?

Method: two processes on loopback, each with its own libp2p daemon. One stream is kept open; a
frame of our codec with a payload of 1,152 bytes (a hidden state of 576 fp16 values) goes there,
is decoded, encoded and comes back. The median of the round trips is compared, in the same run and
over the same two daemons, with hivemind's unary call and hivemind's stream of protobuf messages
carrying the same bytes, and with two py-libp2p hosts (their own client and server, raw bytes
without a codec). Throughput is 1 MiB payloads echoed with 8 on the way (unary: 8 calls at once),
counted one way. The rounds of the compared ways alternate, so that a busy machine hits all alike.

Run: `.venv/bin/python benchmarks/hop.py [--quick] [--interop-python PATH]`; py-libp2p and hivemind
do not fit into one process, so its interpreter may be another one (default: this one).
"""

import argparse
import asyncio
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from hivemind.p2p import PeerID
from hivemind.proto import runtime_pb2

from protocols.adapters.clock import SystemClock
from protocols.adapters.libp2p.network import Libp2pConfig, Libp2pNetwork
from protocols.codec import FrameDecoder, encode
from protocols.ids import PeerId
from protocols.messages.info import InfoRequest
from protocols.ports import Stream
from protocols.signing import Identity

HERE = Path(__file__).parent
FRAMES, UNARY, STREAM, RAW = "/hop/frames/1", "hop-unary", "hop-stream", "/hop/raw/1"
PAYLOAD = b"x" * 1_152
MEBIBYTE = 1 << 20
ON_THE_WAY = 8
READ_BYTES = 1 << 18
ROUNDS = 5


@dataclass(frozen=True)
class Row:
    """One line of the result; `ratio` is how much better than the baseline the value is."""

    name: str
    value: float | None
    unit: str
    baseline: str | None = None
    ratio: float | None = None
    target: float | None = None
    met: bool | None = None


class Frames:
    """Our protocol: frames over one stream that stays open."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._decoder: FrameDecoder[InfoRequest] = FrameDecoder(InfoRequest)

    async def round_trip(self) -> None:
        """One small frame there and back."""
        await self._stream.send(encode(InfoRequest(1), PAYLOAD))
        while not self._decoder.feed(await self._stream.receive()):
            pass

    async def carry(self, count: int) -> None:
        """`count` frames of 1 MiB there and back."""
        slots = asyncio.Semaphore(ON_THE_WAY)
        data = encode(InfoRequest(1), b"y" * MEBIBYTE)

        async def send_all() -> None:
            for _ in range(count):
                await slots.acquire()
                await self._stream.send(data)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send_all())
            received = 0
            while received < count:
                for _ in self._decoder.feed(await self._stream.receive(READ_BYTES)):
                    received += 1
                    slots.release()


class Hivemind:
    """hivemind's own two ways, over the same daemons."""

    def __init__(self, network: Libp2pNetwork, peer: PeerId) -> None:
        self._p2p = network.transport.daemon().p2p
        self._peer = PeerID.from_base58(peer)
        self._requests: asyncio.Queue[runtime_pb2.ExpertRequest] = asyncio.Queue()

    async def unary(self, payload: bytes = PAYLOAD) -> None:
        """One unary call."""
        request = runtime_pb2.ExpertRequest(metadata=payload)
        await self._p2p.call_protobuf_handler(self._peer, UNARY, request, runtime_pb2.ExpertRequest)

    async def carry_unary(self, count: int) -> None:
        """`count` calls with 1 MiB, some at once."""
        slots = asyncio.Semaphore(ON_THE_WAY)

        async def one() -> None:
            async with slots:
                await self.unary(b"y" * MEBIBYTE)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(count):
                tasks.create_task(one())

    async def open(self) -> None:
        """Start the stream of messages."""

        async def requests() -> AsyncIterator[runtime_pb2.ExpertRequest]:
            while True:
                yield await self._requests.get()

        self._responses = await self._p2p.iterate_protobuf_handler(
            self._peer, STREAM, requests(), runtime_pb2.ExpertRequest
        )

    async def stream(self) -> None:
        """One message there and back on the open stream."""
        self._requests.put_nowait(runtime_pb2.ExpertRequest(metadata=PAYLOAD))
        await anext(self._responses)

    async def carry_stream(self, count: int) -> None:
        """`count` messages with 1 MiB there and back."""
        request = runtime_pb2.ExpertRequest(metadata=b"y" * MEBIBYTE)
        for _ in range(ON_THE_WAY):
            self._requests.put_nowait(request)
        for number in range(count):
            await anext(self._responses)
            if number < count - ON_THE_WAY:
                self._requests.put_nowait(request)


async def median_trips(
    ways: dict[str, Callable[[], Awaitable[None]]], trips: int
) -> dict[str, float]:
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


async def carried(
    ways: dict[str, Callable[[int], Awaitable[None]]], count: int
) -> dict[str, float]:
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
    """A process that prints its address and ends with its standard input."""
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


def compared(name: str, ours: float, other: float | None, baseline: str, target: float) -> Row:
    """How many times the round trip of `baseline` is longer than ours."""
    if other is None:
        return Row(f"{name} (not run: py-libp2p is missing)", None, "x", baseline, None, target)
    ratio = other / ours
    return Row(name, round(ratio, 2), "x", baseline, round(ratio, 2), target, ratio >= target)


async def measure(trips: int, mebibytes: int, python: str) -> list[Row]:
    """All rows."""
    with (
        tempfile.TemporaryDirectory() as folder,
        child(sys.executable, str(HERE / "hop_peer.py"), folder) as address,
    ):
        began = time.perf_counter()
        config = Libp2pConfig(Identity.generate(), ("/ip4/127.0.0.1/tcp/0",), Path(folder))
        async with Libp2pNetwork(config, SystemClock()) as network:
            started = time.perf_counter() - began
            peer = await network.transport.connect(address)
            frames = Frames(await network.transport.open_stream(peer, FRAMES))
            hivemind = Hivemind(network, peer)
            await hivemind.open()
            trip = await median_trips(
                {
                    "frames": frames.round_trip,
                    "unary": hivemind.unary,
                    "stream": hivemind.stream,
                },
                trips,
            )
            rate = await carried(
                {
                    "frames": frames.carry,
                    "unary": hivemind.carry_unary,
                    "stream": hivemind.carry_stream,
                },
                mebibytes,
            )
        mixed = await asyncio.to_thread(pylibp2p_trip, python, trips, address)
    pair = await asyncio.to_thread(pylibp2p_trip, python, trips)
    return rows(trip, rate, started, mixed, pair)


def rows(
    trip: dict[str, float],
    rate: dict[str, float],
    started: float,
    mixed: float | None,
    pair: float | None,
) -> list[Row]:
    """The figures, then the ratios with their targets."""
    ours = trip["frames"]
    return [
        Row("start of a network", round(started, 3), "s"),
        Row("round trip, our frames", round(ours, 1), "us"),
        Row("round trip, hivemind unary", round(trip["unary"], 1), "us"),
        Row("round trip, hivemind stream", round(trip["stream"], 1), "us"),
        Row("round trip, py-libp2p pair", pair and round(pair, 1), "us"),
        Row("round trip, py-libp2p client to our daemon", mixed and round(mixed, 1), "us"),
        compared("faster than unary", ours, trip["unary"], "hivemind unary", 8.0),
        compared("faster than stream", ours, trip["stream"], "hivemind stream", 3.0),
        compared("faster than py-libp2p", ours, pair, "py-libp2p pair", 20.0),
        Row("throughput, our frames", round(rate["frames"], 1), "MB/s"),
        Row("throughput, hivemind unary", round(rate["unary"], 1), "MB/s"),
        Row("throughput, hivemind stream", round(rate["stream"], 1), "MB/s"),
    ]


def main() -> None:
    """Measure, print the table and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer round trips")
    parser.add_argument("--interop-python", default=sys.executable, help="one with py-libp2p")
    arguments = parser.parse_args()
    trips, mebibytes = (500, 16) if arguments.quick else (5_000, 64)
    found = asyncio.run(measure(trips, mebibytes, arguments.interop_python))
    for row in found:
        verdict = {True: "met", False: "MISSED", None: ""}[row.met]
        value = "not run" if row.value is None else f"{row.value:g} {row.unit}"
        target = f"target {row.target:g}" if row.target else ""
        print(f"{row.name:<50} {value:>14}  {target:<12} {verdict}")
    machine = f"{platform.machine()} {platform.system()} python {platform.python_version()}"
    result = {"benchmark": "hop", "machine": machine, "rows": [asdict(row) for row in found]}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
