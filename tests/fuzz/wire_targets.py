"""Parsers of what peers send each other: frames, messages, arrays, records, names of things.

Knows `protocols` without its adapters.
"""

import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from protocols import records
from protocols.adapters.memory.address import parse_address as parse_memory_address
from protocols.codec import FrameDecoder, decode_header, encode
from protocols.errors import ConfigError, ProtocolError
from protocols.ids import SwarmId, parse_peer_id, parse_specialist_id, parse_swarm_id
from protocols.memory import ClientMemory, page_bytes, page_names
from protocols.messages.ask import (
    Accepted,
    Ask,
    Cancel,
    Chat,
    ChatMessage,
    ClientMessage,
    Finished,
    JsonSchema,
    Likelihood,
    Likely,
    LogitBias,
    Progress,
    Refusal,
    Sampling,
    ServerMessage,
    Text,
    Tokens,
    ToolCall,
)
from protocols.messages.info import InfoReply, InfoRequest, Load
from protocols.messages.memory import (
    Done,
    Found,
    MemoryReply,
    MemoryRequest,
    PageLayout,
    Pages,
    Want,
)
from protocols.signing import Identity
from protocols.tensors import TensorSpec, split_payload
from tests.fuzz.target import (
    ALICE,
    BOB,
    NOW,
    Maker,
    Target,
    envelope,
    signatures_believed,
    words_of,
)

_PREFIX = struct.Struct(">II")
_SWARM = SwarmId("public")
CLIENT_MESSAGES: tuple[msgspec.Struct, ...] = (
    Ask("r", 1, "law", Chat((ChatMessage("user", "hi"),)), Sampling(), 5, 9.0, ("x",), (1, 2)),
    Ask("r2", 0, "a/b", Text("once"), Sampling(0.7, 5, 0.9, 3), 0, 1.5),
    Ask(
        "r3",
        0,
        "a",
        Chat((ChatMessage("assistant", "", (ToolCall("1", "f", "{}"),)),), "[]"),
        Sampling(0.7, 5, 0.9, 3, 0.1, 1.1, 0.5, -0.5, (LogitBias(7, -1.0),), 3),
        9,
        1.5,
        constraint=JsonSchema("{}"),
    ),
    Ask("r4", 0, "a", Text("once"), Sampling(), 2, 1.5, forced=(3, 4), on_base=True),
    Cancel(),
)
SERVER_MESSAGES: tuple[msgspec.Struct, ...] = (
    Accepted(3, 2048, "ab" * 32),
    Progress("queued", 2),
    Tokens(4, (1, 2, 3), "abc"),
    Tokens(0, (1,), "a", (Likelihood(-0.5, b"a", (Likely(2, -1.0, b"b"),)),)),
    Finished("stop", "end", 3, 7, 0.1, 0.2, 0.3),
    Refusal("busy", "later", 1.5, 1, 2),
)
_LAYOUT = PageLayout("ab" * 32, "fp32", 1, 1, 2, 16)
_WANT = Want("cd" * 32, _LAYOUT, "i8", page_names(_LAYOUT, "cd" * 32, range(64), 4), 1)
INFO_MESSAGES: tuple[msgspec.Struct, ...] = (
    InfoRequest(7, "0.1.0"),
    InfoReply(7, "0.1.0", "public", ("/dslm/ask/1",), ("law",), Load(1, 2, 3, 4), NOW, True, "n"),
)
RECORDS: tuple[records.Record, ...] = (
    records.NodeRecord(
        ALICE.peer_id,
        _SWARM,
        1,
        NOW + 60,
        ("/ip4/127.0.0.1/tcp/1",),
        "0.1.0",
        ("/dslm/ask/1",),
        ("law",),
        "alice",
    ),
    records.CapabilityCard(
        ALICE.peer_id,
        _SWARM,
        2,
        NOW + 60,
        "law",
        "ab" * 32,
        "smollm2",
        "fp32",
        2048,
        ("law",),
        "about",
        "cd" * 32,
        (records.Prototype(bytes(16), 0.01),),
        10**8,
        "apache-2.0",
    ),
    records.CapabilityCard(
        *(ALICE.peer_id, _SWARM, 4, NOW + 60, "law/tax", "ab" * 32, "smollm2", "fp32", 2048),
        domains=("law/tax",),
        adapter="cd" * 32,
        base_digest="ef" * 32,
        is_activated=True,
        languages=("en",),
        exemplars=("Can I deduct it?", "é" * 200),
        scores=(records.MeasuredScore("set", "accuracy", 0.5, 9, "ab" * 32, "me"),),
    ),
    records.IndexRecord(
        ALICE.peer_id, records.swarm_key(_SWARM), 3, NOW + 60, ("law",), ("law", "science")
    ),
)


def header_target(union: Any, messages: tuple[msgspec.Struct, ...]) -> Maker:
    """Any bytes as the header of a frame whose prefix is right."""

    def make(folder: Path) -> Target:  # noqa: ARG001
        pack, union_decoder = _PREFIX.pack, FrameDecoder[Any]

        def run(data: bytes) -> None:
            frames = union_decoder(union).feed(pack(len(data), 0) + data)
            assert len(frames) == 1
            assert isinstance(frames[0].message, msgspec.Struct)

        seeds = tuple(msgspec.msgpack.encode(message) for message in messages)
        return Target(run, (ProtocolError,), seeds, "msgpack", words_of(messages))

    return make


def frames(folder: Path) -> Target:  # noqa: ARG001
    """A stream of frames, fed in two pieces."""
    everything = (*CLIENT_MESSAGES, *SERVER_MESSAGES)
    seeds = tuple(encode(one, b"pay" * index) for index, one in enumerate(everything))

    def run(data: bytes) -> None:
        decoder: FrameDecoder[Any] = FrameDecoder(ClientMessage | ServerMessage)
        half = len(data) // 2
        count = len(decoder.feed(data[:half]))
        count += len(decoder.feed(data[half:]))
        assert count * _PREFIX.size <= len(data)

    joined = seeds[0] + seeds[2] + seeds[1]
    return Target(run, (ProtocolError,), (*seeds, joined), "raw", words_of(everything))


def memory_replies(folder: Path) -> Target:  # noqa: ARG001
    """What a peer sends that is asked for pages, in the frames in which it comes."""
    size = page_bytes(_LAYOUT, "i8")
    pages = [Pages(3, 1, _WANT.names[3]), Pages(1, 2, _WANT.names[2])]
    sent = [(Found(4), b""), *((one, bytes(one.count * size)) for one in pages), (Done(), b"")]

    def run(data: bytes) -> None:
        decoder: FrameDecoder[MemoryReply] = FrameDecoder(MemoryReply)
        conversation = ClientMemory(_WANT)
        for frame in decoder.feed(data):
            conversation.receive(frame)
            assert len(frame.payload) <= 3 * size

    whole = b"".join(encode(message, payload) for message, payload in sent)
    seeds = (whole, encode(Found(0)) + encode(Done()))
    return Target(run, (ProtocolError,), seeds, "raw", words_of(tuple(one for one, _ in sent)))


def tensors(folder: Path) -> Target:  # noqa: ARG001
    """A list of specs, then the bytes that they claim: the first two bytes say where to cut."""
    decoder = msgspec.msgpack.Decoder(tuple[TensorSpec, ...])

    def run(data: bytes) -> None:
        cut = 2 + int.from_bytes(data[:2], "big")
        payload = data[cut:]
        specs = decode_header(decoder, data[2:cut])
        parts = split_payload(specs, payload)
        assert sum(len(part) for part in parts) == len(payload)

    seeds = []
    for shapes in ([("f32", (2, 3))], [("i8", (0,)), ("bf16", (1, 2, 2, 1))], [], [("u8", ())]):
        specs = tuple(TensorSpec(dtype, shape) for dtype, shape in shapes)  # type: ignore[arg-type]
        head = msgspec.msgpack.encode(specs)
        size = sum(spec.size for spec in specs)
        seeds.append(len(head).to_bytes(2, "big") + head + bytes(size))
    words = (*words_of((TensorSpec("f32", (1,)),)), b"\xce\x00\x80\x00\x00")
    return Target(run, (ProtocolError,), tuple(seeds), "raw", words)


def tensor_specs(folder: Path) -> Target:  # noqa: ARG001
    """Specs against a payload of 24 bytes."""
    decoder = msgspec.msgpack.Decoder(tuple[TensorSpec, ...])
    payload = bytes(24)

    def run(data: bytes) -> None:
        specs = decode_header(decoder, data)
        parts = split_payload(specs, payload)
        assert sum(map(len, parts)) == len(payload)

    given = ((TensorSpec("f32", (2, 3)),), (TensorSpec("i8", (0,)), TensorSpec("i64", (1, 3))))
    seeds = tuple(msgspec.msgpack.encode(specs) for specs in given)
    return Target(run, (ProtocolError,), seeds, "msgpack", words_of(given[0]))


def sealed_records() -> tuple[bytes, ...]:
    """Good records."""
    return tuple(records.seal(record, ALICE) for record in RECORDS)


def sealed(folder: Path) -> Target:  # noqa: ARG001
    """Records as they lie in the store, signatures checked."""
    key = records.keys_of(RECORDS[0])[0]

    def run(data: bytes) -> None:
        record = records.believe(data, key, ALICE.peer_id, NOW)
        assert record == RECORDS[0]

    return Target(run, (ProtocolError,), sealed_records(), "msgpack")


def record_bodies(folder: Path) -> Target:  # noqa: ARG001
    """Bodies that their author signed, whatever they say."""

    def run(data: bytes) -> None:
        kind = next((one.kind for one in RECORDS if one.kind.encode() in data[:40]), "node")
        with signatures_believed():
            record = records.open_sealed(envelope(kind, data))
        assert record.peer == ALICE.peer_id
        records.check_place(record, records.keys_of(record)[0], ALICE.peer_id)

    seeds = tuple(msgspec.msgpack.encode(record) for record in RECORDS)
    return Target(run, (ProtocolError,), seeds, "msgpack", words_of(RECORDS))


def _texts(parse: Callable[[str], object], seeds: tuple[str, ...]) -> Maker:
    def make(folder: Path) -> Target:  # noqa: ARG001
        def run(data: bytes) -> None:
            text = data.decode("utf-8", "surrogateescape")
            assert parse(text) == text

        encoded = tuple(seed.encode() for seed in seeds)
        return Target(run, (ProtocolError,), encoded, "text", encoded)

    return make


def key_files(folder: Path) -> Target:  # noqa: ARG001
    """The node's private key as it lies in its file."""

    def run(data: bytes) -> None:
        assert Identity.from_libp2p(data).to_libp2p() == data

    seeds = (ALICE.to_libp2p(), BOB.to_libp2p())
    return Target(run, (ConfigError,), seeds, "raw")


def memory_addresses(folder: Path) -> Target:  # noqa: ARG001
    """Addresses of the network in memory."""
    seeds = tuple(f"/memory/{one.peer_id}/p2p/{one.peer_id}".encode() for one in (ALICE, BOB))

    def run(data: bytes) -> None:
        parse_memory_address(data.decode("utf-8", "surrogateescape"))

    return Target(run, (ProtocolError,), seeds, "text", seeds)


MAKERS: Mapping[str, Maker] = {
    "frames": frames,
    "ask_client": header_target(ClientMessage, CLIENT_MESSAGES),
    "ask_server": header_target(ServerMessage, SERVER_MESSAGES),
    "info": header_target(InfoRequest | InfoReply, INFO_MESSAGES),
    "tensors": tensors,
    "tensor_specs": tensor_specs,
    "sealed_records": sealed,
    "record_bodies": record_bodies,
    "peer_ids": _texts(parse_peer_id, (ALICE.peer_id, BOB.peer_id)),
    "specialist_ids": _texts(parse_specialist_id, ("smollm2", "owner/law-2.1_x")),
    "swarm_ids": _texts(parse_swarm_id, ("public", "ab" * 32)),
    "key_files": key_files,
    "memory_addresses": memory_addresses,
    "memory_requests": header_target(MemoryRequest, (_WANT,)),
    "memory_replies": memory_replies,
}
