"""Which weights are held how at each precision, and how many bytes that comes to.

Knows the shape of a model and which kernels exist; must not know files. What is predicted here is
what `LlamaModel.size` is afterwards, to the byte.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from node.engine.config import LlamaConfig
from node.engine.weights.int4 import int4_fits
from node.engine.weights.packings import (
    GROUP,
    Int4Groups,
    Int8Groups,
    Int8Rows,
    Stored,
    as_floats,
)
from node.engine.weights.quantise import quantise_int4, quantise_int8

Precision = Literal["fp32", "bf16", "int8", "int4"]
"""What weights are held in. int8 and int4 compute in bf16; int4 holds the embedding and the head
in int8, because four bits there cost several per cent of perplexity (docs/adr/0007)."""
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8", "int4")

Held = Literal["dense", "int8", "int4"]


class WeightSource(Protocol):
    """Where weights come from, one at a time, under the names of `LlamaConfig.tensor_shapes`."""

    def read(self, name: str) -> Stored:
        """One weight, as floats of any type or packed; fresh tensors that the caller may keep."""
        ...


@dataclass(frozen=True, slots=True)
class Product:
    """Weights that read the same input and are multiplied as one matrix `[out, in]`."""

    names: tuple[str, ...]
    out: int
    into: int
    is_table: bool = False


def products(config: LlamaConfig) -> Iterator[Product]:
    """All matrices of a model, in the order in which it reads them."""
    hidden, inner = config.hidden_size, config.intermediate_size
    queries = config.heads * config.head_dimension
    keys = config.kv_heads * config.head_dimension
    yield Product(("embedding",), config.vocabulary_size, hidden, is_table=True)
    if not config.tied_embeddings:
        yield Product(("head",), config.vocabulary_size, hidden, is_table=True)
    for index in range(config.layers):
        layer = f"layers.{index}."
        attention = tuple(layer + name for name in ("query", "key", "value"))
        yield Product(attention, queries + 2 * keys, hidden)
        yield Product((f"{layer}output",), hidden, queries)
        yield Product((f"{layer}gate", f"{layer}up"), 2 * inner, hidden)
        yield Product((f"{layer}down",), hidden, inner)


def held_as(product: Product, precision: Precision) -> Held:
    """The packing of one matrix. What does not fit the kernel of four bits is held in eight."""
    if precision in {"fp32", "bf16"}:
        return "dense"
    if precision == "int8" or product.is_table or not int4_fits(product.out, product.into):
        return "int8"
    return "int4"


def activation_type(precision: Precision) -> torch.dtype:
    """What is computed in."""
    return torch.float32 if precision == "fp32" else torch.bfloat16


def norm_type(config: LlamaConfig, dtype: torch.dtype) -> torch.dtype:
    """What the weights of norms are held and multiplied in, where `dtype` is computed in."""
    return torch.float32 if config.variant.has_wide_norms else dtype


def weight_bytes(config: LlamaConfig, precision: Precision, positions: int) -> int:
    """Bytes of all weights and of the rotary tables for `positions` positions."""
    dtype = activation_type(precision)
    matrices = sum(_bytes_of(product, precision) for product in products(config))
    norms, biases = 0, 0
    for name, shape in config.tensor_shapes().items():
        if len(shape) == 1:
            norms += shape[0] * name.endswith("norm")
            biases += shape[0] * name.endswith("bias")
    rotary = 1 if config.variant.local_rope_theta is None else 2
    tables = rotary * 2 * positions * config.head_dimension
    return matrices + norms * norm_type(config, dtype).itemsize + (biases + tables) * dtype.itemsize


def _bytes_of(product: Product, precision: Precision) -> int:
    items = product.out * product.into
    match held_as(product, precision):
        case "dense":
            return items * activation_type(precision).itemsize
        case "int8":
            return items + 2 * product.out
        case "int4":
            return items // 2 + 4 * items // GROUP


class QuantisedSource:
    """Implements `WeightSource` on another: every matrix packed as `precision` has it.

    What is packed so already is passed on untouched; everything else goes through our quantiser.
    """

    def __init__(self, source: WeightSource, config: LlamaConfig, precision: Precision) -> None:
        self._source = source
        self._held = {
            name: held_as(product, precision)
            for product in products(config)
            for name in product.names
        }

    def read(self, name: str) -> Stored:
        """One weight; those that are no matrix as floats."""
        stored = self._source.read(name)
        match self._held.get(name, "dense"):
            case "dense":
                return as_floats(stored)
            case "int8":
                is_so = isinstance(stored, Int8Rows | Int8Groups)
                return stored if is_so else quantise_int8(stored)
            case "int4":
                return stored if isinstance(stored, Int4Groups) else quantise_int4(stored)
