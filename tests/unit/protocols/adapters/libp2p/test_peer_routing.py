"""Who is where: what is answered to whom, and what is not read at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.adapters.clock import ManualClock
from protocols.adapters.libp2p.peer_routing import (
    PEERS_MAX,
    REQUEST_BYTES_MAX,
    Directory,
    PeerRouting,
    Whereabouts,
    encode_answer,
    is_passed_on,
    nearest,
    parse_find_node,
    take_message,
)
from protocols.adapters.libp2p.protobuf import encode_field, encode_varint, fields
from protocols.adapters.libp2p.turnstile import ROUTING_STREAMS_PER_PEER, Turnstile
from protocols.errors import Busy, PeerUnreachable, ProtocolError
from protocols.ids import PeerId, public_key_of
from protocols.signing import Identity
from tests.conformance.fake_gate import FakeGate

ASKING = Identity(b"a" * 32).peer_id
ADDRESS = b"\x04\x7f\x00\x00\x01\x06\x0f\xa1"


def raw(peer: PeerId) -> bytes:
    return bytes.fromhex("002408011220") + public_key_of(peer)


ME = Whereabouts(raw(Identity(b"m" * 32).peer_id), (ADDRESS,))
OTHERS = [raw(Identity(bytes([number]) * 32).peer_id) for number in range(30)]


def question(kind: int = 4, key: bytes = OTHERS[0]) -> bytes:
    body = encode_field(1, kind) + encode_field(2, key) + encode_field(10, 0)
    return encode_varint(len(body)) + body


def peers_in(answer: bytes) -> list[bytes]:
    message, rest = answer[len(encode_varint(len(answer) - 2)) :], b""
    assert rest == b""
    found = [value for number, value in fields(message) if number == 8]
    return [dict(fields(peer))[1] for peer in found if isinstance(peer, bytes)]  # type: ignore[misc]


class FakeConnections:
    def __init__(self) -> None:
        self.peers = list(OTHERS)
        self.asked = 0
        self.listed = 0

    def own_whereabouts(self) -> Whereabouts:
        return ME

    async def connected(self) -> list[bytes]:
        self.listed += 1
        return self.peers

    async def find(self, peer: bytes) -> tuple[bytes, ...]:
        self.asked += 1
        if peer == OTHERS[1]:
            raise PeerUnreachable("gone in between")
        return (ADDRESS, b"\x04\x7f\x00\x00\x01\x91\x02\x0f\xa1")


class FakeStream:
    """A stream with its bytes in pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self.peer = ASKING
        self.pieces = list(pieces)
        self.sent: list[bytes] = []

    async def receive(self, _max_bytes: int = 0) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""

    async def send(self, data: bytes) -> None:
        self.sent.append(data)

    async def close(self) -> None:
        return

    def abort(self) -> None:
        return


def routing(*, is_admitted: bool = True) -> tuple[PeerRouting, FakeConnections, ManualClock]:
    clock, connections, gate = ManualClock(), FakeConnections(), FakeGate()
    if is_admitted:
        gate.inside.add(ASKING)
    made = PeerRouting(Turnstile(clock, gate), Directory(clock, connections))
    return made, connections, clock


async def test_a_member_hears_of_the_nearest_and_of_who_was_asked_for() -> None:
    serve, _, _ = routing()
    stream = FakeStream(question())
    await serve(stream)
    found = peers_in(stream.sent[0])
    assert found[0] == OTHERS[0]
    assert len(found) == PEERS_MAX
    assert OTHERS[1] not in found, "its address is not known"


async def test_a_stranger_hears_of_nobody_but_us() -> None:
    serve, connections, _ = routing(is_admitted=False)
    stream = FakeStream(question())
    await serve(stream)
    assert peers_in(stream.sent[0]) == [ME.peer]
    assert connections.listed == 0


async def test_only_addresses_of_tcp_are_passed_on() -> None:
    serve, _, _ = routing()
    stream = FakeStream(question())
    await serve(stream)
    assert b"\x91\x02" not in stream.sent[0]
    assert is_passed_on(ADDRESS)
    assert is_passed_on(b"\x29" + bytes(16) + b"\x06\x0f\xa1")
    for bad in (b"", b"\x04", ADDRESS[:5], b"\x04\x7f\x00\x00\x01\x91\x02", b"\x04" * 500):
        assert not is_passed_on(bad)


async def test_questions_in_pieces_and_in_a_row() -> None:
    serve, connections, _ = routing()
    data = question() * 3
    stream = FakeStream(*[data[index : index + 1] for index in range(len(data))])
    await serve(stream)
    assert len(stream.sent) == 3
    assert connections.listed == 1


async def test_what_p2pd_told_is_used_for_a_while() -> None:
    serve, connections, clock = routing()
    await serve(FakeStream(question()))
    asked = connections.asked
    clock.advance(2)
    connections.peers = [*OTHERS[2:], raw(Identity(b"n" * 32).peer_id)]
    stream = FakeStream(question(key=connections.peers[-1]))
    await serve(stream)
    assert connections.asked == asked + 1
    assert peers_in(stream.sent[0])[0] == connections.peers[-1]
    assert OTHERS[0] not in peers_in(stream.sent[0])


@pytest.mark.parametrize("kind", [0, 1, 2, 3, 5, 99])
async def test_nothing_else_is_answered_least_of_all_stores(kind: int) -> None:
    serve, connections, _ = routing()
    stream = FakeStream(question(kind))
    with pytest.raises(ProtocolError):
        await serve(stream)
    assert stream.sent == []
    assert connections.listed == 0


async def test_too_many_questions() -> None:
    serve, _, _ = routing()
    with pytest.raises(Busy):
        await serve(FakeStream(*[question()] * 100))


def test_streams_have_seats_of_their_own() -> None:
    turnstile = Turnstile(ManualClock(), FakeGate())
    allowed = sum(turnstile.enter_routing(ASKING) for _ in range(10))
    assert allowed == ROUTING_STREAMS_PER_PEER
    turnstile.leave_routing(ASKING)
    assert turnstile.enter_routing(ASKING)
    assert turnstile.enter_stream(ASKING, "/dslm/hello/1")


def test_a_peer_is_not_told_about_itself() -> None:
    known = [Whereabouts(raw(ASKING), (ADDRESS,)), ME]
    assert nearest(raw(ASKING), known, ASKING) == [ME]


@pytest.mark.parametrize(
    "data", [b"\xff\xff", encode_varint(REQUEST_BYTES_MAX + 1), b"\x80\x80\x01" + bytes(10)]
)
def test_a_question_that_is_too_long_is_not_waited_for(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        take_message(data)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_question_or_refused(data: bytes) -> None:
    try:
        message, rest = take_message(data)
        if message is None:
            assert rest == data
        else:
            assert data.endswith(rest)
            parse_find_node(message)
    except ProtocolError:
        return


@given(st.lists(st.tuples(st.integers(1, 100), st.integers(0, 2**63) | st.binary(max_size=200))))
def test_fields_round_trip(content: list[tuple[int, int | bytes]]) -> None:
    assert list(fields(b"".join(encode_field(*field) for field in content))) == content


def test_an_answer_holds_a_bounded_number_of_addresses() -> None:
    assert len(encode_answer([Whereabouts(OTHERS[0], (ADDRESS,) * 1_000)], 0)) < 200
