"""Every protocol x every way to have no place: refused, and not a byte is given away.

The list of protocols is read from the source, so a handler that was added without a line in the
table of roles, or without a sample here, fails. The same over real connections is in
`tests/integration/test_gate_matrix.py`.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from node.services.ask import AskService
from node.services.ask_stream import AskStream
from node.services.info import InfoStream
from node.services.memory_stream import MemoryStream
from protocols import access, versions
from protocols.adapters.memory import MemoryNetwork
from protocols.adapters.virtual import LoopClock, run_virtual
from protocols.codec import FrameDecoder, encode
from protocols.errors import DslmError
from protocols.messages.enrol import EnrolMessage, EnrolRefused, EnrolRequest, RenewRequest
from protocols.messages.hello import Hello, HelloMessage, Rejected
from protocols.messages.info import InfoReply, Load
from protocols.messages.reach import ReachReply
from protocols.ports import Stream, Transport
from tests.simulation.intruders import (
    CASES,
    INTRUDER,
    ISSUER,
    MEMBER,
    REVOKED,
    SAMPLES,
    Shown,
    served_protocols,
    shown,
)
from tests.simulation.members import Member, Owner, credential, identity_of

GUARDED = sorted(served_protocols() - access.OPEN)
DHT = (access.DHT_PING, access.DHT_FIND, access.DHT_STORE)


class House:
    """A host that serves all protocols, and an honest member."""

    def __init__(self, network: MemoryNetwork, clock: LoopClock) -> None:
        self.network = network
        self.clock = clock
        self.owner = Owner()
        now = clock.now()
        self.host, self.member = (
            Member(self.owner, identity, clock, 1) for identity in (identity_of("host"), MEMBER)
        )
        for one in (self.host, self.member):
            one.kept.credential = credential(self.owner, ISSUER, one.peer, now)
        self.host.book.offer_delegation(self.owner.delegate(self.host.peer, now), now)
        self.host.book.offer_revocations(self.owner.revoke(REVOKED.peer_id, now=now))
        self.guests: dict[str, Transport] = {}

    async def open(self) -> None:
        await self.host.join(self.network)
        await self.member.join(self.network)
        transport = self.host.transport
        reply = InfoReply(1, "v", "secret", (), (), Load(), 0.0, False, "secret")
        await transport.serve(versions.INFO, InfoStream(lambda _: reply))
        await transport.serve(versions.ASK, AskStream(AskService({}, self.clock)))
        await transport.serve(versions.MEMORY, MemoryStream(None, lambda _: True))
        await transport.serve(versions.REACH, _reach)

    async def enter(self, guest: Shown) -> Transport:
        """The intruder's own transport, without a gate, connected to the host."""
        if guest.peer not in self.guests:
            identity = REVOKED if guest.peer == REVOKED.peer_id else INTRUDER
            self.guests[guest.peer] = self.network.join(identity).transport
            await self.guests[guest.peer].connect(self.host.address())
        return self.guests[guest.peer]


async def _reach(stream: Stream) -> None:
    await stream.receive()
    await stream.send(encode(ReachReply()))


async def _said(transport: Transport, peer: str, protocol: str, sent: bytes) -> bytes:
    """All that comes back for `sent`."""
    received = b""
    with suppress(DslmError):
        stream = await transport.open_stream(peer, protocol)  # type: ignore[arg-type]
        try:
            await stream.send(sent)
            while data := await stream.receive():
                received += data
                if protocol not in access.OPEN:
                    return received
                await stream.close()
        finally:
            stream.abort()
    return received


def run(story: Callable[[House], Awaitable[None]]) -> None:
    async def main() -> None:
        clock = LoopClock()
        async with MemoryNetwork(1, clock) as network:
            house = House(network, clock)
            await house.open()
            await story(house)
            assert network.defects == []

    run_virtual(main())


def test_every_handler_has_a_line_in_the_table() -> None:
    assert served_protocols() <= set(access.TABLE) | access.OPEN
    assert set(access.TABLE) == set(GUARDED) | set(DHT), "a line without a handler, or without one"
    assert set(versions.ALL) == served_protocols()
    assert set(GUARDED) == set(SAMPLES), "each handler needs a request that would be answered"


def test_the_reading_of_the_source_finds_what_is_served() -> None:
    async def story(house: House) -> None:
        assert set(house.network._peers[house.host.peer].handlers) == served_protocols()

    run(story)


@pytest.mark.parametrize("protocol", GUARDED)
def test_a_member_is_answered(protocol: str) -> None:
    async def story(house: House) -> None:
        await house.member.transport.connect(house.host.address())
        sample = encode(SAMPLES[protocol])
        assert await _said(house.member.transport, house.host.peer, protocol, sample)

    run(story)


@pytest.mark.parametrize("protocol", GUARDED)
@pytest.mark.parametrize("case", CASES)
def test_whoever_has_no_place_gets_not_a_byte(protocol: str, case: str) -> None:
    async def story(house: House) -> None:
        guest = shown(case, house.owner, house.clock.now())
        hello = encode(Hello(house.owner.charter.swarm, 0, guest.credential))
        if case == "replayed":
            hello = await _record(house)
        transport = await house.enter(guest)
        answer = await _said(transport, house.host.peer, versions.HELLO, hello)
        decoder: FrameDecoder[HelloMessage] = FrameDecoder(HelloMessage)
        (frame,) = decoder.feed(answer)
        assert isinstance(frame.message, Rejected)
        assert len(answer) < 100
        sample = encode(SAMPLES[protocol])
        for _ in range(2):
            assert await _said(transport, house.host.peer, protocol, sample) == b""
        assert guest.peer not in house.host.gate.peers()

    run(story)


async def _record(house: House) -> bytes:
    """A hello of the honest member, as it went over the wire."""
    heard: list[bytes] = []
    spy = house.network.join(identity_of("spy")).transport

    async def listen(stream: Stream) -> None:
        heard.append(await stream.receive())

    await spy.serve(versions.HELLO, listen)
    await house.member.transport.connect(spy.addresses()[0])
    with suppress(DslmError):
        await house.member.gate.greet(spy.peer_id, versions.INFO)
    assert house.member.kept.credential in heard[0]
    return heard[0]


@pytest.mark.parametrize("case", CASES)
def test_the_desk_gives_strangers_a_short_no(case: str) -> None:
    async def story(house: House) -> None:
        guest = shown(case, house.owner, house.clock.now())
        swarm = house.owner.charter.swarm
        transport = await house.enter(guest)
        asked = [EnrolRequest(swarm, INTRUDER.peer_id, bytes(64))]
        if case != "expired":  # whose holder was a member, and may become one again
            asked.append(RenewRequest(swarm, guest.credential))  # type: ignore[arg-type]
        for request in asked:
            answer = await _said(transport, house.host.peer, versions.ENROL, encode(request))
            decoder: FrameDecoder[EnrolMessage] = FrameDecoder(EnrolMessage)
            (frame,) = decoder.feed(answer)
            assert isinstance(frame.message, EnrolRefused)
            assert len(answer) < 200

    run(story)


@pytest.mark.parametrize("case", CASES)
def test_the_record_store_takes_nothing_and_gives_nothing(case: str) -> None:
    async def story(house: House) -> None:
        guest = shown(case, house.owner, house.clock.now())
        transport = await house.enter(guest)
        hello = encode(Hello(house.owner.charter.swarm, 0, guest.credential))
        await _said(transport, house.host.peer, versions.HELLO, hello)
        await house.member.transport.connect(house.host.address())
        for protocol in DHT:
            tables = await house.network.reach(guest.peer, "key", protocol)
            assert house.network._tables[house.host.peer] not in tables
            honest = await house.network.reach(house.member.peer, "key", protocol)
            assert house.network._tables[house.host.peer] in honest

    run(story)


def test_an_unknown_protocol_is_closed_to_members_too() -> None:
    async def story(house: House) -> None:
        await house.host.transport.serve("/dslm/new/1", _reach)
        await house.member.transport.connect(house.host.address())
        sample = encode(SAMPLES[versions.INFO])
        assert not await _said(house.member.transport, house.host.peer, "/dslm/new/1", sample)

    run(story)
