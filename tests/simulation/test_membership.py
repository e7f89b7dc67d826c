"""Thirty members in virtual time: the owner's words reach all, and the revoked are cut off."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from protocols import versions
from protocols.adapters.memory import Conditions, MemoryNetwork
from protocols.adapters.virtual import LoopClock, run_virtual
from protocols.channel import Channel
from protocols.codec import encode
from protocols.errors import DslmError, NotAdmitted, PeerLost
from protocols.ids import PeerId
from protocols.messages.swarm import SwarmMessage, SwarmState
from protocols.ports import Stream
from tests.effort import few
from tests.simulation.members import DAY, Member, Owner, credential, identity_of

MEMBERS = 30
GREETED = 6
"""Of its elders, each member has met so many; the others it meets by and by."""
ISSUER = identity_of("issuer")


class World:
    """Members that all know each other, gossiping."""

    def __init__(self, network: MemoryNetwork, clock: LoopClock, seed: int) -> None:
        self.network = network
        self.clock = clock
        self.rng = random.Random(seed)
        self.owner = Owner()
        self.members = [
            Member(self.owner, identity_of(f"m{n}"), clock, seed) for n in range(MEMBERS)
        ]

    async def begin(self, tasks: asyncio.TaskGroup) -> list["asyncio.Task[None]"]:
        now = self.clock.now()
        for member in self.members:
            member.kept.credential = credential(self.owner, ISSUER, member.peer, now)
            await member.join(self.network)
            await member.transport.serve(versions.INFO, _echo)
        for number, member in enumerate(self.members):
            for other in self.members[:number]:
                await member.transport.connect(other.address())
            for other in self.rng.sample(self.members[:number], min(GREETED, number)):
                await member.gate.greet(other.peer, versions.INFO)
        return [
            *(tasks.create_task(member.gossip.run()) for member in self.members),
            *(tasks.create_task(self._stay_connected(member)) for member in self.members),
        ]

    async def _stay_connected(self, member: Member) -> None:
        """As the real network does: dial again whom we knew."""
        while True:
            await asyncio.sleep(self.rng.uniform(3.0, 6.0))
            for other in self.members:
                with suppress(DslmError):
                    await member.transport.connect(other.address())

    async def talk(self, asker: Member, server: Member) -> Stream:
        """A stream on which bytes go to and fro."""
        stream = await asker.transport.open_stream(server.peer, versions.INFO)
        await stream.send(b"ping")
        assert await stream.receive() == b"ping"
        return stream

    async def wait_known(self, epoch: int, by: list[Member]) -> float:
        """Until all of `by` have the list of `epoch`; how long that took."""
        began = self.clock.monotonic()
        while any(member.book.epoch < epoch for member in by):
            await asyncio.sleep(0.1)
            assert self.clock.monotonic() - began < 600
        return self.clock.monotonic() - began


async def _echo(stream: Stream) -> None:
    while data := await stream.receive():
        await stream.send(data)


def run(story: Callable[[World], Awaitable[None]], seed: int = 1) -> None:
    """`story` in a world that gossips, until it ends."""

    async def main() -> None:
        clock = LoopClock()
        conditions = Conditions(delay_min=0.005, delay_max=0.08, dead_after=20.0)
        async with MemoryNetwork(seed, clock, conditions) as network:
            world = World(network, clock, seed)
            async with asyncio.TaskGroup() as tasks:
                running = await world.begin(tasks)
                await story(world)
                for task in running:
                    task.cancel()
            assert network.defects == []

    run_virtual(main(), 2 * DAY)


def _publish(world: World, document: bytes, to: Member) -> Awaitable[None]:
    to.book.offer(document, world.clock.now())
    return to.gossip.settle()


def test_a_revoked_peer_is_cut_off_when_the_list_arrives() -> None:
    async def story(world: World) -> None:
        teller, host, revoked, *_ = world.members
        streams = [await world.talk(revoked, host), await world.talk(host, revoked)]
        honest = await world.talk(world.members[5], host)
        list_ = world.owner.revoke(revoked.peer, now=world.clock.now())
        await _publish(world, list_, teller)
        took = await world.wait_known(1, [one for one in world.members if one is not revoked])
        assert took < 2.0
        await asyncio.sleep(0.2)
        for stream in streams:
            with pytest.raises(PeerLost):
                await stream.send(b"more")
                assert await stream.receive() == b""
                raise PeerLost("an end is as good as a break")
        await honest.send(b"still")
        assert await honest.receive() == b"still"
        for one in world.members:
            if one is not revoked:
                assert not one.gate.admits(revoked.peer, versions.INFO)
                assert revoked.peer not in one.gate.peers()
                assert one.kept.revocations == list_, "a restart does not forget"
        with pytest.raises(DslmError):
            await world.talk(revoked, host)

    run(story)


@pytest.mark.parametrize("seed", few(range(4), 2))
def test_within_a_minute_everywhere_even_after_a_partition(seed: int) -> None:
    async def story(world: World) -> None:
        revoked, *others = world.members
        away = world.rng.sample(others, 10)
        here = [one for one in others if one not in away]
        talks = {one.peer: await world.talk(revoked, one) for one in others}
        world.network.partition([one.peer for one in away])
        await asyncio.sleep(1.0)
        began = world.clock.monotonic()
        await _publish(world, world.owner.revoke(revoked.peer, now=world.clock.now()), here[0])
        assert await world.wait_known(1, here) < 60.0
        await asyncio.sleep(30.0 * (seed % 2))  # long enough for the connections to be given up
        world.network.heal()
        healed = world.clock.monotonic()
        await world.wait_known(1, others)
        assert world.clock.monotonic() - healed < 60.0
        assert world.clock.monotonic() - began < 120.0
        await asyncio.sleep(0.2)
        for one in others:
            assert not one.gate.admits(revoked.peer, versions.INFO)
            with suppress(DslmError):
                await talks[one.peer].send(b"more")
                assert await talks[one.peer].receive() == b""

    run(story, seed)


def test_whoever_has_an_old_list_is_told_at_the_first_hello() -> None:
    async def story(world: World) -> None:
        late, revoked = world.members[0], world.members[1]
        world.network.kill(late.peer)
        others = [one for one in world.members if one not in (late, revoked)]
        await _publish(world, world.owner.revoke(revoked.peer, now=world.clock.now()), others[0])
        await world.wait_known(1, others)
        again = Member(world.owner, late.identity, world.clock, 2)
        again.kept.credential = late.kept.credential
        await again.join(world.network)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(again.gossip.run())
            await again.transport.connect(others[3].address())
            await again.gate.greet(others[3].peer, versions.INFO)
            assert await world.wait_known(1, [again]) < 2.0
            assert again.book.is_revoked(revoked.peer)
            running.cancel()

    run(story)


def test_delegations_get_around_and_make_new_issuers() -> None:
    async def story(world: World) -> None:
        new = world.members[7]
        now = world.clock.now()
        await _publish(world, world.owner.delegate(new.peer, now), world.members[0])
        await asyncio.sleep(3.0)
        for one in world.members:
            assert one.book.is_issuer(new.peer, now)
            assert set(one.kept.delegations) == set(one.book.delegations())
        swept = credential(world.owner, new.identity, world.members[3].peer, now)
        world.members[4].book.check(world.members[3].peer, swept, now)

    run(story)


@pytest.mark.slow
def test_rotation_leaves_no_honest_member_out() -> None:
    async def story(world: World) -> None:
        issuers = world.members[:2]
        now = world.clock.now()
        for one in issuers:
            await _publish(world, world.owner.delegate(one.peer, now), world.members[4])
        await asyncio.sleep(5.0)
        async with asyncio.TaskGroup() as tasks:
            renewing = [tasks.create_task(one.renewer.run()) for one in world.members]
            await asyncio.sleep(60.0)
            now = world.clock.now()
            for issuer in (*(one.peer for one in issuers), ISSUER.peer_id):
                await _publish(world, world.owner.delegate(issuer, now), world.members[9])
            await _publish(world, world.owner.rotate(now), world.members[9])
            for _ in range(20):
                await asyncio.sleep(15.0)
                for one in world.members[::9]:
                    peers = world.rng.sample(world.members, 2)
                    for other in peers:
                        if other is not one:
                            await one.gate.greet(other.peer, versions.INFO)
            for task in renewing:
                task.cancel()
        for one in world.members:
            assert one.book.epoch == 1
            certificate = one.book.check(one.peer, one.kept.credential, world.clock.now())
            assert certificate.issued_at >= now

    run(story)


def test_members_that_lie_about_the_swarm_are_not_believed() -> None:
    async def story(world: World) -> None:
        liar, victim = world.members[0], world.members[1]
        impostor = Owner("home")
        impostor.identity = identity_of("impostor")
        now = world.clock.now()
        lies = (
            SwarmState(9, (), impostor.revoke(victim.peer, now=now)),
            SwarmState(9, (impostor.delegate(liar.peer, now),)),
            SwarmState(9, (b"noise",)),
            SwarmState(9, (liar.kept.credential,)),
        )
        for lie in lies:
            stream = await liar.transport.open_stream(victim.peer, versions.SWARM)
            channel: Channel[SwarmState] = Channel(stream, SwarmMessage)
            await stream.send(encode(lie))
            with suppress(PeerLost):
                answer = await channel.receive()
                assert isinstance(answer, SwarmState)
                assert answer.revocations == b""
                assert await channel.receive() is None
            stream.abort()
        assert victim.book.epoch == 0
        assert not victim.book.is_issuer(liar.peer, now)
        assert victim.gate.admits(victim.peer, versions.HELLO)
        claim = await liar.transport.open_stream(victim.peer, versions.SWARM)
        await claim.send(encode(SwarmState(2**62)))  # and then nothing
        began = world.clock.monotonic()
        with suppress(PeerLost):
            while await claim.receive():
                pass
        assert world.clock.monotonic() - began < 15.0

    run(story)


def test_strangers_cannot_listen_to_gossip() -> None:
    async def story(world: World) -> None:
        stranger = world.network.join(identity_of("stranger")).transport
        host = world.members[0]
        await stranger.connect(host.address())
        received = b""
        with suppress(DslmError):
            stream = await stranger.open_stream(host.peer, versions.SWARM)
            await stream.send(encode(SwarmState(0)))
            received = await stream.receive()
        assert received == b""

    run(story)


def test_what_cannot_be_saved_is_obeyed_all_the_same_and_saved_later() -> None:
    async def story(world: World) -> None:
        teller, host, revoked = world.members[:3]
        is_full = True

        def save(data: bytes) -> None:
            if is_full:
                raise OSError("disk full")
            host.kept.revocations = data

        object.__setattr__(host.gossip._savers, "save_revocations", save)
        list_ = world.owner.revoke(revoked.peer, now=world.clock.now())
        await _publish(world, list_, teller)
        await asyncio.sleep(2.0)
        assert not host.gate.admits(revoked.peer, versions.INFO)
        assert host.kept.revocations == b""
        is_full = False
        await asyncio.sleep(11.0)
        assert host.kept.revocations == list_

    run(story)


def test_expired_members_are_swept_out_within_ten_seconds() -> None:
    async def story(world: World) -> None:
        host, guest = world.members[:2]
        now = world.clock.now()
        guest.kept.credential = credential(world.owner, ISSUER, guest.peer, now, 30.0)
        await guest.gate.greet(host.peer, versions.INFO)
        talk = await world.talk(guest, host)
        await asyncio.sleep(29.0)
        await talk.send(b"ping")
        assert await talk.receive() == b"ping"
        await asyncio.sleep(12.0)
        with pytest.raises(PeerLost):
            await talk.send(b"ping")
            assert await talk.receive() == b""
            raise PeerLost("an end is as good as a break")
        with pytest.raises(NotAdmitted):
            await guest.gate.greet(host.peer, versions.INFO)
        assert isinstance(guest.peer, str)
        assert PeerId(guest.peer) not in host.gate.peers()

    run(story)
