"""The ways to carry bytes that `hop.py` compares: our frames, and hivemind's two calls.

Knows how each way does one round trip and how it carries many megabytes; must not measure time.
"""

import asyncio
from collections.abc import AsyncIterator

from hivemind.p2p import P2P, PeerID
from hivemind.proto import runtime_pb2

from protocols.codec import FrameDecoder, encode
from protocols.messages.info import InfoRequest
from protocols.ports import Stream

FRAMES, UNARY, STREAM = "/hop/frames/1", "hop-unary", "hop-stream"
RAW, BLOCKING = "/hop/raw/1", "/hop/blocking/1"
PAYLOAD = b"x" * 1_152
"""A hidden state of 576 fp16 values."""
MEBIBYTE = 1 << 20
READ_BYTES = 1 << 18
ON_THE_WAY = 8


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
    """hivemind's own two ways to `peer`, over the daemon that `p2p` is attached to."""

    def __init__(self, p2p: P2P, peer: PeerID) -> None:
        self._p2p = p2p
        self._peer = peer
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
