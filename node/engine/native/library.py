"""The compiled step as Python calls it.

Knows the functions and structures of `source/shapes.h`; must not know weights or requests.
"""

import ctypes
import weakref
from collections.abc import Sequence
from ctypes import POINTER, Structure, c_float, c_int, c_int32, c_void_p
from pathlib import Path

from node.engine.native.reasons import NativeUnfit

VERSION = 4
"""`kVersion` of the source that this module was written for."""


class MatrixStruct(Structure):
    """`Matrix`."""

    _fields_ = [
        ("panels", c_void_p),
        ("rows", c_int32),
        ("columns", c_int32),
        ("bits", c_int32),
        ("unused", c_int32),
    ]


class LayerStruct(Structure):
    """`Layer`."""

    _fields_ = [
        ("attention_norm", c_void_p),
        ("feed_forward_norm", c_void_p),
        ("query_key_value", MatrixStruct),
        ("output", MatrixStruct),
        ("gate_up", MatrixStruct),
        ("down", MatrixStruct),
    ]


class ModelStruct(Structure):
    """`Model`."""

    _fields_ = [
        ("layers", POINTER(LayerStruct)),
        ("final_norm", c_void_p),
        ("cosines", c_void_p),
        ("sines", c_void_p),
        ("embedding", MatrixStruct),
        ("head", MatrixStruct),
        ("layer_count", c_int32),
        ("hidden", c_int32),
        ("heads", c_int32),
        ("kv_heads", c_int32),
        ("dimension", c_int32),
        ("feed_forward", c_int32),
        ("epsilon", c_float),
        ("bits", c_int32),
    ]


class SpanStruct(Structure):
    """`Span`."""

    _fields_ = [("start", c_int32), ("stop", c_int32), ("position", c_int32), ("pages", c_int32)]


class PieceStruct(Structure):
    """`Piece`."""

    _fields_ = [
        ("b", c_void_p),
        ("start", c_int32),
        ("stop", c_int32),
        ("rank_start", c_int32),
        ("rank_stop", c_int32),
    ]


class AdaptedProductStruct(Structure):
    """`AdaptedProduct`."""

    _fields_ = [
        ("a", c_void_p),
        ("rank", c_int32),
        ("into", c_int32),
        ("piece_count", c_int32),
        ("unused", c_int32),
        ("pieces", PieceStruct * 3),
    ]


class GroupStruct(Structure):
    """`Group`."""

    _fields_ = [("a", c_int32), ("b", c_int32), ("first", c_int32), ("count", c_int32)]


class ShelfStruct(Structure):
    """`Shelf`."""

    _fields_ = [
        ("products", c_void_p),
        ("groups", c_void_p),
        ("rows", c_void_p),
        ("group_count", c_int32),
        ("rank_most", c_int32),
    ]


class BatchStruct(Structure):
    """`Batch`."""

    _fields_ = [
        ("tokens", c_void_p),
        ("spans", c_void_p),
        ("pages", c_void_p),
        ("logit_rows", c_void_p),
        ("logits", c_void_p),
        ("keys", c_void_p),
        ("values", c_void_p),
        ("shelves", c_void_p),
        ("token_count", c_int32),
        ("span_count", c_int32),
        ("logit_count", c_int32),
        ("page_count", c_int32),
        ("shelf_count", c_int32),
    ]


class NativeLibrary:
    """A loaded build. `NativeUnfit` if the system does not load it or it is another version's."""

    def __init__(self, path: Path) -> None:
        try:
            self._library = ctypes.CDLL(str(path))
            self._library.dslm_open.restype = c_void_p
            self._library.dslm_open.argtypes = [c_int, c_int]
            self._library.dslm_close.argtypes = [c_void_p]
            self._library.dslm_has_tiles.argtypes = [c_void_p]
            self._library.dslm_step.restype = None
            self._library.dslm_step.argtypes = [
                c_void_p,
                POINTER(ModelStruct),
                POINTER(BatchStruct),
            ]
            version = self._library.dslm_version()
        except (OSError, AttributeError) as error:
            raise NativeUnfit(f"the compiled kernels cannot be loaded ({error})") from error
        self.path = path
        self.is_wide = bool(self._library.dslm_is_wide())
        if version != VERSION:
            raise NativeUnfit(f"the compiled kernels are of version {version}, not {VERSION}")

    def team(self, threads: int, *, may_use_tiles: bool = True) -> "Team":
        """`threads` threads that compute steps, the caller's included."""
        return Team(self._library, threads, may_use_tiles=may_use_tiles)


class Team:
    """Threads and their working memory. Used by one thread at a time."""

    def __init__(self, library: ctypes.CDLL, threads: int, *, may_use_tiles: bool) -> None:
        self._library = library
        self._handle: int = library.dslm_open(threads, int(may_use_tiles))
        self.has_tiles = bool(library.dslm_has_tiles(self._handle))
        self._end = weakref.finalize(self, library.dslm_close, self._handle)
        # A process that exits may still be in a step: its threads go with it.
        self._end.atexit = False

    def step(self, model: ModelStruct, batch: BatchStruct) -> None:
        """Compute `batch`. Other Python threads run meanwhile."""
        if not self._end.alive:
            raise RuntimeError("the team was closed")
        self._library.dslm_step(self._handle, model, batch)

    def close(self) -> None:
        """End the threads; harmless when called again, and done when nobody has the team."""
        self._end()


def spans_array(spans: Sequence[tuple[int, int, int, int]]) -> ctypes.Array[SpanStruct]:
    """Start, stop, position and first page of each, for `BatchStruct.spans`."""
    return (SpanStruct * len(spans))(*(SpanStruct(*span) for span in spans))
