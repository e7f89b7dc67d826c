"""Random and mutated bytes into every parser: the only error that ever comes out is ours.

200 cases each; 10,000 with `DSLM_THOROUGH=1`, as before a change lands.
"""

import contextlib
import os
import random
import struct
from typing import Any

import msgspec
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
from protocols.messages.memory import MemoryReply, MemoryRequest, PageLayout, Pages, Want
from protocols.records import NodeRecord, believe, node_key, open_sealed, seal
from protocols.signing import Identity
from tests.effort import examples

MANY = settings(
    max_examples=examples(10_000) if os.environ.get("DSLM_THOROUGH") else 1_000,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)
ALICE = Identity(bytes(32))
NOW = 1_700_000_000.0
SWARM = SwarmId("public")
UNIONS: list[Any] = [
    ClientMessage,
    ServerMessage,
    InfoRequest,
    InfoReply,
    MemoryRequest,
    MemoryReply,
]

MESSAGES: list[msgspec.Struct] = [
    Ask("r", 1, "law", Chat((ChatMessage("user", "hi"),)), Sampling(), 5, 9.0, ("x",), (1, 2)),
    Tokens(4, (1, 2, 3), "abc"),
    InfoRequest(7, "0.1.0"),
    Want("t", PageLayout("b", "fp32", 30, 3, 64, 16), "i8", (bytes(16),)),
    Pages(3, 2, bytes(16)),
    InfoReply(7, "0.1.0", "public", ("/dslm/ask/1",), ("law",), Load(), NOW),
]
NODE = NodeRecord(
    ALICE.peer_id, SWARM, 1, NOW + 60, ("/ip4/127.0.0.1/tcp/1",), "0.1.0", ("/dslm/ask/1",)
)
KEY = node_key(SWARM, ALICE.peer_id)
SEALED = seal(NODE, ALICE)
KEY_FILE = ALICE.to_libp2p()

TAGS = [
    "ask",
    "cancel",
    "accepted",
    "progress",
    "tokens",
    "finished",
    "refused",
    "info?",
    "info",
    "want",
]
TAGS += ["found", "pages", "done"]
FIELDS = [
    "position",
    "ids",
    "text",
    "prompt",
    "nonce",
    "reason",
    "delivered",
    "forced",
    "on_base",
    "code",
    "sampling",
]

# One cheap draw per case (10,000 cases per parser must take seconds): raw bytes, or the seed of a
# generator that builds something nearer to what a parser expects.
raw_or_seed = st.binary(max_size=64) | st.integers(0, 2**64 - 1)


def _value(rng: random.Random, depth: int = 3) -> Any:
    leaves = [
        None,
        True,
        rng.getrandbits(rng.randrange(1, 64)),
        -rng.getrandbits(20),
        rng.choice([0.5, float("nan"), float("inf"), -1.0]),
        rng.choice(["", "text", "chat", "user", "x" * 300, "\ud7ff"]),
        rng.randbytes(rng.randrange(40)),
    ]
    if depth == 0 or rng.random() < 0.6:
        return rng.choice(leaves)
    if rng.random() < 0.5:
        return [_value(rng, depth - 1) for _ in range(rng.randrange(4))]
    return {rng.choice(FIELDS): _value(rng, depth - 1) for _ in range(rng.randrange(4))}


def _mutated(rng: random.Random, data: bytes) -> bytes:
    """`data` with some bytes changed, cut out or put in."""
    result = bytearray(data)
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(result) + 1)
        result[at : at + rng.randrange(4)] = rng.randbytes(rng.randrange(4))
    return bytes(result)


def _frame(header: bytes) -> bytes:
    return struct.pack(">II", len(header), 0) + header


def _stream_bytes(drawn: bytes | int) -> bytes:
    if isinstance(drawn, bytes):
        return drawn
    rng = random.Random(drawn)
    match rng.randrange(4):
        case 0:
            return _frame(rng.randbytes(rng.randrange(60)))
        case 1:
            return _frame(msgspec.msgpack.encode(_value(rng)))
        case 2:
            fields = {rng.choice(FIELDS): _value(rng) for _ in range(rng.randrange(6))}
            return _frame(msgspec.msgpack.encode({"type": rng.choice(TAGS)} | fields))
        case _:
            return _mutated(rng, encode(rng.choice(MESSAGES)))


def _record_bytes(drawn: bytes | int) -> bytes:
    if isinstance(drawn, bytes):
        return drawn
    rng = random.Random(drawn)
    if rng.random() < 0.3:
        body = msgspec.msgpack.encode({"type": "node"} | {rng.choice(FIELDS): _value(rng)})
        outer = {"signer": ALICE.peer_id, "kind": "node", "body": body}
        signed = outer | {"signature": ALICE.sign("node", body)}  # malformed, but well signed
        return msgspec.msgpack.encode(signed)
    return SEALED if rng.random() < 0.1 else _mutated(rng, SEALED)


def _text(drawn: bytes | int) -> str:
    if isinstance(drawn, bytes):
        return drawn.decode("utf-8", "replace")
    rng = random.Random(drawn)
    if rng.random() < 0.5:
        return "/".join(rng.choices(["", "memory", "p2p", ALICE.peer_id, "x"], k=rng.randrange(7)))
    changed = bytearray(ALICE.peer_id.encode())
    changed[rng.randrange(len(changed))] = rng.randrange(32, 127)
    return changed.decode()


@MANY
@given(raw_or_seed, st.integers(1, 64))
def test_frame_decoders(drawn: bytes | int, piece: int) -> None:
    """The same bytes into the decoders of all four unions, in pieces."""
    data = _stream_bytes(drawn)
    for union in UNIONS:
        decoder: FrameDecoder[Any] = FrameDecoder(union)
        with contextlib.suppress(ProtocolError):
            for at in range(0, len(data), piece):
                for frame in decoder.feed(data[at : at + piece]):
                    assert isinstance(frame.message, msgspec.Struct)


@MANY
@given(raw_or_seed, st.sampled_from([KEY, "", "x/y"]), st.floats(NOW - 7_200, NOW + 7_200))
def test_records(drawn: bytes | int, key: str, now: float) -> None:
    data = _record_bytes(drawn)
    with contextlib.suppress(ProtocolError):
        assert open_sealed(data) == NODE
    with contextlib.suppress(ProtocolError):
        assert believe(data, key, ALICE.peer_id, now) == NODE
        assert key == KEY
        assert now < NODE.expires_at


@MANY
@given(raw_or_seed)
def test_ids_and_addresses(drawn: bytes | int) -> None:
    text = _text(drawn)
    for parse in (parse_peer_id, parse_specialist_id, parse_swarm_id):
        with contextlib.suppress(ProtocolError):
            assert parse(text) == text
    with contextlib.suppress(ProtocolError):
        assert address_of(parse_address(text)) == text


@MANY
@given(raw_or_seed)
def test_key_files(drawn: bytes | int) -> None:
    data = drawn if isinstance(drawn, bytes) else _mutated(random.Random(drawn), KEY_FILE)
    with contextlib.suppress(ConfigError):
        assert Identity.from_libp2p(data).to_libp2p() == data
