"""A libp2p peer in a process of its own, and the behaviours that the conformance suite talks to.

`python peer_process.py FOLDER` serves all behaviours, prints its address, and ends when its
standard input does. hivemind and py-libp2p cannot be imported into one process (both register a
protobuf file of the same name), so the client-only adapter is tested against this.
"""

import asyncio
import sys
from pathlib import Path

from protocols.ports import Stream, Transport

ECHO = "/conformance/echo/1"
WHO = "/conformance/who/1"
COUNT = "/conformance/count/1"
FAIL = "/conformance/fail/1"
PARTING = "/conformance/parting/1"
COUNTED = 5_000


async def echo(stream: Stream) -> None:
    while data := await stream.receive():
        await stream.send(data)


async def who(stream: Stream) -> None:
    """Tell the peer who we know it to be."""
    await stream.send(stream.peer.encode())


async def count(stream: Stream) -> None:
    """Read all that comes up to the end of a line, then say how many bytes it was."""
    total = 0
    while not (data := await stream.receive()).endswith(b"\n"):
        total += len(data)
    await stream.send(str(total + len(data)).encode())


async def fail(stream: Stream) -> None:
    await stream.receive(1)
    raise ValueError("a defect in a handler")


async def parting(stream: Stream) -> None:
    """Send many numbered lines and end at once."""
    await stream.receive(1)
    for number in range(COUNTED):
        await stream.send(f"{number}\n".encode())


BEHAVIOURS = {ECHO: echo, WHO: who, COUNT: count, FAIL: fail, PARTING: parting}


async def serve_all(transport: Transport) -> None:
    for protocol, behaviour in BEHAVIOURS.items():
        await transport.serve(protocol, behaviour)


async def main(folder: Path) -> None:
    from protocols.adapters.clock import SystemClock
    from protocols.adapters.libp2p.network import Libp2pConfig, Libp2pNetwork
    from protocols.signing import Identity

    config = Libp2pConfig(Identity.generate(), ("/ip4/127.0.0.1/tcp/0",), folder)
    async with Libp2pNetwork(config, SystemClock()) as network:
        await serve_all(network.transport)
        sys.stdout.write(f"{network.transport.addresses()[0]}\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
