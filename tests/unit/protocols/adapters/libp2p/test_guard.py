"""The guard's decisions, message by message, without a network."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import cast

import msgspec
import pytest
from hivemind.dht.routing import DHTID
from hivemind.dht.storage import DictionaryDHTValue
from hivemind.p2p import PeerID
from hivemind.p2p.p2p_daemon_bindings.utils import P2PHandlerError
from hivemind.proto import dht_pb2
from hivemind.utils import MSGPackSerializer
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols import access, allowances, limits
from protocols.adapters.clock import ManualClock
from protocols.adapters.libp2p import guard
from protocols.adapters.libp2p.dht_messages import Message
from protocols.adapters.libp2p.guard import Entry, GuardedP2P
from protocols.adapters.libp2p.turnstile import Turnstile
from protocols.adapters.virtual import run_virtual
from protocols.errors import (
    Busy,
    DeadlineExceeded,
    DslmError,
    NotAdmitted,
    PeerLost,
    ProtocolError,
    TransportDown,
)
from protocols.ids import PeerId
from protocols.ports import Allowance, Transport
from protocols.signing import Identity
from tests.effort import examples

NOW = 1_800_000_000.0
LATER = NOW + 600
encode = msgspec.msgpack.encode
SUBKEY = Identity(b"s" * 32).peer_id
PEER = PeerID.from_base58(Identity(b"p" * 32).peer_id)
OTHER = PeerID.from_base58(Identity(b"o" * 32).peer_id)
KEY = DHTID.generate("key").to_bytes()


def entry(
    value: bytes = encode(b"value"), expires_at: float = LATER, subkey: str = SUBKEY
) -> Entry:
    return Entry(subkey, value, expires_at)


def store_request(*entries: Entry, in_cache: bool = False) -> dht_pb2.StoreRequest:
    return dht_pb2.StoreRequest(
        keys=[KEY] * len(entries),
        subkeys=[encode(item.subkey) for item in entries],
        values=[item.value for item in entries],
        expiration_time=[item.expires_at for item in entries],
        in_cache=[in_cache] * len(entries),
    )


def test_an_honest_entry_is_sound() -> None:
    assert guard.is_entry_sound(entry(), NOW)
    assert guard.is_entry_sound(entry(encode(b"x" * limits.RECORD_BYTES_MAX)), NOW)


@pytest.mark.parametrize(
    "bad",
    [
        entry(expires_at=math.inf),
        entry(expires_at=math.nan),
        entry(expires_at=-math.inf),
        entry(expires_at=NOW),
        entry(expires_at=NOW - 1),
        entry(expires_at=NOW + 3_700),
        entry(value=b"\xc1"),
        entry(value=b""),
        entry(value=encode("text")),
        entry(value=encode(b"x") + b"\x00"),
        entry(value=encode([b"x"])),
        entry(value=encode(b"x" * (limits.RECORD_BYTES_MAX + 1))),
        entry(value=b"\xc6\xff\xff\xff\xff"),
        entry(subkey="nobody"),
        entry(subkey=""),
        entry(subkey="1" * 1_000),
    ],
)
def test_an_unsound_entry_is_found_out(bad: Entry) -> None:
    assert not guard.is_entry_sound(bad, NOW)
    cleaned, kept = guard.clean_store(store_request(bad, entry()), NOW)
    assert kept == [False, True]
    assert list(cleaned.values) == [encode(b"value")]


def test_plain_values_and_cached_values_are_not_kept() -> None:
    request = store_request(entry())
    request.subkeys[0] = encode(None)
    assert guard.clean_store(request, NOW)[1] == [False]
    assert guard.clean_store(store_request(entry(), in_cache=True), NOW)[1] == [False]


def test_misshapen_requests_are_refused() -> None:
    uneven = store_request(entry())
    uneven.values.append(b"one too many")
    short = store_request(entry())
    short.keys[0] = b"short"
    many = store_request(*[entry()] * (limits.DHT_KEYS_MAX + 1))
    for request in (uneven, short, many):
        with pytest.raises(ProtocolError):
            guard.clean_store(request, NOW)
    for keys in ([], [KEY] * (limits.DHT_KEYS_MAX + 1), [b"short"]):
        with pytest.raises(ProtocolError):
            guard.check_find(dht_pb2.FindRequest(keys=keys))
    guard.check_find(dht_pb2.FindRequest(keys=[KEY]))


def test_hivemind_and_we_agree_on_the_bytes_of_a_dictionary() -> None:
    theirs = DictionaryDHTValue()
    with theirs.freeze():
        theirs.store(SUBKEY, encode(b"value"), LATER)
    entries = guard.unpack_dictionary(MSGPackSerializer.dumps(theirs), NOW)
    assert entries == [entry()]
    ours = MSGPackSerializer.loads(guard.pack_dictionary(entries))
    assert isinstance(ours, DictionaryDHTValue)
    assert ours.data == theirs.data
    assert ours.latest_expiration_time == LATER


def test_one_bad_entry_does_not_hide_the_others() -> None:
    body = encode((math.inf, LATER, [[SUBKEY, encode(b"value"), LATER], ["?", 5], 7, None]))
    data = encode(msgspec.msgpack.Ext(0x50, body))
    assert guard.unpack_dictionary(data, NOW) == [entry()]


@pytest.mark.parametrize("depth", [10, 400, 100_000])
def test_nesting_is_refused_without_recursion(depth: int) -> None:
    nested = b"\x91" * depth + b"\x01"
    body = encode((math.inf, LATER))[: -0 or None]
    for data in (
        nested,
        encode(msgspec.msgpack.Ext(0x50, nested)),
        encode(msgspec.msgpack.Ext(0x50, b"\x93" + body[1:] + b"\x91" + nested)),
        encode(msgspec.msgpack.Ext(0x40, nested)),
    ):
        try:
            assert guard.unpack_dictionary(data, NOW) == []
        except ProtocolError:
            continue


def test_a_node_id_belongs_to_its_peer() -> None:
    guard.check_sender(dht_pb2.NodeInfo(node_id=guard.node_id_of(PEER)), PEER)
    guard.check_sender(dht_pb2.NodeInfo(), PEER)
    with pytest.raises(ProtocolError):
        guard.check_sender(dht_pb2.NodeInfo(node_id=guard.node_id_of(OTHER)), PEER)
    with pytest.raises(ProtocolError):
        guard.check_sender(dht_pb2.NodeInfo(), PeerID(b"\x12\x20" + b"r" * 32))


def found(*entries: Entry) -> dht_pb2.FindResponse:
    result = dht_pb2.FindResult(
        type=dht_pb2.FOUND_DICTIONARY,
        value=guard.pack_dictionary(entries),
        expiration_time=math.inf,
        nearest_node_ids=[guard.node_id_of(OTHER), KEY, guard.node_id_of(PEER)],
        nearest_peer_ids=[OTHER.to_bytes(), OTHER.to_bytes(), b"x" * 5_000],
    )
    return dht_pb2.FindResponse(results=[result], peer=dht_pb2.NodeInfo(node_id=KEY))


def test_an_answer_is_stripped_of_what_is_unsound() -> None:
    response = found(entry(), entry(expires_at=math.inf), entry(value=b"\xc1"))
    guard.clean_find_response(response, PEER, 1, NOW)
    result = response.results[0]
    assert guard.unpack_dictionary(result.value, NOW) == [entry()]
    assert result.expiration_time == LATER
    assert list(result.nearest_peer_ids) == [OTHER.to_bytes()]
    assert response.peer.node_id == b""


@pytest.mark.parametrize("kind", [dht_pb2.FOUND_REGULAR, dht_pb2.NOT_FOUND])
def test_an_answer_without_a_dictionary_is_nothing_found(kind: int) -> None:
    response = found(entry())
    response.results[0].type = kind
    guard.clean_find_response(response, PEER, 1, NOW)
    assert (response.results[0].type, response.results[0].value) == (dht_pb2.NOT_FOUND, b"")


def test_an_answer_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(ProtocolError):
        guard.clean_find_response(found(entry()), PEER, 2, NOW)
    response = found(entry())
    response.results[0].nearest_node_ids.append(KEY)
    with pytest.raises(ProtocolError):
        guard.clean_find_response(response, PEER, 1, NOW)


def test_large_messages_are_refused_unread() -> None:
    with pytest.raises(ProtocolError, match="bytes"):
        guard.parse(dht_pb2.FindRequest, b"\x00" * (limits.DHT_MESSAGE_BYTES_MAX + 1))


def test_a_large_store_is_split_and_nothing_is_lost() -> None:
    request = store_request(*[entry(encode(b"x" * 8_000))] * 200)
    parts = list(guard.split_store(request))
    assert sum(len(part.keys) for part in parts) == 200
    for part in parts:
        assert len(part.keys) <= limits.DHT_KEYS_MAX
        assert part.ByteSize() <= limits.DHT_MESSAGE_BYTES_MAX


def test_no_part_of_a_store_is_too_heavy_for_a_newcomer() -> None:
    for entries in ([entry(encode(b"x" * 5_900))] * 4, [entry(encode(b"x"))] * 60):
        request = store_request(*entries)
        parts = list(guard.split_store(request))
        assert sum(len(part.keys) for part in parts) == len(entries)
        assert max(guard.weight(part) for part in parts) <= allowances.NEWCOMER.burst / 4
    assert guard.weight(store_request(*[entry(encode(b"x" * 5_900))] * 4)) > 40


def test_only_peers_with_ids_like_ours_are_named_by_an_answer() -> None:
    good = PeerID.from_base58(Identity.generate().peer_id)
    odd = [
        PeerID(good.to_bytes()[:-1]),
        PeerID(good.to_bytes() + b"x"),
        PeerID(b"\x00\x25" + good.to_bytes()[2:]),
        PeerID(b""),
    ]
    peers = [*odd, good]
    result = dht_pb2.FindResult(
        nearest_node_ids=[guard.node_id_of(peer) for peer in peers],
        nearest_peer_ids=[peer.to_bytes() for peer in peers],
    )
    response = dht_pb2.FindResponse(results=[result])
    guard.clean_find_response(response, PEER, 1, NOW)
    assert list(response.results[0].nearest_peer_ids) == [good.to_bytes()]
    assert list(response.results[0].nearest_node_ids) == [guard.node_id_of(good)]


def test_our_answers_fit_a_message() -> None:
    value = guard.pack_dictionary([entry(encode(b"x" * 8_000))] * 12)
    results = [dht_pb2.FindResult(type=dht_pb2.FOUND_DICTIONARY, value=value) for _ in range(8)]
    response = guard.trim_find_response(dht_pb2.FindResponse(results=results))
    assert response.ByteSize() <= limits.DHT_MESSAGE_BYTES_MAX
    assert response.results[0].value == value
    assert len(response.results) == 8


@given(st.binary(max_size=400))
@settings(max_examples=examples(2_000), deadline=None)
def test_random_bytes_raise_only_protocol_errors(data: bytes) -> None:
    for kind in (dht_pb2.StoreRequest, dht_pb2.FindRequest, dht_pb2.FindResponse):
        try:
            message = guard.parse(kind, data)
            if kind is dht_pb2.StoreRequest:
                guard.clean_store(message, NOW)
            elif kind is dht_pb2.FindRequest:
                guard.check_find(message)
            else:
                guard.clean_find_response(message, PEER, len(message.results), NOW)
        except ProtocolError:
            continue
    for value in (data, encode(msgspec.msgpack.Ext(0x50, data))):
        try:
            guard.unpack_dictionary(value, NOW)
        except ProtocolError:
            continue


class FakeControl:
    """hivemind's connection to the daemon, as far as the guard uses it."""

    def __init__(self) -> None:
        self.handlers: dict[str, object] = {}
        self.answer = b""

    async def add_unary_handler(self, name: str, handler: object) -> None:
        self.handlers[name] = handler

    async def call_unary_handler(self, _peer: PeerID, _name: str, _data: bytes) -> bytes:
        return self.answer


async def test_without_a_daemon_calls_fail_at_once() -> None:
    guarded = GuardedP2P(PEER, ManualClock(NOW))
    with pytest.raises(TransportDown):
        await guarded.call_protobuf_handler(
            OTHER, "DHTProtocol.rpc_ping", dht_pb2.PingRequest(), dht_pb2.PingResponse
        )


async def test_handlers_are_registered_with_each_new_daemon() -> None:
    guarded = GuardedP2P(PEER, ManualClock(NOW))

    async def ping(_request: dht_pb2.PingRequest, _context: object) -> dht_pb2.PingResponse:
        return dht_pb2.PingResponse()

    await guarded.add_protobuf_handler("DHTProtocol.rpc_ping", ping, dht_pb2.PingRequest)
    first, second = FakeControl(), FakeControl()
    await guarded.attach(first)
    guarded.detach()
    await guarded.attach(second)
    assert list(first.handlers) == list(second.handlers) == ["DHTProtocol.rpc_ping"]


async def test_an_answer_that_claims_another_s_place_is_not_believed() -> None:
    guarded, control = GuardedP2P(PEER, ManualClock(NOW)), FakeControl()
    await guarded.attach(control)
    claimed = dht_pb2.NodeInfo(node_id=guard.node_id_of(PEER))
    control.answer = dht_pb2.PingResponse(peer=claimed, available=True).SerializeToString()
    response = await guarded.call_protobuf_handler(
        OTHER, "DHTProtocol.rpc_ping", dht_pb2.PingRequest(), dht_pb2.PingResponse
    )
    assert isinstance(response, dht_pb2.PingResponse)
    assert response.peer.node_id == b""
    assert PeerLost.retry


class WordGate:
    """Admits all or nobody; counts the greetings."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.is_open = is_open
        self.calls: list[str] = []

    async def attach(self, transport: Transport) -> None:
        raise NotImplementedError

    def admits(self, _peer: PeerId, _protocol: str) -> bool:
        return self.is_open

    def allowance(self, _peer: PeerId) -> Allowance:
        return allowances.NEWCOMER

    async def greet(self, _peer: PeerId, protocol: str) -> None:
        self.calls.append(f"greet for {protocol}")

    def forget(self, _peer: PeerId) -> None:
        self.calls.append("forget")


class Refusing(FakeControl):
    """A daemon through which a peer refuses so many calls before it answers."""

    def __init__(self, error: str, times: int) -> None:
        super().__init__()
        self.error = error
        self.times = times
        self.calls = 0

    async def call_unary_handler(self, peer: PeerID, name: str, data: bytes) -> bytes:
        self.calls += 1
        if self.calls <= self.times:
            raise P2PHandlerError(self.error)
        return await super().call_unary_handler(peer, name, data)


async def ping(guarded: GuardedP2P) -> object:
    return await guarded.call_protobuf_handler(
        OTHER, PING, dht_pb2.PingRequest(), dht_pb2.PingResponse
    )


PING = access.DHT_PING
REFUSAL = repr(NotAdmitted("say hello first"))


async def test_a_peer_that_forgot_us_is_greeted_once_more_and_asked_once_more() -> None:
    gate = WordGate()
    clock = ManualClock(NOW)
    guarded, control = GuardedP2P(PEER, clock, Turnstile(clock, gate)), Refusing(REFUSAL, 1)
    await guarded.attach(control)
    await ping(guarded)
    assert gate.calls == [f"greet for {PING}", "forget", f"greet for {PING}"]
    assert control.calls == 2


async def test_a_peer_that_refuses_twice_is_left_alone() -> None:
    gate = WordGate()
    clock = ManualClock(NOW)
    guarded, control = GuardedP2P(PEER, clock, Turnstile(clock, gate)), Refusing(REFUSAL, 9)
    await guarded.attach(control)
    with pytest.raises(NotAdmitted):
        await ping(guarded)
    assert control.calls == 2


@pytest.mark.parametrize("error", ["Busy('x')", "NotAdmittedToo('x')", "x NotAdmitted(", ""])
async def test_other_errors_are_no_reason_to_greet_again(error: str) -> None:
    gate = WordGate()
    clock = ManualClock(NOW)
    guarded, control = GuardedP2P(PEER, clock, Turnstile(clock, gate)), Refusing(error, 9)
    await guarded.attach(control)
    with pytest.raises(PeerLost):
        await ping(guarded)
    assert control.calls == 1
    assert gate.calls == [f"greet for {PING}"]


def test_a_call_that_nobody_answers_is_given_up() -> None:
    class Black(FakeControl):
        async def call_unary_handler(self, _peer: PeerID, _name: str, _data: bytes) -> bytes:
            await asyncio.Event().wait()
            return b""

    async def main() -> None:
        guarded = GuardedP2P(PEER, ManualClock(NOW))
        await guarded.attach(Black())
        with pytest.raises(DeadlineExceeded):
            await ping(guarded)

    run_virtual(main(), limit_seconds=guard.CALL_SECONDS + 1)


Answer = Callable[[bytes, PeerID], Awaitable[bytes]]


async def served(
    handler: Callable[..., Awaitable[object]],
    turnstile: Turnstile,
    kind: type = dht_pb2.FindRequest,
) -> Answer:
    """What hivemind would call for each message that arrives."""
    guarded, control = GuardedP2P(PEER, ManualClock(NOW), turnstile), FakeControl()
    await guarded.attach(control)
    await guarded.add_protobuf_handler(access.DHT_FIND, handler, kind)  # type: ignore[arg-type]
    return cast("Answer", control.handlers[access.DHT_FIND])


async def test_who_is_not_admitted_is_refused_before_his_message_is_looked_at() -> None:
    async def never(*_: object) -> object:
        raise AssertionError("a stranger was served")

    gate = WordGate(is_open=False)
    answer = await served(never, Turnstile(ManualClock(NOW), gate))
    for data in (b"", b"\xff" * 100, bytes(2 * limits.DHT_MESSAGE_BYTES_MAX)):
        with pytest.raises(NotAdmitted):
            await answer(data, OTHER)


async def test_a_peer_over_its_rate_is_refused_before_its_message_is_decoded() -> None:
    async def find(*_: object) -> object:
        return dht_pb2.FindResponse()

    answer = await served(find, Turnstile(ManualClock(NOW), WordGate()))
    request = dht_pb2.FindRequest(keys=[KEY]).SerializeToString()
    answered = 0
    with pytest.raises(Busy):
        for _ in range(allowances.NEWCOMER.burst + 1):
            await answer(request, OTHER)
            answered += 1
    assert answered > allowances.NEWCOMER.burst * 0.9
    for _ in range(10):
        with pytest.raises(Busy):
            await answer(b"\xff" * 100, OTHER)


async def test_many_values_in_one_message_count_as_many() -> None:
    async def store(*_: object) -> object:
        raise AssertionError("a flood of signatures was let in")

    clock = ManualClock(NOW)
    answer = await served(store, Turnstile(clock, WordGate()), dht_pb2.StoreRequest)
    flood = store_request(*[entry()] * limits.DHT_KEYS_MAX).SerializeToString()
    with pytest.raises(Busy):
        await answer(flood, OTHER)


@pytest.mark.parametrize(
    ("request_", "most"),
    [
        (dht_pb2.PingRequest(), 0),
        (dht_pb2.FindRequest(keys=[KEY] * 4), 0.5),
        (store_request(entry(encode(b"x" * limits.RECORD_BYTES_MAX))), 0),
        (store_request(entry(), entry()), 1),
    ],
)
def test_ordinary_requests_cost_little_more_than_one(request_: Message, most: float) -> None:
    assert guard.weight(request_) <= most


async def test_a_defect_of_ours_is_told_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(*_: object) -> object:
        raise LookupError("a path of ours")

    answer = await served(fail, Turnstile(ManualClock(NOW)))
    with pytest.raises(DslmError) as raised:
        await answer(dht_pb2.FindRequest(keys=[KEY]).SerializeToString(), OTHER)
    assert "path" not in repr(raised.value)
    assert "LookupError at test_guard.py" in caplog.text
    assert "path" not in caplog.text
