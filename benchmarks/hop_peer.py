"""The other end of `hop.py`: an echo in each of the ways that are compared.

`python hop_peer.py FOLDER` prints its address and ends when its standard input does.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from hivemind.p2p import P2P, P2PContext
from hivemind.proto import runtime_pb2

from protocols.adapters.clock import SystemClock
from protocols.adapters.libp2p.network import Libp2pConfig, Libp2pNetwork
from protocols.codec import FrameDecoder, encode
from protocols.messages.info import InfoRequest
from protocols.ports import Stream
from protocols.signing import Identity

FRAMES = "/hop/frames/1"
RAW = "/hop/raw/1"
UNARY = "hop-unary"
STREAM = "hop-stream"
READ_BYTES = 1 << 18


async def echo_frames(stream: Stream) -> None:
    """Decode each frame, encode it again, send it back."""
    decoder: FrameDecoder[InfoRequest] = FrameDecoder(InfoRequest)
    while data := await stream.receive(READ_BYTES):
        for frame in decoder.feed(data):
            await stream.send(encode(frame.message, frame.payload))


async def echo_raw(stream: Stream) -> None:
    """Send the bytes back."""
    while data := await stream.receive(READ_BYTES):
        await stream.send(data)


async def echo_unary(
    request: runtime_pb2.ExpertRequest, _context: P2PContext
) -> runtime_pb2.ExpertRequest:
    """hivemind's unary call."""
    return request


async def echo_stream(
    requests: AsyncIterator[runtime_pb2.ExpertRequest], _context: P2PContext
) -> AsyncIterator[runtime_pb2.ExpertRequest]:
    """hivemind's stream of protobuf messages."""
    async for request in requests:
        yield request


async def main(folder: Path) -> None:
    """Serve until standard input ends."""
    config = Libp2pConfig(Identity.generate(), ("/ip4/127.0.0.1/tcp/0",), folder)
    async with Libp2pNetwork(config, SystemClock()) as network:
        await network.transport.serve(FRAMES, echo_frames)
        await network.transport.serve(RAW, echo_raw)
        # hivemind's own client of the same daemon
        p2p = await P2P.replicate(network.transport.daemon().p2p._daemon_listen_maddr)
        request = runtime_pb2.ExpertRequest
        await p2p.add_protobuf_handler(UNARY, echo_unary, request)
        await p2p.add_protobuf_handler(
            STREAM, echo_stream, request, stream_input=True, stream_output=True
        )
        print(network.transport.addresses()[0], flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await p2p.shutdown()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
