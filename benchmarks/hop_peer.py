"""The other end of `hop.py`: an echo in each of the ways that are compared.

`python hop_peer.py FOLDER` prints where they are found, as one line of JSON, and ends when its
standard input does.
"""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path

from hivemind.p2p import P2P, P2PContext
from hivemind.proto import runtime_pb2

from hop_floor import AsyncioEcho, listen_blocking, serve_blocking
from hop_ways import BLOCKING, FRAMES, RAW, READ_BYTES, STREAM, UNARY
from protocols.adapters.clock import SystemClock
from protocols.adapters.libp2p.control import handle_streams
from protocols.adapters.libp2p.network import Libp2pConfig, Libp2pNetwork
from protocols.codec import FrameDecoder, encode
from protocols.messages.info import InfoRequest
from protocols.ports import Stream
from protocols.signing import Identity


@dataclass(frozen=True, slots=True)
class Echoes:
    """Where the echoes are: multiaddresses, and TCP ports on loopback."""

    ours: str
    shipped: str
    asyncio_port: int
    blocking_port: int


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


async def serve_hivemind(p2p: P2P) -> None:
    """Let `p2p` answer hivemind's two calls."""
    request = runtime_pb2.ExpertRequest
    await p2p.add_protobuf_handler(UNARY, echo_unary, request)
    await p2p.add_protobuf_handler(
        STREAM, echo_stream, request, stream_input=True, stream_output=True
    )


async def serve_through_daemon(control: Path, folder: Path) -> None:
    """A blocking echo on the streams that p2pd brings, for the floor that the daemons set."""
    path = folder / "blocking.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    serve_blocking(listener, skip_header)
    await handle_streams(control, path, BLOCKING)


def skip_header(connection: socket.socket) -> None:
    """Read the header with which p2pd begins a stream: a varint length, then a message."""
    length = shift = 0
    while True:
        byte = connection.recv(1)[0]
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    connection.recv(length, socket.MSG_WAITALL)


async def main(folder: Path) -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    plain = await loop.create_server(AsyncioEcho, "127.0.0.1", 0)
    blocking = listen_blocking()
    serve_blocking(blocking)
    config = Libp2pConfig(
        Identity.generate(),
        ("/ip4/127.0.0.1/tcp/0",),
        folder,
        message_bytes_max=4 << 20,  # for the unary calls that we compare with
    )
    async with Libp2pNetwork(config, SystemClock()) as network:
        daemon = network.transport.daemon()
        await network.transport.serve(FRAMES, echo_frames)
        await network.transport.serve(RAW, echo_raw)
        await serve_through_daemon(daemon.control, folder)
        # hivemind's own client of the same daemon
        shared = await P2P.replicate(daemon.p2p.daemon_listen_maddr)
        await serve_hivemind(shared)
        shipped = await P2P.create(nat_port_map=False)
        await serve_hivemind(shipped)
        echoes = Echoes(
            network.transport.addresses()[0],
            str((await shipped.get_visible_maddrs())[0]),
            plain.sockets[0].getsockname()[1],
            blocking.getsockname()[1],
        )
        print(json.dumps(asdict(echoes)), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await shipped.shutdown()
        await shared.shutdown()
    plain.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
