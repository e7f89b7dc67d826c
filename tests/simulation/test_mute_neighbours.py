"""Peers that join and then answer nothing: they are not passed on, and nobody waits for them.

Every peer is the real record store over a wire in virtual time; see `dht_world`.
"""

import asyncio
import random
from typing import Any

from hivemind.p2p import PeerID
from hivemind.proto import dht_pb2

from protocols.adapters.libp2p.guard import node_id_of
from protocols.adapters.libp2p.records import CALL_SECONDS
from protocols.adapters.libp2p.responses import PATIENCE_SECONDS_MIN
from protocols.adapters.virtual import run_virtual
from protocols.signing import Identity
from tests.simulation.dht_world import DhtWorld, Honest, UnaryHandler, simulated_hivemind

METHODS = ("ping", "find", "store")
ROUND_SECONDS = 0.3
"""A few round trips of the simulated wire."""


class Mute:
    """Pings all and says nothing, or for a while behaves like a peer that knows nobody."""

    def __init__(self, world: DhtWorld, seed: int) -> None:
        self._world = world
        self.peer = PeerID.from_base58(Identity(seed.to_bytes(32, "big")).peer_id)
        self.is_mute = True
        self.asked = 0
        for method, answer in zip(
            METHODS,
            (dht_pb2.PingResponse, dht_pb2.FindResponse, dht_pb2.StoreResponse),
            strict=True,
        ):
            world.wire.serve(self.peer, f"DHTProtocol.rpc_{method}", self._handler(answer))

    def _handler(self, answer: Any) -> UnaryHandler:  # one of three protobuf classes
        async def handle(data: bytes, _caller: PeerID) -> bytes:
            self.asked += 1
            if self.is_mute:
                await asyncio.sleep(60.0)
            response = answer(peer=dht_pb2.NodeInfo(node_id=node_id_of(self.peer)))
            if answer is dht_pb2.FindResponse:
                keys = dht_pb2.FindRequest.FromString(data).keys
                response.results.extend(dht_pb2.FindResult() for _ in keys)
            if answer is dht_pb2.StoreResponse:
                response.store_ok.extend(True for _ in dht_pb2.StoreRequest.FromString(data).keys)
            return bytes(response.SerializeToString())

        return handle

    async def greet(self) -> None:
        request = dht_pb2.PingRequest(peer=dht_pb2.NodeInfo(node_id=node_id_of(self.peer)))
        for honest in self._world.honest:
            remote = PeerID.from_base58(honest.peer_id)
            await self._world.wire.call(
                self.peer, remote, "DHTProtocol.rpc_ping", request.SerializeToString()
            )


async def _world(seed: int, peers: int = 6) -> DhtWorld:
    world = DhtWorld(seed)
    rng = random.Random(seed)
    for _ in range(peers):
        known = [peer.peer_id for peer in world.honest[:2]]
        await world.join(Identity(rng.randbytes(32)), known)
    await asyncio.sleep(CALL_SECONDS)
    return world


def _slow_down(world: DhtWorld, seconds: float) -> None:
    quick = world.wire.call

    async def slow(caller: PeerID, peer: PeerID, name: str, data: bytes) -> bytes:
        await asyncio.sleep(seconds)
        return await quick(caller, peer, name, data)

    world.wire.call = slow  # type: ignore[method-assign]


async def _seconds_of(world: DhtWorld, writer: Honest, reader: Honest, key: str) -> list[float]:
    """How long a put and a get take."""
    began = world.clock.monotonic()
    assert await writer.records.put(key, writer.peer_id, b"value", world.clock.now() + 600)
    stored = world.clock.monotonic()
    found = await reader.records.get(key)
    assert found[writer.peer_id].value == b"value"
    return [stored - began, world.clock.monotonic() - stored]


def test_peers_that_never_answered_are_not_known_and_cost_nothing() -> None:
    async def live() -> None:
        world = await _world(1)
        with simulated_hivemind(world.clock):
            before = [peer.records.neighbours() for peer in world.honest]
            for number in range(4):
                await Mute(world, number).greet()
            assert [peer.records.neighbours() for peer in world.honest] == before
            for number in range(10):
                writer, reader = world.rng.sample(world.honest, 2)
                assert max(await _seconds_of(world, writer, reader, f"k/{number}")) < ROUND_SECONDS
            await world.close()

    run_virtual(live(), limit_seconds=1_000.0)


def test_those_that_fall_silent_later_are_waited_for_once_and_not_for_long() -> None:
    async def live() -> None:
        world = await _world(2)
        with simulated_hivemind(world.clock):
            known = world.honest[0].records.neighbours()
            others = [Mute(world, number) for number in range(4)]
            for other in others:
                other.is_mute = False
                await other.greet()
            await asyncio.sleep(CALL_SECONDS)
            assert world.honest[0].records.neighbours() == known + len(others)
            for other in others:
                other.is_mute = True
            writer, reader = world.honest[:2]
            first = await _seconds_of(world, writer, reader, "k/first")
            assert first[0] >= PATIENCE_SECONDS_MIN
            assert max(first) < 4 * PATIENCE_SECONDS_MIN + ROUND_SECONDS
            await asyncio.sleep(CALL_SECONDS)
            asked = sum(other.asked for other in others)
            again = await _seconds_of(world, writer, reader, "k/again")
            assert max(again) < ROUND_SECONDS
            assert sum(other.asked for other in others) == asked
            assert world.honest[0].records.neighbours() == known
            await world.close()

    run_virtual(live(), limit_seconds=1_000.0)


def test_one_that_was_silent_for_a_while_is_known_again_soon_after_it_calls() -> None:
    async def live() -> None:
        world = await _world(3)
        with simulated_hivemind(world.clock):
            known = world.honest[0].records.neighbours()
            other = Mute(world, 1)
            await other.greet()
            await asyncio.sleep(2 * CALL_SECONDS)
            other.is_mute = False
            await other.greet()
            assert world.honest[0].records.neighbours() == known, "too soon"
            await asyncio.sleep(5.0)
            await other.greet()
            await asyncio.sleep(1.0)
            assert world.honest[0].records.neighbours() == known + 1
            await world.close()

    run_virtual(live(), limit_seconds=1_000.0)


def test_one_that_is_slow_is_waited_for_when_nobody_else_has_an_answer() -> None:
    async def live() -> None:
        world = await _world(4, peers=2)
        with simulated_hivemind(world.clock):
            writer, reader = world.honest
            assert await writer.records.put("k", writer.peer_id, b"v", world.clock.now() + 600)
            _slow_down(world, 1.5)
            newcomer = await world.join(Identity(bytes(32)), [reader.peer_id])
            assert (await newcomer.records.get("k"))[writer.peer_id].value == b"v"
            await world.close()

    run_virtual(live(), limit_seconds=1_000.0)
