import asyncio
import socket
import tempfile
from contextlib import closing

from protocols.adapters.libp2p.pipe import Pipe
from protocols.adapters.libp2p.transport import stop_listening


async def test_a_connection_that_was_just_accepted_is_not_lost() -> None:
    """asyncio loses it, unclosed, if the server closes between its accepting and its wrapping."""
    opened: list[Pipe] = []
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/socket"
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(lambda: Pipe(opened.append), path)
        with closing(socket.socket(socket.AF_UNIX)) as client:
            client.connect(path)
            await asyncio.sleep(0)  # the round that accepts it, after this task
            await asyncio.sleep(0)  # the round that wraps it, after this task
            stop_listening(server)
            for _ in range(4):
                await asyncio.sleep(0)
            assert len(opened) == 1
            opened[0].abort()
            await asyncio.sleep(0)
            assert client.recv(1) == b""
        assert not server.is_serving()
