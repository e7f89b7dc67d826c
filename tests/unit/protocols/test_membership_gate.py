"""The gate at work between peers of the memory network, in virtual time."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec
import pytest

from protocols import access, allowances, versions
from protocols.adapters.memory import MemoryNetwork
from protocols.adapters.virtual import LoopClock, run_virtual
from protocols.channel import Channel
from protocols.codec import encode
from protocols.errors import DslmError, NotAdmitted, PeerUnreachable, TransportDown
from protocols.gate import HELLO_SECONDS, SwarmGate
from protocols.gating.policies import PrivatePolicy
from protocols.ids import PeerId
from protocols.membership.book import MemberBook, credential_of
from protocols.membership.documents import Role
from protocols.messages.hello import HELLO_BYTES_MAX, Hello, HelloMessage, Rejected
from protocols.ports import Stream, Transport
from tests.simulation.members import (
    DAY,
    Member,
    Owner,
    certify,
    credential,
    identity_of,
)

ISSUER = identity_of("issuer")


class Swarm:
    """A private swarm of members that have what they need, and know nothing of each other."""

    def __init__(self, network: MemoryNetwork, clock: LoopClock) -> None:
        self.network = network
        self.clock = clock
        self.owner = Owner()
        self.hellos: list[tuple[PeerId, PeerId]] = []

    async def member(self, name: str, roles: tuple[Role, ...] | None = None) -> Member:
        """A new one, connected to all there are."""
        identity, now = identity_of(name), self.clock.now()
        one = Member(self.owner, identity, self.clock, 1)
        one.kept.credential = (
            credential(self.owner, ISSUER, one.peer, now)
            if roles is None
            else credential_of(
                certify(ISSUER, self.owner.charter, one.peer, now, DAY, roles),
                self.owner.delegate(ISSUER.peer_id, now),
            )
        )
        others = self.network.peers()
        await one.join(self.network)
        await one.transport.serve(versions.INFO, _echo)
        self._count_hellos(one)
        for other in others:
            await one.transport.connect(f"/memory/{other}/p2p/{other}")
        return one

    async def stranger(self, name: str) -> Transport:
        """A peer without a gate that is connected to all there are."""
        others = self.network.peers()
        transport = self.network.join(identity_of(name)).transport
        for other in others:
            await transport.connect(f"/memory/{other}/p2p/{other}")
        return transport

    def _count_hellos(self, one: Member) -> None:
        answer = self.network._peers[one.peer].handlers[versions.HELLO]

        async def counted(stream: Stream) -> None:
            self.hellos.append((stream.peer, one.peer))
            await answer(stream)

        self.network._peers[one.peer].handlers[versions.HELLO] = counted


async def _echo(stream: Stream) -> None:
    while data := await stream.receive():
        await stream.send(data)


async def _ask(transport: Transport, peer: PeerId) -> bytes:
    """What comes back of four bytes sent."""
    stream = await transport.open_stream(peer, versions.INFO)
    try:
        await stream.send(b"ping")
        return await stream.receive()
    finally:
        stream.abort()


async def _hello(transport: Transport, peer: PeerId, *sent: msgspec.Struct | bytes) -> list[object]:
    """The messages that come back when we say `sent` at the door of `peer`."""
    stream = await transport.open_stream(peer, versions.HELLO)
    channel: Channel[HelloMessage] = Channel(stream, HelloMessage)
    found: list[object] = []
    with suppress(DslmError):
        for message in sent:
            await stream.send(message if isinstance(message, bytes) else encode(message))
        while (answer := await channel.receive()) is not None:
            found.append(answer)
            await stream.close()
    stream.abort()
    return found


def run(story: Callable[[Swarm], Awaitable[None]], limit: float = 3 * DAY) -> None:
    """`story` in a swarm of its own."""

    async def main() -> None:
        clock = LoopClock()
        async with MemoryNetwork(1, clock) as network:
            await story(Swarm(network, clock))
            assert network.defects == []

    run_virtual(main(), limit)


def test_one_hello_settles_both_directions() -> None:
    async def story(swarm: Swarm) -> None:
        alice, bob = await swarm.member("alice"), await swarm.member("bob")
        assert await _ask(bob.transport, alice.peer) == b"ping"
        assert await _ask(bob.transport, alice.peer) == b"ping"
        assert await _ask(alice.transport, bob.peer) == b"ping"
        assert swarm.hellos == [(bob.peer, alice.peer)]
        assert alice.gate.peers() == (bob.peer,)
        assert alice.gate.allowance(bob.peer) is allowances.MEMBER

    run(story)


def test_concurrent_greetings_share_one_exchange() -> None:
    async def story(swarm: Swarm) -> None:
        alice, bob = await swarm.member("alice"), await swarm.member("bob")
        async with asyncio.TaskGroup() as tasks:
            for _ in range(20):
                tasks.create_task(bob.gate.greet(alice.peer, versions.INFO))
        assert swarm.hellos == [(bob.peer, alice.peer)]

    run(story)


def test_a_greeting_that_is_given_up_does_not_take_the_others_along() -> None:
    async def story(swarm: Swarm) -> None:
        alice, bob = await swarm.member("alice"), await swarm.member("bob")
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(bob.gate.greet(alice.peer, versions.INFO))
            second = tasks.create_task(bob.gate.greet(alice.peer, versions.INFO))
            await asyncio.sleep(0)
            first.cancel()
        assert first.cancelled()
        assert second.result() is None

    run(story)


def test_strangers_get_a_short_no_and_soon_nothing_is_looked_at() -> None:
    async def story(swarm: Swarm) -> None:
        alice = await swarm.member("alice")
        stranger = await swarm.stranger("stranger")
        charter, now = swarm.owner.charter, swarm.clock.now()
        elsewhere = Owner("elsewhere")
        attempts = (
            Hello(charter.swarm),
            Hello(elsewhere.charter.swarm, 0, credential(elsewhere, ISSUER, PeerId("x"), now)),
            Hello(charter.swarm, 0, alice.kept.credential),
            Hello(charter.swarm, 2**60, proof=2**60),
        )
        for number, hello in enumerate(attempts):
            said = await _hello(stranger, alice.peer, hello)
            assert said == [Rejected("no place in this swarm")], "a stranger learns nothing else"
            assert await _hello(stranger, alice.peer, hello) == [
                Rejected("too soon after the last time")
            ]
            await asyncio.sleep(2.0**number)
        for broken in (Rejected("you"), b"\0\0\0\1\0\0\0\0\xc1", bytes(8), b"\xff" * 8):
            assert await _hello(stranger, alice.peer, broken) == []
        with pytest.raises(DslmError):
            assert await _ask(stranger, alice.peer) == b""
        assert alice.gate.peers() == ()
        assert alice.gate.allowance(stranger.peer_id) is allowances.NOBODY

    run(story)


def test_a_hello_is_bounded_in_bytes_and_time() -> None:
    async def story(swarm: Swarm) -> None:
        alice, stranger = await swarm.member("alice"), await swarm.stranger("stranger")
        large = (HELLO_BYTES_MAX + 1).to_bytes(4, "big") + bytes(4)
        assert await _hello(stranger, alice.peer, large) == []
        began = swarm.clock.monotonic()
        assert await _hello(stranger, alice.peer, bytes(3)) == []
        assert swarm.clock.monotonic() - began == pytest.approx(HELLO_SECONDS, abs=0.1)

    run(story)


@pytest.mark.parametrize("fault", ["other swarm", "expired", "none", "revoked"])
def test_members_do_not_speak_with_those_who_are_none(fault: str) -> None:
    async def story(swarm: Swarm) -> None:
        alice, bob = await swarm.member("alice"), await swarm.member("bob")
        now = swarm.clock.now()
        match fault:
            case "other swarm":
                elsewhere = Owner("elsewhere")
                bob.kept.credential = credential(elsewhere, ISSUER, bob.peer, now)
            case "expired":
                bob.kept.credential = credential(swarm.owner, ISSUER, bob.peer, now - DAY)
            case "none":
                bob.kept.credential = b""
            case "revoked":
                alice.book.offer_revocations(swarm.owner.revoke(bob.peer, now=now))
        with pytest.raises(NotAdmitted):
            await _ask(alice.transport, bob.peer)
        with pytest.raises(NotAdmitted):
            await _ask(bob.transport, alice.peer)
        assert alice.gate.peers() == ()

    run(story)


def test_the_outgoing_side_checks_as_well() -> None:
    async def story(swarm: Swarm) -> None:
        alice = await swarm.member("alice")
        liar = await swarm.stranger("liar")
        heard: list[object] = []

        async def welcome(stream: Stream) -> None:
            channel: Channel[HelloMessage] = Channel(stream, HelloMessage)
            heard.append(await channel.receive())
            await channel.send(Hello(swarm.owner.charter.swarm, 9, alice.kept.credential))
            heard.append(await channel.receive())

        await liar.serve(versions.HELLO, welcome)
        await liar.serve(versions.INFO, _echo)
        with pytest.raises(NotAdmitted, match="another peer's"):
            await _ask(alice.transport, liar.peer_id)
        await asyncio.sleep(0.1)
        assert heard[1:] == [Rejected("no place in this swarm")]

    run(story)


def test_a_failed_greeting_is_remembered_for_longer_and_longer() -> None:
    async def story(swarm: Swarm) -> None:
        alice = await swarm.member("alice")
        stranger = await swarm.stranger("stranger")
        asked: list[float] = []

        async def reject(stream: Stream) -> None:
            asked.append(swarm.clock.monotonic())
            await Channel(stream, HelloMessage).send(Rejected("no"))

        await stranger.serve(versions.HELLO, reject)
        for _ in range(400):
            with pytest.raises(NotAdmitted):
                await alice.gate.greet(stranger.peer_id, versions.INFO)
            await asyncio.sleep(0.5)
        pauses = [later - sooner for sooner, later in itertools.pairwise(asked)]
        assert pauses == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60], abs=0.6)
        assert alice.rejected_by == [stranger.peer_id] * len(asked)

    run(story)


def test_silence_is_given_up_and_retried_a_second_later() -> None:
    async def story(swarm: Swarm) -> None:
        alice, bob = await swarm.member("alice"), await swarm.member("bob")
        swarm.network.freeze(bob.peer)
        began = swarm.clock.monotonic()
        with pytest.raises(PeerUnreachable):
            await alice.gate.greet(bob.peer, versions.INFO)
        took = swarm.clock.monotonic() - began
        assert took == pytest.approx(HELLO_SECONDS, abs=0.1)
        with pytest.raises(PeerUnreachable):
            await alice.gate.greet(bob.peer, versions.INFO)
        assert swarm.clock.monotonic() - began == took
        swarm.network.thaw(bob.peer)
        await asyncio.sleep(1.0)
        await alice.gate.greet(bob.peer, versions.INFO)

    run(story)


def test_whoever_forgot_us_is_greeted_anew() -> None:
    async def story(swarm: Swarm) -> None:
        alice, bob = await swarm.member("alice"), await swarm.member("bob")
        assert await _ask(bob.transport, alice.peer) == b"ping"
        alice.book.forget(bob.peer)  # as by a restart
        with pytest.raises(DslmError):
            assert await _ask(bob.transport, alice.peer) == b"ping"
        bob.gate.forget(alice.peer)
        assert await _ask(bob.transport, alice.peer) == b"ping"
        assert len(swarm.hellos) == 2

    run(story)


def test_after_renewal_all_who_know_us_are_told_and_nobody_is_cut_off() -> None:
    async def story(swarm: Swarm) -> None:
        members = [await swarm.member(f"m{n}") for n in range(12)]
        first = members[0]
        for other in members[1:]:
            await other.gate.greet(first.peer, versions.INFO)
        await asyncio.sleep(DAY / 2)
        first.kept.credential = credential(swarm.owner, ISSUER, first.peer, swarm.clock.now())
        await first.gate.regreet()
        assert len(swarm.hellos) == 22
        await first.gate.regreet()
        assert len(swarm.hellos) == 22
        await asyncio.sleep(DAY / 2)
        for other in members[1:]:
            assert other.gate.admits(first.peer, versions.INFO)
            assert other.gate.sweep() == ()
        assert set(first.gate.sweep()) == {other.peer for other in members[1:]}

    run(story)


def test_a_call_after_renewal_shows_the_new_credential() -> None:
    async def story(swarm: Swarm) -> None:
        alice, bob = await swarm.member("alice"), await swarm.member("bob")
        await bob.gate.greet(alice.peer, versions.INFO)
        bob.kept.credential = credential(swarm.owner, ISSUER, bob.peer, swarm.clock.now() + 9)
        await bob.gate.greet(alice.peer, versions.INFO)
        assert len(swarm.hellos) == 2

    run(story)


def test_roles_decide_who_calls_what() -> None:
    async def story(swarm: Swarm) -> None:
        host = await swarm.member("host", (Role.NODE,))
        user = await swarm.member("user", (Role.USER,))
        await user.gate.greet(host.peer, versions.ASK)
        with pytest.raises(NotAdmitted, match="no role"):
            await host.gate.greet(user.peer, versions.ASK)
        await host.gate.greet(user.peer, versions.INFO)
        assert host.gate.admits(user.peer, versions.ASK)
        assert not host.gate.admits(user.peer, access.DHT_STORE)
        assert user.gate.admits(host.peer, access.DHT_STORE)
        for gate in (user.gate, host.gate):
            assert not gate.admits(host.peer, "/dslm/new/1")
            assert gate.admits(PeerId("anybody"), versions.HELLO)
            with pytest.raises(NotAdmitted, match="closed"):
                await gate.greet(user.peer, "/dslm/new/1")

    run(story)


def test_a_revoked_member_is_named_once_to_be_cut_off() -> None:
    async def story(swarm: Swarm) -> None:
        alice, bob = await swarm.member("alice"), await swarm.member("bob")
        await bob.gate.greet(alice.peer, versions.INFO)
        assert alice.gate.sweep() == ()
        alice.book.offer_revocations(swarm.owner.revoke(bob.peer, now=swarm.clock.now()))
        assert not alice.gate.admits(bob.peer, versions.INFO)
        assert alice.gate.sweep() == (bob.peer,)
        assert alice.gate.sweep() == ()

    run(story)


def test_epochs_are_told() -> None:
    async def story(swarm: Swarm) -> None:
        alice, bob = await swarm.member("alice"), await swarm.member("bob")
        alice.book.offer_revocations(swarm.owner.revoke(ISSUER.peer_id, now=swarm.clock.now()))
        other = identity_of("second issuer")
        for one in (alice, bob):
            one.kept.credential = credential(swarm.owner, other, one.peer, swarm.clock.now())
        await bob.gate.greet(alice.peer, versions.INFO)
        assert bob.gossip._wanted == {alice.peer: None}
        await asyncio.sleep(1.0)
        assert alice.gossip._wanted == {bob.peer: None}

    run(story)


def test_many_strangers_are_refused_without_being_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(swarm: Swarm) -> None:
        alice, bob = await swarm.member("alice"), await swarm.member("bob")
        await bob.gate.greet(alice.peer, versions.INFO)
        looked = 0

        def admit(*_: object) -> None:
            nonlocal looked
            looked += 1
            raise NotAdmitted("no")

        monkeypatch.setattr(PrivatePolicy, "admit", admit)
        answers = [
            alice.gate._judge(PeerId(f"stranger {n}"), Hello(swarm.owner.charter.swarm))
            for n in range(1_000)
        ]
        assert looked == 399, "the hello of bob was one"
        assert answers[-1] == Rejected("too many at the door")
        monkeypatch.undo()
        ours = Hello(swarm.owner.charter.swarm, 0, bob.kept.credential)
        assert isinstance(alice.gate._judge(bob.peer, ours), Hello), "members are not held up"

    run(story)


def test_without_a_transport_nothing_is_settled() -> None:
    async def story(swarm: Swarm) -> None:
        alice = await swarm.member("alice")
        gate = SwarmGate(alice.policy, swarm.clock)
        with pytest.raises(TransportDown):
            await gate.greet(ISSUER.peer_id, versions.INFO)
        assert not gate.admits(ISSUER.peer_id, versions.INFO)
        assert MemberBook(swarm.owner.charter).members(0.0) == ()

    run(story)
