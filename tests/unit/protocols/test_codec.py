"""Frames: complete, in pieces, several at once, too large, malformed."""

import struct

import msgspec
import pytest

from protocols import limits
from protocols.codec import Frame, FrameDecoder, encode
from protocols.errors import ProtocolError
from protocols.messages.ask import Accepted, Cancel, ClientMessage, ServerMessage, Tokens

TOKENS = Tokens(3, (1, 2), " a b")


def decoder() -> FrameDecoder[ServerMessage]:
    return FrameDecoder(ServerMessage)


def test_a_frame_survives_any_cut() -> None:
    data = encode(TOKENS, b"payload") + encode(Accepted(1, 2, "d"))
    for size in (1, 2, 7, 8, 9, len(data)):
        reader = decoder()
        frames = [f for i in range(0, len(data), size) for f in reader.feed(data[i : i + size])]
        assert frames == [Frame(TOKENS, b"payload"), Frame(Accepted(1, 2, "d"))]
        assert reader.is_between_frames


def test_a_declared_length_is_checked_in_the_middle_of_a_chunk_as_well() -> None:
    reader = decoder()
    reader.feed(encode(TOKENS)[:3])
    with pytest.raises(ProtocolError, match="too large"):
        reader.feed(encode(TOKENS)[3:] + struct.pack(">II", limits.HEADER_BYTES_MAX + 1, 0))


def test_too_large_a_frame_is_refused_before_its_bytes_come() -> None:
    for header, payload in ((limits.HEADER_BYTES_MAX + 1, 0), (1, limits.PAYLOAD_BYTES_MAX + 1)):
        with pytest.raises(ProtocolError, match="too large"):
            decoder().feed(struct.pack(">II", header, payload))
    with pytest.raises(ProtocolError, match="too large"):
        encode(Cancel(), bytes(limits.PAYLOAD_BYTES_MAX + 1))


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode({"type": "nothing"}),
        msgspec.msgpack.encode({"type": "tokens", "position": -1, "ids": [1], "text": ""}),
        msgspec.msgpack.encode({"type": "tokens", "position": 1, "ids": [], "text": ""}),
        msgspec.msgpack.encode({"type": "tokens", "position": 1, "ids": [2**31], "text": ""}),
        b"\x91" * 100_000,
    ],
)
def test_malformed_headers_are_protocol_errors(header: bytes) -> None:
    with pytest.raises(ProtocolError):
        decoder().feed(struct.pack(">II", len(header), 0) + header)


def test_unknown_fields_are_ignored() -> None:
    header = msgspec.msgpack.encode({"type": "cancel", "why": "later version"})
    reader: FrameDecoder[ClientMessage] = FrameDecoder(ClientMessage)
    assert reader.feed(struct.pack(">II", len(header), 0) + header) == [Frame(Cancel())]
