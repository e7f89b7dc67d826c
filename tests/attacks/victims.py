"""`python -m tests.attacks.victims plain|ours FOLDER TABLE_BYTES`: a node to attack, in a process.

`plain` is hivemind 1.1.12 as it comes: `DHTNode.create` on `P2P.create`, and its own handler of
tensors. `ours` is what `dslm serve` puts together, with a fake engine. Both may hold 1,024 files.
"""

import asyncio
import logging
import resource
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Protocol, cast

import msgspec
import psutil
from hivemind.dht.node import DHTNode
from hivemind.dht.routing import DHTID
from hivemind.p2p import P2P

from node.services.ask import AskService
from node.services.ask_stream import AskStream
from node.services.info import InfoStream
from protocols import access, versions
from protocols.adapters.clock import SystemClock
from protocols.adapters.libp2p.network import Libp2pNetwork
from protocols.channel import Channel
from protocols.errors import ProtocolError
from protocols.limits import PAYLOAD_BYTES_MAX
from protocols.messages.info import InfoReply, Load
from protocols.ports import Stream
from protocols.signing import Identity
from protocols.tensors import TensorSpec, split_payload
from tests.attacks.fake_model import SPECIALIST, start_model
from tests.attacks.nodes import key_id_of, make_network, make_record, read_record
from tests.attacks.programs import Answer, Command, Handler, Ready, say, serve
from tests.attacks.streams import TENSORS

FILES = 1024
"""What most systems let a process open; one stream costs a node one file."""
LIFE_SECONDS = 600.0
GET_SECONDS = 3.0
NEAREST = 20


class Arrays(msgspec.Struct, tag="tensors"):
    """How a protocol of ours names the arrays in a payload."""

    arrays: Annotated[list[TensorSpec], msgspec.Meta(max_length=64)]


class Victim(Protocol):
    """A node under attack, seen from inside."""

    node: DHTNode

    async def put(self, key: str, value: str) -> None:
        """Publish something of our own."""
        ...

    async def get(self, key: str) -> str | None:
        """What lies under our own name."""
        ...

    def key_id(self, key: str) -> bytes:
        """Where a key lies in the DHT."""
        ...


class Plain:
    """hivemind's node."""

    def __init__(self, node: DHTNode, me: str) -> None:
        self.node = node
        self._me = me

    async def put(self, key: str, value: str) -> None:
        """See `Victim`."""
        assert await self.node.store(key, value, time.time() + LIFE_SECONDS, subkey=self._me)

    async def get(self, key: str) -> str | None:
        """See `Victim`."""
        found = await self.node.get(key, latest=True)
        if found is None or not isinstance(found.value, dict):
            return None
        item = found.value.get(self._me)
        return str(item.value) if item else None

    def key_id(self, key: str) -> bytes:
        """See `Victim`."""
        return bytes(DHTID.generate(key).to_bytes())


class Ours:
    """A node of ours."""

    def __init__(self, identity: Identity, network: Libp2pNetwork) -> None:
        self._identity = identity
        self._records = network.records
        self.node: DHTNode = network.records._node

    async def put(self, key: str, value: str) -> None:
        """See `Victim`."""
        data, expires_at = make_record(self._identity, key, int(value), LIFE_SECONDS)
        assert await self._records.put(key, self._identity.peer_id, data, expires_at)

    async def get(self, key: str) -> str | None:
        """See `Victim`."""
        stored = (await self._records.get(key)).get(self._identity.peer_id)
        return None if stored is None else read_record(stored.value)

    def key_id(self, key: str) -> bytes:
        """See `Victim`."""
        return key_id_of(key)


class Stalls:
    """Times every callback of the event loops of this process.

    Single ones: on a busy machine many short ones come together and are nobody's fault.
    """

    def __init__(self) -> None:
        self._longest = 0.0
        self._run = asyncio.Handle._run
        asyncio.Handle._run = self._timed()  # type: ignore[method-assign,assignment]

    def take(self) -> float:
        """The longest since this was asked last, in processor seconds."""
        longest, self._longest = self._longest, 0.0
        return longest

    def close(self) -> None:
        """Time no more."""
        asyncio.Handle._run = self._run  # type: ignore[method-assign]

    def _timed(self) -> Callable[[asyncio.Handle], None]:
        def run(handle: asyncio.Handle) -> None:
            before = time.thread_time()
            self._run(handle)
            self._longest = max(self._longest, time.thread_time() - before)

        return run


class Inside:
    """Carries out the harness's commands inside the victim."""

    def __init__(self, victim: Victim) -> None:
        self._victim = victim
        self._stalls = Stalls()

    def close(self) -> None:
        """Stop watching."""
        self._stalls.close()

    def handlers(self) -> dict[str, Handler]:
        """By name."""
        return {
            "put": self._put,
            "get": self._get,
            "key_id": self._key_id,
            "places": self._places,
            "stalled": self._stalled,
            "table": self._table,
        }

    async def _put(self, command: Command) -> Answer:
        await self._victim.put(command.key, command.value)
        return Answer()

    async def _get(self, command: Command) -> Answer:
        """`seconds` is how long it took; an error if it never came back."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(GET_SECONDS):
                found = await self._victim.get(command.key)
        except TimeoutError:
            return Answer(error="reading hangs", seconds=GET_SECONDS)
        return Answer(found=found, seconds=time.monotonic() - started)

    async def _key_id(self, command: Command) -> Answer:
        return Answer(found=self._victim.key_id(command.key).hex())

    async def _places(self, command: Command) -> Answer:
        """How many of the 20 nearest to a key are one peer."""
        key = DHTID.from_bytes(self._victim.key_id(command.key))
        table = self._victim.node.protocol.routing_table
        nearest = table.get_nearest_neighbors(key, NEAREST)
        peers = [peer.to_base58() for _, peer in nearest]
        return Answer(count=peers.count(command.peer))

    async def _stalled(self, _command: Command) -> Answer:
        """The longest time that something kept the event loop since this was asked last.

        In processor seconds, for others' work on the machine is not to be blamed on the attack.
        """
        return Answer(seconds=self._stalls.take())

    async def _table(self, _command: Command) -> Answer:
        """`count`: bytes in the table of records (ours), or entries of its heap (plain)."""
        storage = self._victim.node.protocol.storage
        heap = getattr(storage, "expiration_heap", None)
        return Answer(count=storage._bytes if heap is None else len(heap))


async def take_arrays(stream: Stream) -> None:
    """A protocol with arrays, as those of spans and adapters: check them, say how many came."""
    channel: Channel[Arrays] = Channel(stream, Arrays, payload_max=PAYLOAD_BYTES_MAX)
    try:
        async with asyncio.timeout(5.0):
            while (frame := await channel.receive_frame()) is not None:
                parts = split_payload(frame.message.arrays, frame.payload)
                await stream.send(bytes([len(parts)]))
    except (ProtocolError, TimeoutError):
        stream.abort()


def describe(nonce: int) -> InfoReply:
    """What the victim says about itself."""
    return InfoReply(
        nonce,
        software=versions.SOFTWARE,
        swarm="attacked",
        protocols=versions.ALL,
        specialists=(SPECIALIST,),
        load=Load(),
        clock=time.time(),
    )


async def serve_plain(_folder: Path, _table_bytes: int) -> None:
    """hivemind's node and hivemind's handler of tensors, as they come."""
    from hivemind.moe.server.connection_handler import ConnectionHandler

    p2p = await P2P.create()
    node = await DHTNode.create(p2p=p2p)
    handler = object.__new__(ConnectionHandler)  # its methods, without a process for them
    handler.module_backends = {}
    await handler.add_p2p_handlers(p2p)
    address = f"{(await p2p.get_visible_maddrs())[0]}"
    try:
        await serve_victim(Plain(node, p2p.peer_id.to_base58()), address, p2p.peer_id.to_base58())
    finally:
        await p2p.shutdown()


async def serve_ours(folder: Path, table_bytes: int) -> None:
    """What `dslm serve` puts together for its peers."""
    identity, clock = Identity.generate(), SystemClock()
    async with AsyncExitStack() as stack:
        model = await start_model()
        stack.push_async_callback(model.loop.close)
        cast("dict[str, access.Access]", access.TABLE)[TENSORS] = access.TABLE[versions.INFO]
        network = make_network(identity, folder, table_bytes=table_bytes)
        await stack.enter_async_context(network)
        service = AskService({model.specialist: model}, clock)
        await network.transport.serve(versions.INFO, InfoStream(describe))
        await network.transport.serve(versions.ASK, AskStream(service))
        await network.transport.serve(TENSORS, take_arrays)
        address = network.transport.addresses()[0]
        await serve_victim(Ours(identity, network), address, identity.peer_id)


async def serve_victim(victim: Victim, address: str, peer: str) -> None:
    """Obey the harness until it has had enough."""
    daemons = [child.pid for child in psutil.Process().children() if "p2pd" in child.name()]
    say(Ready(address, peer, daemons))
    inside = Inside(victim)
    try:
        await serve(inside.handlers())
    finally:
        inside.close()


def main(kind: str, folder: Path, table_bytes: int) -> None:
    """Run one victim."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
    logging.disable(logging.CRITICAL)
    asyncio.run((serve_plain if kind == "plain" else serve_ours)(folder, table_bytes))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
