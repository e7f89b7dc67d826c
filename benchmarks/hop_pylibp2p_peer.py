"""py-libp2p's part of `hop.py`: an echo host, or a client that measures one. Needs no hivemind.

`python hop_pylibp2p_peer.py serve` prints its address and ends when its standard input does;
`... measure ADDRESS PROTOCOL TRIPS` prints the median round trip of 1,152 bytes in microseconds.
"""

import statistics
import sys
import time

import multiaddr  # type: ignore[import-not-found,unused-ignore]
import trio  # type: ignore[import-not-found,unused-ignore]
from libp2p import new_host  # type: ignore[import-not-found,unused-ignore]
from libp2p.abc import INetStream  # type: ignore[import-not-found,unused-ignore]
from libp2p.custom_types import (  # type: ignore[import-not-found,unused-ignore]
    TProtocol,
)
from libp2p.network.stream.exceptions import (  # type: ignore[import-not-found,unused-ignore]
    StreamEOF,
    StreamError,
)
from libp2p.peer.peerinfo import (  # type: ignore[import-not-found,unused-ignore]
    info_from_p2p_addr,
)

RAW = TProtocol("/hop/raw/1")
BYTES = 1_152


async def echo(stream: INetStream) -> None:
    """Send the bytes back."""
    try:
        while data := await stream.read(65_536):
            await stream.write(data)
    except (StreamEOF, StreamError):
        return


async def serve() -> None:
    """An echo host on loopback."""
    host = new_host(muxer_preference="YAMUX")
    async with host.run(listen_addrs=[multiaddr.Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        host.set_stream_handler(RAW, echo)
        address = str(host.get_addrs()[0])
        suffix = f"/p2p/{host.get_id()}"
        print(address if address.endswith(suffix) else address + suffix, flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)


async def measure(address: str, protocol: str, trips: int) -> None:
    """Median round trip over one open stream."""
    host = new_host(muxer_preference="YAMUX")
    async with host.run(listen_addrs=[]):
        info = info_from_p2p_addr(multiaddr.Multiaddr(address))
        await host.connect(info)
        stream = await host.new_stream(info.peer_id, [TProtocol(protocol)])
        times = []
        for _ in range(trips):
            before = time.perf_counter()
            await stream.write(b"x" * BYTES)
            received = 0
            while received < BYTES:
                received += len(await stream.read(BYTES - received))
            times.append(time.perf_counter() - before)
        print(statistics.median(times[trips // 10 :]) * 1e6, flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        trio.run(serve)
    else:
        trio.run(measure, sys.argv[2], sys.argv[3], int(sys.argv[4]))
