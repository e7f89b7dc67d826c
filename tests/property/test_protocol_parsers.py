"""Random and mutated bytes into every parser: the only error that ever comes out is ours."""

import contextlib
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocols.adapters.memory.address import address_of, parse_address
from protocols.codec import FrameDecoder, encode
from protocols.errors import ConfigError, ProtocolError
from protocols.ids import SwarmId, parse_peer_id, parse_specialist_id, parse_swarm_id
from protocols.messages.ask import (
    Ask,
    Chat,
    ChatMessage,
    ClientMessage,
    Sampling,
    ServerMessage,
    Tokens,
)
from protocols.messages.info import InfoReply, InfoRequest, Load
from protocols.records import NodeRecord, believe, node_key, open_sealed, seal
from protocols.signing import Identity

MANY = settings(
    max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
ALICE = Identity(bytes(32))
NOW = 1_700_000_000.0
SWARM = SwarmId("public")
UNIONS: list[Any] = [ClientMessage, ServerMessage, InfoRequest, InfoReply]

MESSAGES: list[msgspec.Struct] = [
    Ask("r", 1, "law", Chat((ChatMessage("user", "hi"),)), Sampling(), 5, 9.0, ("x",), (1, 2)),
    Tokens(4, (1, 2, 3), "abc"),
    InfoRequest(7, "0.1.0"),
    InfoReply(7, "0.1.0", "public", ("/dslm/ask/1",), ("law",), Load(), NOW),
]
NODE = NodeRecord(
    ALICE.peer_id, SWARM, 1, NOW + 60, ("/ip4/127.0.0.1/tcp/1",), "0.1.0", ("/dslm/ask/1",)
)
KEY = node_key(SWARM, ALICE.peer_id)
SEALED = seal(NODE, ALICE)

msgpack_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
tags = st.sampled_from(
    ["ask", "cancel", "accepted", "progress", "tokens", "finished", "refused", "info?", "info"]
)
fields = st.sampled_from(["position", "ids", "text", "prompt", "nonce", "reason", "delivered"])


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` with some bytes changed, cut out or put in."""
    result = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(result)))
        result[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(result)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """A well-formed frame around a header that may be anything."""
    like_ours = st.dictionaries(fields, msgpack_values, max_size=4)
    header = draw(
        st.binary(max_size=60)
        | msgpack_values.map(msgspec.msgpack.encode)
        | st.builds(lambda tag, rest: msgspec.msgpack.encode({"type": tag} | rest), tags, like_ours)
    )
    return struct.pack(">II", len(header), 0) + header


any_bytes = (
    st.binary(max_size=200) | frames() | st.sampled_from(MESSAGES).map(encode).flatmap(mutated)
)


@pytest.mark.parametrize("union", UNIONS, ids=["client", "server", "info request", "info reply"])
def test_frame_decoder(union: Any) -> None:
    @MANY
    @given(any_bytes, st.integers(1, 64))
    def check(data: bytes, piece: int) -> None:
        decoder: FrameDecoder[Any] = FrameDecoder(union)
        with contextlib.suppress(ProtocolError):
            for at in range(0, len(data), piece):
                for frame in decoder.feed(data[at : at + piece]):
                    assert isinstance(frame.message, msgspec.Struct)

    check()


@MANY
@given(st.binary(max_size=300) | mutated(SEALED) | msgpack_values.map(msgspec.msgpack.encode))
def test_open_sealed(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        assert open_sealed(data) == NODE


@MANY
@given(
    mutated(SEALED) | st.binary(max_size=300) | st.just(SEALED),
    st.just(KEY) | st.text(max_size=40),
    st.just(str(ALICE.peer_id)) | st.text(max_size=40),
    st.floats(NOW - 7_200, NOW + 7_200),
)
def test_believe(data: bytes, key: str, subkey: str, now: float) -> None:
    with contextlib.suppress(ProtocolError):
        record = believe(data, key, subkey, now)
        assert (record, key, subkey) == (NODE, KEY, ALICE.peer_id)
        assert now < NODE.expires_at


@MANY
@given(st.text(max_size=120) | st.text("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijk", max_size=60))
def test_ids(text: str) -> None:
    for parse in (parse_peer_id, parse_specialist_id, parse_swarm_id):
        with contextlib.suppress(ProtocolError):
            assert parse(text) == text


@MANY
@given(
    st.text(max_size=300)
    | st.lists(st.sampled_from(["", "memory", "p2p", ALICE.peer_id, "x"]), max_size=7).map("/".join)
)
def test_addresses(text: str) -> None:
    with contextlib.suppress(ProtocolError):
        assert address_of(parse_address(text)) == text


@MANY
@given(st.binary(max_size=80) | mutated(ALICE.to_libp2p()))
def test_key_files(data: bytes) -> None:
    with contextlib.suppress(ConfigError):
        assert Identity.from_libp2p(data).to_libp2p() == data
