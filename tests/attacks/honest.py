"""`python -m tests.attacks.honest FOLDER ADDRESS`: a peer that only wants to work with the victim.

Knows the ordinary use of a node: info, a record put and found, a question to the record store, an
answer asked for. It times each request and checks each answer to the last token.
"""

import asyncio
import random
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import msgspec
import psutil
from hivemind.p2p import PeerID
from hivemind.proto import dht_pb2

from coordinator.asking import RemoteAnswerer
from coordinator.pinging import Pinger
from protocols.adapters.clock import SystemClock
from protocols.adapters.libp2p.network import Libp2pNetwork
from protocols.errors import DslmError, PeerLost
from protocols.ids import PeerId, parse_peer_id
from protocols.messages.ask import Ask, Finished, Sampling, Text, Tokens
from protocols.signing import Identity
from tests.attacks.fake_model import SPECIALIST, right_answer
from tests.attacks.nodes import key_id_of, make_network, make_record, read_record
from tests.attacks.programs import Command, Handler, Ready, say, serve

CLIENTS = 4
REQUEST_SECONDS = 20.0
PUT_AGAIN_SECONDS = 0.1
ASK_AGAIN_SECONDS = (0.5, 1.25)
"""A coordinator's pauses before it asks a peer that it lost once more."""
TOKENS = 16
LIFE_SECONDS = 900.0
PUBLISHED = 8
"""Records that each client put before anything happened, and that must stay."""
EVERY_SECONDS = {"info": 0.25, "put": 0.7, "get": 0.5, "find": 0.5, "ask": 0.4}
"""How often each client wants what; within what a newcomer to a public swarm may."""


class Window(msgspec.Struct):
    """What came of the requests of some seconds: kind, then latencies in seconds; and failures."""

    latencies: dict[str, list[float]] = {}
    failures: list[str] = []

    def values(self, kind: str = "") -> list[float]:
        """All latencies, or those of one kind."""
        kinds = [kind] if kind else list(self.latencies)
        return [value for one in kinds for value in self.latencies.get(one, [])]

    def add(self, other: "Window") -> None:
        """Take in another window's."""
        for kind, values in other.latencies.items():
            self.latencies.setdefault(kind, []).extend(values)
        self.failures.extend(other.failures)


class Wrong(Exception):
    """An answer came, but not the right one."""


class Client:
    """One honest peer."""

    def __init__(self, identity: Identity, network: Libp2pNetwork, victim: PeerId) -> None:
        self._identity = identity
        self._network = network
        self._victim = victim
        self._rng = random.Random(identity.peer_id)
        self._pinger = Pinger(network.transport, SystemClock(), self._rng)
        self._number = 0

    async def publish(self) -> None:
        """Put the records that must stay, until the victim itself holds each."""
        for number in range(PUBLISHED):
            key = self._key(number)
            await self._put(key, number)
            while not await self._is_held(key):
                await asyncio.sleep(PUT_AGAIN_SECONDS)
                await self._put(key, number)

    async def work(self, until: float) -> Window:
        """Request this and that until then."""
        window = Window()
        async with asyncio.TaskGroup() as tasks:
            for kind, every in EVERY_SECONDS.items():
                tasks.create_task(self._keep_on(kind, every, until, window))
        return window

    async def _keep_on(self, kind: str, every: float, until: float, window: Window) -> None:
        request: Callable[[], Awaitable[None]] = getattr(self, f"_{kind}_once")
        await asyncio.sleep(every * self._rng.random())
        while (started := time.monotonic()) < until:
            try:
                async with asyncio.timeout(REQUEST_SECONDS):
                    await request()
            except (DslmError, Wrong, TimeoutError) as error:
                window.failures.append(f"{kind}: {error!r}"[:200])
            window.latencies.setdefault(kind, []).append(time.monotonic() - started)
            await asyncio.sleep(max(0.0, started + every - time.monotonic()))

    async def _info_once(self) -> None:
        await self._pinger.ping(self._victim)

    async def _put_once(self) -> None:
        self._number += 1
        await self._put(f"moving/{self._identity.peer_id}/{self._number % 50}", self._number)

    async def _get_once(self) -> None:
        number = self._rng.randrange(PUBLISHED)
        found = await self._network.records.get(self._key(number))
        stored = found.get(self._identity.peer_id)
        if stored is None or read_record(stored.value) != str(number):
            raise Wrong(f"no such record among {len(found)}")

    async def _find_once(self) -> None:
        """The victim itself still holds our record, whatever others hold."""
        if not await self._is_held(self._key(self._rng.randrange(PUBLISHED))):
            raise Wrong("the victim lost a record")

    async def _is_held(self, key: str) -> bool:
        request = dht_pb2.FindRequest(keys=[key_id_of(key)])
        answer = await self._network.records._guard.call_protobuf_handler(
            PeerID.from_base58(self._victim),
            "DHTProtocol.rpc_find",
            request,
            dht_pb2.FindResponse,
        )
        return answer.results[0].type == dht_pb2.FOUND_DICTIONARY  # type: ignore[attr-defined, no-any-return]

    async def _ask_once(self) -> None:
        """As a coordinator does, again if the stream breaks; all of it is one request's time."""
        for pause in ASK_AGAIN_SECONDS:
            try:
                await self._ask()
            except PeerLost:
                await asyncio.sleep(pause)
            else:
                return
        await self._ask()

    async def _ask(self) -> None:
        self._number += 1
        prompt = f"question {self._number}"
        ask = Ask(f"r{self._number}", 0, SPECIALIST, Text(prompt), Sampling(), TOKENS, 10.0)
        answerer = RemoteAnswerer(self._network.transport, self._victim, ())
        ids: list[int] = []
        finished = False
        async with aclosing(answerer.answer(ask)) as messages:
            async for message in messages:
                if isinstance(message, Tokens):
                    ids += message.ids
                finished = finished or isinstance(message, Finished)
        if not finished or ids != right_answer(prompt, TOKENS):
            raise Wrong("another answer than the right one")

    async def _put(self, key: str, number: int) -> None:
        """As a node does, again until somebody keeps it; all of it counts as one request's time."""
        data, ends = make_record(self._identity, key, number, LIFE_SECONDS)
        while not await self._network.records.put(  # noqa: ASYNC110 - nothing tells when to
            key, self._identity.peer_id, data, ends
        ):
            await asyncio.sleep(PUT_AGAIN_SECONDS)

    def _key(self, number: int) -> str:
        return f"staying/{self._identity.peer_id}/{number}"


class Program:
    """Carries out the harness's commands."""

    def __init__(self, clients: list[Client]) -> None:
        self._clients = clients

    def handlers(self) -> dict[str, Handler]:
        """By name."""
        return {"publish": self._publish, "work": self._work}

    async def _publish(self, _command: Command) -> Window:
        for client in self._clients:
            await client.publish()
        return Window()

    async def _work(self, command: Command) -> Window:
        until = time.monotonic() + command.seconds
        windows = await asyncio.gather(*(client.work(until) for client in self._clients))
        total = Window()
        for window in windows:
            total.add(window)
        return total


async def main(folder: Path, address: str) -> None:
    """Join the victim, then work whenever told to."""
    victim = parse_peer_id(address.rpartition("/p2p/")[2])
    async with AsyncExitStack() as stack:
        clients = []
        for _ in range(CLIENTS):
            identity = Identity.generate()
            network = make_network(identity, folder, (address,))
            await stack.enter_async_context(network)
            assert network.bootstrap_report.reached, network.bootstrap_report
            clients.append(Client(identity, network, victim))
        say(Ready(daemons=[child.pid for child in psutil.Process().children()]))
        await serve(Program(clients).handlers())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
