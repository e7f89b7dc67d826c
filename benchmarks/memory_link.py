"""A link of so many bits a second between nodes on one machine: a TCP proxy with a token bucket.

Knows sockets and time only. Run as `memory_link.py PORT TARGET_PORT BITS_PER_SECOND DELAY_SECONDS`;
it prints a line when it listens, and ends when its standard input does.
"""

import asyncio
import sys
from contextlib import suppress

CHUNK = 32_768
BURST_SECONDS = 0.005
UNDER_WAY_MAX = 64


class Bucket:
    """Lets `rate` bytes a second through."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free_at = 0.0

    async def take(self, count: int) -> None:
        """Until `count` bytes have gone."""
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now - BURST_SECONDS) + count / self._rate
        if self._free_at > now:
            await asyncio.sleep(self._free_at - now)


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, bucket: Bucket, delay: float
) -> None:
    """Pass bytes on, `delay` seconds late and no quicker than the bucket lets them."""
    loop = asyncio.get_running_loop()
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(UNDER_WAY_MAX)

    async def take() -> None:
        data = b"x"
        while data:
            try:
                data = await reader.read(CHUNK)
            except ConnectionError:
                data = b""
            await bucket.take(len(data))
            await under_way.put((loop.time() + delay, data))

    async def give() -> None:
        while (late := await under_way.get())[1]:
            await asyncio.sleep(max(0.0, late[0] - loop.time()))
            with suppress(ConnectionError):
                writer.write(late[1])
                await writer.drain()
        writer.close()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(take())
        tasks.create_task(give())


async def run(port: int, target: int, bits: float, delay: float) -> None:
    """Serve until standard input ends. Each direction has the whole rate."""
    buckets = Bucket(bits / 8), Bucket(bits / 8)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", target)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_pump(reader, back, buckets[0], delay))
            tasks.create_task(_pump(there, writer, buckets[1], delay))

    server = await asyncio.start_server(serve, "127.0.0.1", port, limit=4 * CHUNK)
    print("listening", flush=True)
    async with server:
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])))
