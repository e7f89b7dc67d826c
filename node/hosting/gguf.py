"""The GGUF container: typed metadata and tensors in one file, read under bounds.

Knows the format (ggml's `docs/gguf.md`, versions 2 and 3, little endian); must not know what any
key or tensor means. The `gguf` package's own reader takes seconds for a vocabulary and reports a
damaged file as an index error, so the header is read here; its quantisation code is used as it is.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from struct import Struct
from typing import cast

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

from protocols.errors import ModelFileError

Scalar = int | float | bool | str
Value = Scalar | tuple[Scalar, ...]

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_ITEMS_MAX = 1_000_000
"""Keys, tensors or array elements: more than any model has, few enough to fail fast on rubbish."""
_DIMENSIONS_MAX = 4
_DIMENSION_MAX = 2**31
"""More than any model has; numpy cannot express a shape of larger ones, even of an empty tensor."""
_STRING, _ARRAY, _BOOL = 8, 9, 7
_NUMBERS = {
    0: Struct("<B"),
    1: Struct("<b"),
    2: Struct("<H"),
    3: Struct("<h"),
    4: Struct("<I"),
    5: Struct("<i"),
    6: Struct("<f"),
    _BOOL: Struct("<?"),
    10: Struct("<Q"),
    11: Struct("<q"),
    12: Struct("<d"),
}
_U32, _U64 = _NUMBERS[4], _NUMBERS[10]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor lies. `shape` is in numpy's order, rows first; `start` and `size` in bytes."""

    name: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    start: int
    size: int


class GgufFile:
    """One open file: `metadata`, `tensors`, and their values on demand."""

    def __init__(self, path: Path) -> None:
        """Read the header. `ModelFileError` for anything that is no whole GGUF file."""
        self._path = path
        try:
            self._data: NDArray[np.uint8] = np.memmap(path, dtype=np.uint8, mode="r")
        except (OSError, ValueError) as error:
            raise ModelFileError(f"{path} cannot be read: {error}.") from error
        try:
            header = _Header(self._data)
            self.metadata: Mapping[str, Value] = header.metadata
            self.tensors: Mapping[str, TensorInfo] = header.tensors
        except (ValueError, KeyError, struct.error, UnicodeDecodeError, OverflowError) as error:
            raise ModelFileError(
                f"{path} is not a whole GGUF file ({error}). "
                "It may be damaged or cut short: get it again."
            ) from error

    def read(self, name: str) -> NDArray[np.float32]:
        """The values of a tensor, dequantised, in a fresh array. `KeyError` if it is not there."""
        info = self.tensors[name]
        try:
            values = dequantize(np.ascontiguousarray(self.blocks(name)), info.kind)
        except NotImplementedError as error:
            raise ModelFileError(
                f"{self._path} stores {name} as {info.kind.name}, which cannot be read. "
                "Use a file of another quantisation, such as Q8_0 or Q4_1."
            ) from error
        # Only what is stored as fp32 comes out as a view of the file, which cannot be written to.
        return np.require(values.reshape(info.shape), dtype=np.float32, requirements="W")

    def blocks(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a tensor as they are stored, `[..., bytes of a row]`; not to be kept."""
        info = self.tensors[name]
        block, block_bytes = GGML_QUANT_SIZES[info.kind]
        raw = self._data[info.start : info.start + info.size]
        return raw.reshape(*info.shape[:-1], info.shape[-1] // block * block_bytes)


class _Header:
    """Reads from the start of the file to the start of the tensor data."""

    def __init__(self, data: NDArray[np.uint8]) -> None:
        self._data: memoryview = data.data
        self._offset = 0
        if self._take(4) != _MAGIC:
            raise ValueError("the first four bytes are not GGUF")
        version = self._integer(_U32)
        if version not in _VERSIONS:
            raise ValueError(f"version {version} is not one of {_VERSIONS}")
        tensor_count = self._count()
        self.metadata = {
            self._string(): self._value(self._integer(_U32)) for _ in range(self._count())
        }
        unplaced = [self._tensor() for _ in range(tensor_count)]
        self.tensors = {info.name: info for info in self._place(unplaced)}

    def _place(self, infos: list[TensorInfo]) -> list[TensorInfo]:
        """Turn offsets within the data section into offsets in the file, and check them."""
        alignment = self.metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise ValueError("general.alignment is not a positive number")
        start = -(-self._offset // alignment) * alignment
        placed = [TensorInfo(i.name, i.shape, i.kind, start + i.start, i.size) for i in infos]
        for info in placed:
            if info.start + info.size > len(self._data):
                raise ValueError(f"the file ends within tensor {info.name}")
        return placed

    def _tensor(self) -> TensorInfo:
        name = self._string()
        dimensions = self._integer(_U32)
        if not 1 <= dimensions <= _DIMENSIONS_MAX:
            raise ValueError(f"tensor {name[:80]} has {dimensions} dimensions")
        shape = tuple(self._integer(_U64) for _ in range(dimensions))[::-1]
        if not all(1 <= length <= _DIMENSION_MAX for length in shape):
            raise ValueError(f"tensor {name[:80]} has a dimension of no possible length")
        kind = GGMLQuantizationType(self._integer(_U32))
        block, block_bytes = GGML_QUANT_SIZES[kind]
        if shape[-1] % block:
            raise ValueError(f"tensor {name[:80]} has rows that are no whole {kind.name} blocks")
        offset = self._integer(_U64)
        return TensorInfo(name, shape, kind, offset, prod(shape) // block * block_bytes)

    def _value(self, kind: int) -> Value:
        if kind == _ARRAY:
            return self._array()
        if kind == _STRING:
            return self._string()
        return self._number(_NUMBERS[kind])

    def _array(self) -> tuple[Scalar, ...]:
        kind, count = self._integer(_U32), self._count()
        if kind == _STRING:
            return tuple(self._string() for _ in range(count))
        if kind == _ARRAY:
            raise ValueError("an array of arrays")
        number = _NUMBERS[kind]
        raw = self._take(count * number.size)
        return tuple(item for (item,) in number.iter_unpack(raw))

    def _string(self) -> str:
        return self._take(self._integer(_U64)).decode("utf-8")

    def _count(self) -> int:
        count = self._integer(_U64)
        if count > _ITEMS_MAX:
            raise ValueError(f"{count} items")
        return count

    def _integer(self, number: Struct) -> int:
        return int(self._number(number))

    def _number(self, number: Struct) -> int | float | bool:
        return cast("int | float | bool", number.unpack(self._take(number.size))[0])

    def _take(self, size: int) -> bytes:
        end = self._offset + size
        if end > len(self._data):
            raise ValueError("the file ends within its header")
        raw = bytes(self._data[self._offset : end])
        self._offset = end
        return raw
