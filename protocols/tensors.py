"""Arrays on the wire: what a header says of one, and whether the bytes that came are that array.

Knows element types, shapes and sizes; must not know what an array means, nor any array library.
Values travel little-endian, row by row, as the payload of a frame (`protocols.codec`).
"""

from collections.abc import Sequence
from math import prod
from typing import Annotated, Literal

from msgspec import Meta, Struct

from protocols import limits
from protocols.errors import ProtocolError

ITEM_BYTES = {"f32": 4, "bf16": 2, "f16": 2, "i64": 8, "i32": 4, "i8": 1, "u8": 1}
"""The element types that a peer accepts, and bytes an element."""

Dimension = Annotated[int, Meta(ge=0, le=limits.PAYLOAD_BYTES_MAX)]


class TensorSpec(Struct, frozen=True):
    """Type and shape of one array in a payload."""

    dtype: Literal["f32", "bf16", "f16", "i64", "i32", "i8", "u8"]
    shape: Annotated[tuple[Dimension, ...], Meta(max_length=limits.TENSOR_RANK_MAX)]

    @property
    def size(self) -> int:
        """Bytes of the array."""
        return prod(self.shape) * ITEM_BYTES[self.dtype]


def split_payload(specs: Sequence[TensorSpec], payload: bytes) -> tuple[memoryview, ...]:
    """The bytes of each array, in order, without a copy.

    `ProtocolError` unless the arrays are exactly the payload. Sizes are compared before anything
    is taken, so a claimed shape costs nothing.
    """
    claimed = sum(spec.size for spec in specs)
    if claimed != len(payload):
        raise ProtocolError(f"arrays of {claimed} bytes in a payload of {len(payload)}")
    view, start = memoryview(payload), 0
    parts = []
    for spec in specs:
        parts.append(view[start : start + spec.size])
        start += spec.size
    return tuple(parts)


def join_payload(specs: Sequence[TensorSpec], arrays: Sequence[bytes]) -> bytes:
    """The payload of `arrays`; `ProtocolError` if one has not the size that its spec says."""
    for spec, array in zip(specs, arrays, strict=True):
        if len(array) != spec.size:
            raise ProtocolError(f"an array of {len(array)} bytes for {spec.dtype} {spec.shape}")
    payload = b"".join(arrays)
    if len(payload) > limits.PAYLOAD_BYTES_MAX:
        raise ProtocolError(
            f"a payload of {len(payload)} bytes, at most {limits.PAYLOAD_BYTES_MAX}"
        )
    return payload
