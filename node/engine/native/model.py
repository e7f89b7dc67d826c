"""A decoder whose whole step is one call of compiled code, and its keys and values.

Knows the model's shape, packed weights and pages; must not know requests or sampling. It computes
what `LlamaModel` computes, in bf16 or with rows rounded to eight bits, and says no to any shape or
kind of model that its code does not know.
"""

import ctypes
import math
import mmap
from array import array
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields

import torch
from torch import Tensor

from node.engine.adapters.plan import AdapterPlan
from node.engine.batch import CPU, Chunk
from node.engine.config import LlamaConfig
from node.engine.errors import EngineFailed
from node.engine.native.adapters import AdapterTables
from node.engine.native.library import (
    BatchStruct,
    LayerStruct,
    MatrixStruct,
    ModelStruct,
    NativeLibrary,
    Team,
    spans_array,
)
from node.engine.native.packing import (
    LANES,
    Bits,
    matrix_bytes,
    packed_bits,
    panels,
    panels_in_turns,
)
from node.engine.native.reasons import NativeUnfit
from node.engine.page_block import PageBlock
from node.engine.pages import PAGE_SIZE, pages_for
from node.engine.rope import RotaryTable
from node.engine.weights.packings import GROUP, as_floats
from node.engine.weights.scheme import Precision, Product, WeightSource, held_as, products

_KNOWN = frozenset(
    {
        "vocabulary_size",
        "hidden_size",
        "intermediate_size",
        "layers",
        "heads",
        "kv_heads",
        "head_dimension",
        "context_length",
        "norm_epsilon",
        "rope_theta",
        "rope_scaling",
        "tied_embeddings",
    }
)
"""The fields of `LlamaConfig` that this code acts upon; others must be at their defaults."""
_DIMENSION_MAX = 256
_ALIGNMENT = 64


def check_shape(config: LlamaConfig, precision: Precision) -> None:
    """`NativeUnfit` unless the compiled step can compute such a model."""
    if precision == "fp32":
        raise NativeUnfit("fp32 is computed by torch")
    for field in fields(config):
        is_default = field.default is not MISSING and getattr(config, field.name) == field.default
        if field.name not in _KNOWN and not is_default:
            raise NativeUnfit(f"the compiled step does not know {field.name}")
    widths = {
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "head_dimension": config.head_dimension,
    }
    for name, width in widths.items():
        if width % GROUP:
            raise NativeUnfit(f"{name} {width} is no multiple of {GROUP}")
    if config.head_dimension > _DIMENSION_MAX:
        raise NativeUnfit(f"head_dimension {config.head_dimension} is above {_DIMENSION_MAX}")


def bits_of(product: Product, precision: Precision) -> Bits:
    """What one matrix is packed in."""
    match held_as(product, precision):
        case "dense":
            return 16
        case "int8":
            return 8
        case "int4":
            return 4


def native_bytes(config: LlamaConfig, precision: Precision, positions: int) -> int:
    """What `NativeModel.size` will be."""
    matrices = sum(
        _aligned(matrix_bytes(bits_of(product, precision), product.out, product.into))
        for product in products(config)
    )
    norms = (2 * config.layers + 1) * config.hidden_size
    tables = positions * config.head_dimension
    return matrices + 4 * (norms + tables)


@dataclass(frozen=True, slots=True)
class NativeOptions:
    """How a model is held and computed.

    `positions` bounds the position of any token. `may_use_tiles` False leaves AMX alone.
    """

    precision: Precision
    positions: int
    threads: int = 1
    may_use_tiles: bool = True


class NativeModel:
    """Weights in panels and the team that multiplies by them. Not thread-safe with itself.

    A token's result depends on the tokens before it alone: not on how many are computed with it,
    nor on how its prompt is cut into chunks, nor on the number of threads. But in int4 with tile
    registers the rows of chunks of 96 tokens and more are bf16, and those of others are codes.
    """

    def __init__(
        self,
        config: LlamaConfig,
        source: WeightSource,
        library: NativeLibrary,
        options: NativeOptions,
        progress: Callable[[float], None] = lambda _fraction: None,
    ) -> None:
        """Read every weight, one matrix at a time; `progress` hears the fraction done.

        `NativeUnfit` if the model is of a kind or shape that is not known here.
        """
        precision, positions = options.precision, options.positions
        check_shape(config, precision)
        self.config = config
        self.precision: Precision = precision
        self.positions = positions
        self.size = native_bytes(config, precision, positions)
        self._shelf = _Shelf(config, source, precision)
        self._layers = (LayerStruct * config.layers)()
        self._struct = ModelStruct(
            layers=self._layers,
            layer_count=config.layers,
            hidden=config.hidden_size,
            heads=config.heads,
            kv_heads=config.kv_heads,
            dimension=config.head_dimension,
            feed_forward=config.intermediate_size,
            epsilon=config.norm_epsilon,
            bits=16 if precision == "bf16" else 8,
        )
        self._read(progress)
        self._rotate(positions)
        self._team: Team | None = library.team(options.threads, may_use_tiles=options.may_use_tiles)
        self.has_tiles = self._team.has_tiles
        wide = "AVX-512 and AMX" if self.has_tiles else "AVX-512"
        self._instructions = wide if library.is_wide else "AVX2"

    def _read(self, progress: Callable[[float], None]) -> None:
        shelf, struct = self._shelf, self._struct
        wanted = iter(products(self.config))
        struct.embedding = shelf.matrix(next(wanted))
        struct.head = (
            struct.embedding if self.config.tied_embeddings else shelf.matrix(next(wanted))
        )
        struct.final_norm = shelf.vector("final_norm")
        for index in range(self.config.layers):
            layer = self._layers[index]
            layer.attention_norm = shelf.vector(f"layers.{index}.attention_norm")
            layer.feed_forward_norm = shelf.vector(f"layers.{index}.feed_forward_norm")
            layer.query_key_value = shelf.matrix(next(wanted))
            layer.output = shelf.matrix(next(wanted))
            layer.gate_up = shelf.matrix(next(wanted), is_in_turns=True)
            layer.down = shelf.matrix(next(wanted))
            progress((index + 1) / self.config.layers)

    def _rotate(self, positions: int) -> None:
        """One half of each table: the other holds the same numbers, or their opposites."""
        table = RotaryTable(self.config, positions, torch.float32)
        half = self.config.head_dimension // 2
        cosines, sines = table.at(torch.arange(positions))
        self._struct.cosines = self._shelf.keep(cosines[:, 0, half:])
        self._struct.sines = self._shelf.keep(sines[:, 0, half:])

    def open(self, cache_tokens: int, *, is_cache_quantised: bool = False) -> "NativeRunner":
        """This model with room for `cache_tokens` tokens. `NativeUnfit` for keys in int8."""
        if is_cache_quantised:
            raise NativeUnfit("keys and values in int8 are read by torch")
        return NativeRunner(self, cache_tokens)

    def step(self, batch: BatchStruct) -> None:
        """Compute one batch. `EngineFailed` if the model was closed."""
        if self._team is None:
            raise EngineFailed("The engine was closed.")
        self._team.step(self._struct, batch)

    @property
    def instructions(self) -> str:
        """What it computes with, for people."""
        return self._instructions

    @property
    def dtype(self) -> torch.dtype:
        """As `RunnableModel.dtype`."""
        return torch.bfloat16

    @property
    def device(self) -> torch.device:
        """As `RunnableModel.device`."""
        return CPU

    @property
    def logit_width(self) -> int:
        """Numbers of one row of logits: the vocabulary, filled up to whole panels."""
        return int(self._struct.head.rows)

    def close(self) -> None:
        """End the threads."""
        if self._team is not None:
            self._team.close()
            self._team = None


class NativeRunner:
    """Implements `Runner`: the pages of a native model, and steps over them."""

    def __init__(self, model: NativeModel, cache_tokens: int) -> None:
        config = model.config
        self._model = model
        self._pages = pages_for(cache_tokens)
        self._tables = AdapterTables(config.layers)
        page = PAGE_SIZE * config.head_dimension
        shape = (config.layers, config.kv_heads, self._pages, page)
        # Zeros: what lies behind the last token of a page is multiplied by nothing, not left out.
        self._keys, self._values = (_untouched_zeros(shape) for _ in range(2))

    @property
    def has_tiles(self) -> bool:
        """As `NativeModel.has_tiles`."""
        return self._model.has_tiles

    def run(self, chunks: Sequence[Chunk], adaptation: AdapterPlan | None = None) -> Tensor:
        """As `Runner.run`."""
        rows: list[int] = []
        stop = 0
        for chunk in chunks:
            stop += len(chunk.token_ids)
            rows.extend(range(stop - chunk.logits, stop))
        return self.logits(chunks, rows, adaptation)

    def logits(
        self, chunks: Sequence[Chunk], rows: Sequence[int], adaptation: AdapterPlan | None = None
    ) -> Tensor:
        """fp32 `[rows, vocabulary]`: what follows the tokens `rows` of the batch."""
        tokens, pages = array("i"), array("i")
        spans = []
        for chunk in chunks:
            start, first_page = len(tokens), len(pages)
            tokens.extend(chunk.token_ids)
            pages.extend(chunk.pages[: pages_for(chunk.seen)])
            spans.append((start, len(tokens), chunk.position, first_page))
            if (
                len(pages) - first_page < pages_for(chunk.seen)
                or chunk.seen > self._model.positions
            ):
                raise ValueError(f"there is no room for {chunk.seen} positions")
        self._check(tokens, pages)
        logits = torch.empty((len(rows), self._model.logit_width))
        rows_array, spans_struct = array("i", rows), spans_array(spans)
        adapters = None if adaptation is None else self._tables.of(adaptation)
        self._model.step(
            BatchStruct(
                tokens=tokens.buffer_info()[0],
                spans=ctypes.addressof(spans_struct),
                pages=pages.buffer_info()[0],
                logit_rows=rows_array.buffer_info()[0],
                logits=logits.data_ptr(),
                keys=self._keys.data_ptr(),
                values=self._values.data_ptr(),
                shelves=None if adapters is None else ctypes.addressof(adapters.structs),
                token_count=len(tokens),
                span_count=len(spans),
                logit_count=len(rows),
                page_count=self._pages,
                shelf_count=0 if adapters is None else len(adapters.structs),
            )
        )
        return logits[:, : self._model.config.vocabulary_size]

    def export_pages(self, pages: Sequence[int]) -> PageBlock:
        """As `Runner`."""
        where = torch.tensor(pages, dtype=torch.int64)
        keys, values = (part.index_select(2, where) for part in (self._keys, self._values))
        layers, heads, count, _ = keys.shape
        width = self._model.config.head_dimension
        # Of a page: keys [dimension / 2, tokens, 2], values [tokens / 2, dimension, 2].
        keys = keys.view(layers, heads, count, width // 2, PAGE_SIZE, 2).transpose(3, 4)
        values = values.view(layers, heads, count, PAGE_SIZE // 2, width, 2).transpose(4, 5)
        shape = (layers, heads, count * PAGE_SIZE, width)
        return PageBlock(keys.reshape(shape), values.reshape(shape))

    def import_pages(self, pages: Sequence[int], block: PageBlock) -> None:
        """As `Runner`."""
        where = torch.tensor(pages, dtype=torch.int64)
        layers, heads, _, width = block.keys.shape
        keys = block.keys.bfloat16().reshape(layers, heads, len(pages), PAGE_SIZE, width // 2, 2)
        values = block.values.bfloat16().reshape(
            layers, heads, len(pages), PAGE_SIZE // 2, 2, width
        )
        self._keys.index_copy_(2, where, keys.transpose(3, 4).flatten(3))
        self._values.index_copy_(2, where, values.transpose(4, 5).flatten(3))

    def _check(self, tokens: "array[int]", pages: "array[int]") -> None:
        """The compiled code reads where it is told to: nothing outside is let through."""
        if not tokens or min(tokens) < 0 or max(tokens) >= self._model.config.vocabulary_size:
            raise ValueError("a batch needs tokens, of the vocabulary")
        if min(pages) < 0 or max(pages) >= self._pages:
            raise ValueError(f"there are {self._pages} pages")

    def close(self) -> None:
        """End the model's threads and free the pages; `run` fails from now on."""
        self._model.close()
        self._keys = self._values = torch.empty(0)


def _untouched_zeros(shape: tuple[int, ...]) -> Tensor:
    """bf16; memory that becomes resident as it is written, which `torch.zeros` is at once."""
    size = math.prod(shape) * torch.bfloat16.itemsize
    return torch.frombuffer(_own_memory(size), dtype=torch.bfloat16).view(shape)


def _own_memory(size: int) -> mmap.mmap:
    """Zeros that are this process's alone: only such memory gets large pages."""
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


class _Shelf:
    """All weights of a model: matrices in one run of memory, in the order in which they are read.

    In large pages where the system has them: the step walks over all of it for every token.
    """

    def __init__(self, config: LlamaConfig, source: WeightSource, precision: Precision) -> None:
        self._source = source
        self._precision: Precision = precision
        size = sum(
            _aligned(matrix_bytes(bits_of(product, precision), product.out, product.into))
            for product in products(config)
        )
        # Room behind the last: the step asks for memory ahead of what it reads.
        memory = _own_memory(size + mmap.PAGESIZE)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)
        self._memory = torch.frombuffer(memory, dtype=torch.uint8)
        self._used = 0
        self._vectors: list[Tensor] = []

    def matrix(self, product: Product, *, is_in_turns: bool = False) -> MatrixStruct:
        """The next matrix; if `is_in_turns`, groups of rows of its parts in turns."""
        parts = [self._source.read(name) for name in product.names]
        bits = bits_of(product, self._precision)
        if packed_bits(parts) != bits:
            raise NativeUnfit(f"{product.names[0]} is not held in {bits} bits")
        rows = product.out // len(parts)
        packed = panels_in_turns(parts, rows) if is_in_turns else panels(parts)
        place = self._memory[self._used : self._used + len(packed)]
        place.copy_(packed)
        self._used += _aligned(len(packed))
        filled = -(-product.out // LANES) * LANES
        return MatrixStruct(place.data_ptr(), filled, product.into, bits, 0)

    def vector(self, name: str) -> int:
        """The address of a weight in fp32."""
        return self.keep(as_floats(self._source.read(name)))

    def keep(self, numbers: Tensor) -> int:
        """The address of an fp32 copy."""
        kept = numbers.float().contiguous()
        self._vectors.append(kept)
        return kept.data_ptr()


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
