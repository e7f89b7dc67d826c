"""Dial-back between peers of the memory network, with faked dials, in virtual time."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from random import Random

import pytest

from node.swarms import reach
from node.swarms.reach import ReachAsker, ReachPorts, ReachService
from node.swarms.reachability import Reachability
from protocols import versions
from protocols.adapters.memory import MemoryNetwork, MemoryPeer
from protocols.adapters.virtual import LoopClock, run_virtual
from protocols.channel import Channel
from protocols.errors import PeerLost, PeerUnreachable, Refused
from protocols.ids import PeerId
from protocols.messages.reach import ReachReply, ReachRequest
from protocols.ports import Stream
from protocols.signing import Identity

OPEN, CLOSED, BLACK_HOLE = (f"/ip4/45.90.7.1/tcp/{port}" for port in (1, 2, 3))
ELSEWHERE = "/ip4/45.90.7.2/tcp/1"
US = Identity(b"u" * 32)


@dataclass
class World:
    """Who dials what: OPEN answers, CLOSED refuses, BLACK_HOLE never says anything."""

    seen_from: tuple[str, ...] = ("/ip4/45.90.7.1/tcp/50000",)
    dials: list[str] = field(default_factory=list)
    seconds: float = 0.1

    async def probe(self, address: str, peer: PeerId) -> None:
        assert peer == US.peer_id
        self.dials.append(address)
        await asyncio.sleep(1e6 if address == BLACK_HOLE else self.seconds)
        if address != OPEN:
            raise PeerUnreachable("connection refused")

    async def observed(self, _: PeerId) -> Sequence[str]:
        return self.seen_from


class SlowWorld(World):
    """Everybody is there, three seconds away."""

    async def probe(self, address: str, peer: PeerId) -> None:  # noqa: ARG002
        await asyncio.sleep(3)


class FakeTransport:
    """The memory transport with addresses of the real world."""

    def __init__(self, peer: MemoryPeer, addresses: tuple[str, ...]) -> None:
        self._transport = peer.transport
        self.listening = addresses
        self.peer_id = peer.peer_id
        self.open_stream = peer.transport.open_stream

    def addresses(self) -> tuple[str, ...]:
        return tuple(f"{one}/p2p/{self.peer_id}" for one in self.listening)


@dataclass
class Scene:
    world: World
    network: MemoryNetwork
    us: MemoryPeer
    others: list[MemoryPeer]

    def asker(self, *addresses: str) -> ReachAsker:
        transport = FakeTransport(self.us, addresses or (OPEN, CLOSED))
        ports = ReachPorts(
            transport,  # type: ignore[arg-type]
            lambda: [other.peer_id for other in self.others],
            self.world.observed,
            LoopClock(),
            Random(1),
        )
        return ReachAsker(ports, Reachability())

    async def ask(self, *addresses: str) -> ReachReply:
        stream = await self.us.transport.open_stream(self.others[0].peer_id, versions.REACH)
        channel: Channel[ReachReply] = Channel(stream, ReachReply)
        await channel.send(ReachRequest(addresses))
        reply = await channel.receive()
        assert reply is not None
        return reply


def play(story: Callable[[Scene], Awaitable[None]], others: int = 1) -> None:
    async def main() -> None:
        world = World()
        async with MemoryNetwork(1, LoopClock()) as network:
            us = network.join(US)
            peers = [network.join(Identity(bytes([n] * 32))) for n in range(1, others + 1)]
            for peer in peers:
                service = ReachService(world.probe, world.observed, LoopClock())
                await peer.transport.serve(versions.REACH, service)
                await us.transport.connect(peer.transport.addresses()[0])
            await story(Scene(world, network, us, peers))
        assert network.defects == []

    run_virtual(main(), limit_seconds=20_000)


def test_the_service_says_what_it_found_at_each_address() -> None:
    async def story(scene: Scene) -> None:
        began = asyncio.get_running_loop().time()
        reply = await scene.ask(OPEN, CLOSED, BLACK_HOLE, ELSEWHERE)
        assert reply.reached == (OPEN,)
        assert reply.observed == scene.world.seen_from
        assert [line.partition(": ")[0] for line in reply.failed] == [CLOSED, BLACK_HOLE, ELSEWHERE]
        assert scene.world.dials == [OPEN, CLOSED, BLACK_HOLE]
        assert asyncio.get_running_loop().time() - began < reach.PROBE_SECONDS + 2

    play(story)


def test_nothing_is_dialled_for_a_peer_that_is_seen_nowhere() -> None:
    async def story(scene: Scene) -> None:
        scene.world.seen_from = ()
        reply = await scene.ask(OPEN, "/ip4/127.0.0.1/tcp/22")
        assert reply.reached == ()
        assert scene.world.dials == []

    play(story)


def test_the_same_address_twice_is_dialled_once() -> None:
    async def story(scene: Scene) -> None:
        reply = await scene.ask(OPEN, OPEN)
        assert (reply.reached, scene.world.dials) == ((OPEN,), [OPEN])

    play(story)


def test_five_addresses_break_the_protocol() -> None:
    async def story(scene: Scene) -> None:
        with pytest.raises((PeerLost, AssertionError)):
            await scene.ask(*(f"/ip4/45.90.7.1/tcp/{port}" for port in range(1, 6)))
        assert scene.world.dials == []

    play(story)


def test_one_request_at_a_time_and_few_of_them() -> None:
    async def story(scene: Scene) -> None:
        async with asyncio.TaskGroup() as tasks:
            both = [tasks.create_task(scene.ask(OPEN)) for _ in range(2)]
        assert sorted(bool(one.result().refused) for one in both) == [False, True]
        replies = [await scene.ask(OPEN) for _ in range(10)]
        assert sum(not one.refused for one in replies) == reach.BURST - 1
        assert len(scene.world.dials) == reach.BURST
        await asyncio.sleep(reach.SECONDS_PER_REQUEST + 1)
        assert not (await scene.ask(OPEN)).refused

    play(story)


def test_many_askers_are_served_in_turn_and_not_remembered_for_ever() -> None:
    async def main() -> None:
        world = SlowWorld()
        service = ReachService(world.probe, world.observed, LoopClock())
        async with MemoryNetwork(1, LoopClock()) as network:
            server = network.join(Identity(b"s" * 32))
            await server.transport.serve(versions.REACH, service)
            askers = [network.join(Identity(n.to_bytes(32, "big"))) for n in range(1, 13)]
            for one in askers:
                await one.transport.connect(server.transport.addresses()[0])
            scenes = [Scene(world, network, one, [server]) for one in askers]
            async with asyncio.TaskGroup() as tasks:
                asked = [tasks.create_task(scene.ask(OPEN)) for scene in scenes]
        refused = [one.result().refused for one in asked]
        assert sum(not one for one in refused) == reach.RUNNING_MAX
        for number in range(2_000):
            service._visitor(PeerId(str(number)))
        assert len(service._visitors) == reach.VISITORS_MAX

    run_virtual(main())


def test_a_silent_or_vanished_asker_costs_nothing() -> None:
    async def story(scene: Scene) -> None:
        server = scene.others[0].peer_id
        silent = await scene.us.transport.open_stream(server, versions.REACH)
        await asyncio.sleep(6)
        with pytest.raises(PeerLost):
            while await silent.receive():
                pass
        gone = await scene.us.transport.open_stream(server, versions.REACH)
        await Channel[ReachReply](gone, ReachReply).send(ReachRequest((OPEN,)))
        gone.abort()
        await asyncio.sleep(5)
        assert not (await scene.ask(OPEN)).refused

    play(story)


def test_two_peers_make_an_address_count() -> None:
    async def story(scene: Scene) -> None:
        asker = scene.asker()
        end = f"/p2p/{US.peer_id}"
        assert asker.announced() == (OPEN + end, CLOSED + end)
        report = await asker.check()
        assert (report.asked, report.answered, report.errors) == (3, 3, ())
        assert asker.announced() == asker.reached() == (OPEN + end,)

    play(story, others=3)


def test_a_change_is_told_once() -> None:
    async def story(scene: Scene) -> None:
        asker, changes = scene.asker(), []
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(asker.run(lambda: changes.append(asker.announced())))
            await asyncio.sleep(120)
            running.cancel()
        assert changes == [(f"{OPEN}/p2p/{US.peer_id}",)]

    play(story, others=3)


def test_in_rest_little_is_asked_and_a_lost_address_is_noticed() -> None:
    async def story(scene: Scene) -> None:
        asker = scene.asker(OPEN)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(asker.run(lambda: None))
            await asyncio.sleep(7_200)
            hourly = len(scene.world.dials) / 2
            assert 4 <= hourly <= 60
            scene.world.seen_from = ("/ip4/45.90.7.1/tcp/5",)

            async def refuse(address: str, _: PeerId) -> None:
                raise PeerUnreachable(address)

            for peer in scene.others:
                service = ReachService(refuse, scene.world.observed, LoopClock())
                await peer.transport.serve(versions.REACH, service)
            await asyncio.sleep(1_800)
            assert asker.reached() == ()
            running.cancel()

    play(story, others=5)


def test_peers_that_do_not_answer_do_not_count_and_are_left_alone() -> None:
    async def hang(_: Stream) -> None:
        await asyncio.sleep(1e6)

    async def refuse(_: Stream) -> None:
        raise Refused("not today")

    async def story(scene: Scene) -> None:
        await scene.others[0].transport.serve(versions.REACH, hang)
        await scene.others[1].transport.serve(versions.REACH, refuse)
        scene.network.kill(scene.others[2].peer_id)
        asker = scene.asker(OPEN)
        report = await asker.check()
        assert (report.asked, report.answered, len(report.errors)) == (4, 1, 3)
        assert asker.reached() == (f"{OPEN}/p2p/{US.peer_id}",)
        assert (await asker.check()).asked == 0

    play(story, others=4)


def test_nobody_there_is_no_fault() -> None:
    async def story(scene: Scene) -> None:
        scene.others.clear()
        asker = scene.asker(OPEN)
        assert (await asker.check()).asked == 0
        assert asker.announced() == (f"{OPEN}/p2p/{US.peer_id}",)

    play(story)
