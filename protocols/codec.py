"""Frames: an 8-byte prefix, a msgpack header, raw payload bytes; encoded and decoded under bounds.

Knows bytes and message types, does no I/O; must not know what a message means.

A frame is `header length, payload length` (two big-endian unsigned 32-bit numbers), the header (one
msgpack map with its tag under "type"), then the payload. The header names everything, the payload
carries bulk bytes (tensors) that msgpack need not look at.
"""

import struct
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from protocols import limits
from protocols.errors import ProtocolError

MessageT = TypeVar("MessageT")

_PREFIX = struct.Struct(">II")
_encoder = msgspec.msgpack.Encoder()


@dataclass(frozen=True, slots=True)
class Frame(Generic[MessageT]):
    """One decoded message and the raw bytes that came with it."""

    message: MessageT
    payload: bytes = b""


def encode(message: msgspec.Struct, payload: bytes = b"") -> bytes:
    """The bytes of one frame. `ProtocolError` when our own message breaks a bound."""
    header = _encoder.encode(message)
    _check_lengths(len(header), len(payload))
    return _PREFIX.pack(len(header), len(payload)) + header + payload


class FrameDecoder(Generic[MessageT]):
    """Turns chunks of bytes into frames of one message union.

    Buffers one unfinished frame beside the chunk it is fed. After a `ProtocolError` the decoder
    is spent: close the stream.
    """

    def __init__(
        self,
        union: Any,  # noqa: ANN401  (a union is no type)
        header_max: int = limits.HEADER_BYTES_MAX,
        payload_max: int = limits.PAYLOAD_BYTES_MAX,
    ) -> None:
        self._decoder: msgspec.msgpack.Decoder[MessageT] = msgspec.msgpack.Decoder(union)
        self._header_max = header_max
        self._payload_max = payload_max
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame[MessageT]]:
        """The frames completed by `data`, in order."""
        if self._buffer:
            self._buffer += data
            if self._is_short():  # before the buffer is copied: it may be long
                return []
            frames, read = self._take_all(bytes(self._buffer))
            del self._buffer[:read]
        else:  # mostly: one message came whole, and need not be copied
            frames, read = self._take_all(data)
            self._buffer += data[read:]
        return frames

    @property
    def is_between_frames(self) -> bool:
        """Whether the stream may end here without having cut a frame."""
        return not self._buffer

    def _is_short(self) -> bool:
        """Whether what is buffered is less than a frame."""
        if len(self._buffer) < _PREFIX.size:
            return True
        header_length, payload_length = _PREFIX.unpack_from(self._buffer)
        _check_lengths(header_length, payload_length, self._header_max, self._payload_max)
        return bool(len(self._buffer) < _PREFIX.size + header_length + payload_length)

    def _take_all(self, data: bytes) -> tuple[list[Frame[MessageT]], int]:
        """The whole frames at the beginning of `data`, and how many bytes they are."""
        frames: list[Frame[MessageT]] = []
        start = 0
        while len(data) - start >= _PREFIX.size:
            header_length, payload_length = _PREFIX.unpack_from(data, start)
            _check_lengths(header_length, payload_length, self._header_max, self._payload_max)
            begin = start + _PREFIX.size
            middle = begin + header_length
            end = middle + payload_length
            if len(data) < end:
                break
            message = decode_header(self._decoder, data[begin:middle])
            frames.append(Frame(message, data[middle:end]))
            start = end
        return frames, start


def decode_header(decoder: "msgspec.msgpack.Decoder[MessageT]", header: bytes) -> MessageT:
    """`header` as a value of the decoder's type; any defect is a `ProtocolError`."""
    try:
        return decoder.decode(header)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, ValueError) as error:
        raise ProtocolError(f"malformed message: {str(error)[:200]}") from error


def _check_lengths(
    header: int,
    payload: int,
    header_max: int = limits.HEADER_BYTES_MAX,
    payload_max: int = limits.PAYLOAD_BYTES_MAX,
) -> None:
    if header > header_max or payload > payload_max:
        raise ProtocolError(
            f"frame too large: header {header} of {header_max}, payload {payload} of {payload_max}"
        )
