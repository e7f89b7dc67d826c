"""The guard's decisions, message by message, without a network."""

import math

import msgspec
import pytest
from hivemind.dht.routing import DHTID
from hivemind.dht.storage import DictionaryDHTValue
from hivemind.p2p import PeerID
from hivemind.proto import dht_pb2
from hivemind.utils import MSGPackSerializer
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols import limits
from protocols.adapters.clock import ManualClock
from protocols.adapters.libp2p import guard
from protocols.adapters.libp2p.guard import Entry, GuardedP2P
from protocols.errors import PeerLost, ProtocolError, TransportDown
from protocols.signing import Identity

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


def test_our_answers_fit_a_message() -> None:
    value = guard.pack_dictionary([entry(encode(b"x" * 8_000))] * 12)
    results = [dht_pb2.FindResult(type=dht_pb2.FOUND_DICTIONARY, value=value) for _ in range(8)]
    response = guard.trim_find_response(dht_pb2.FindResponse(results=results))
    assert response.ByteSize() <= limits.DHT_MESSAGE_BYTES_MAX
    assert response.results[0].value == value
    assert len(response.results) == 8


@given(st.binary(max_size=400))
@settings(max_examples=2_000, deadline=None)
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
