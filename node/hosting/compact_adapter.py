"""The compact form of an adapter: a frozen A from a seed, B in signed bytes, 5 MB for a specialist.

Knows the two files, `dslm_adapter.json` and `dslm_adapter.safetensors`; must not know PEFT.

B of each changed weight is `layers.N.PART.codes` int8 [out, rank] and `layers.N.PART.scales` bf16
or fp16 [out]; A is made by `node.engine.adapters.frozen`.
"""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import torch
from msgspec import Meta, Struct
from safetensors.torch import save_file
from torch import Tensor

from node.engine.adapters.frozen import MakeA, frozen_a
from node.engine.adapters.weights import PARTS, PRODUCTS, Adapter, LowRank, PartName
from node.engine.config import LlamaConfig
from node.engine.weights.packings import Int8Rows
from node.hosting.json_file import read_json
from node.hosting.safetensors import SafetensorsTensors
from node.hosting.weights import digest_of
from protocols.errors import ModelFileError

COMPACT_CONFIG = "dslm_adapter.json"
_WEIGHTS = "dslm_adapter.safetensors"
_KINDS = frozenset({"I8", "F16", "BF16"})
_RANK_MAX = 256
"""More rows of A than any adapter that this form is for; a file cannot make us compute for long."""

_Rank = Annotated[int, Meta(ge=1, le=_RANK_MAX)]
_TokenId = Annotated[int, Meta(ge=0, le=2**31)]


class CompactConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What `dslm_adapter.json` says.

    `base` is the digest of the model that the adapter was trained on, or empty. With `a_for`
    `input`, weights that read the same input (query, key and value; gate and up) have one A;
    with `weight` each has its own. `invocation` makes it an activated adapter.
    """

    format: Literal["dslm-adapter-1"]
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    rank: _Rank
    scale: Annotated[float, Meta(gt=0, le=1000)]
    parts: tuple[PartName, ...] = PARTS
    a_for: Literal["input", "weight"] = "input"
    invocation: Annotated[tuple[_TokenId, ...], Meta(max_length=64)] = ()
    base: Annotated[str, Meta(max_length=64)] = ""
    licence: Annotated[str, Meta(max_length=96)] = ""


def compact_a(
    compact: CompactConfig,
    config: LlamaConfig,
    layer: int,
    part: PartName,
    make_a: MakeA = frozen_a,
) -> Tensor:
    """fp32 `[rank, in]`: the frozen A of one weight."""
    into = config.tensor_shapes()[f"layers.{layer}.{part}"][1]
    return make_a(compact.seed, _a_name(compact, layer, part), compact.rank, into)


def _a_name(compact: CompactConfig, layer: int, part: PartName) -> str:
    if compact.a_for == "weight":
        return f"layers.{layer}.{part}"
    product = next(product for product, parts in PRODUCTS.items() if part in parts)
    return f"layers.{layer}.{product}"


def read_compact(folder: Path, config: LlamaConfig, make_a: MakeA = frozen_a) -> Adapter:
    """The adapter in `folder`, for a model of the shape `config`.

    `make_a` may remember what it makes, for adapters that are read one after the other.
    `ModelFileError` when it is not whole, or was made for a model of another shape.
    """
    compact = read_json(folder / COMPACT_CONFIG, CompactConfig)
    tensors = SafetensorsTensors([folder / _WEIGHTS], kinds=_KINDS)
    shapes = config.tensor_shapes()
    wanted: dict[str, tuple[int, ...]] = {}
    for layer in range(config.layers):
        for part in compact.parts:
            out, into = shapes[f"layers.{layer}.{part}"]
            if compact.rank > into:
                raise ModelFileError(f"{folder}: rank {compact.rank} is more than {into} columns.")
            wanted[f"layers.{layer}.{part}.codes"] = (out, compact.rank)
            wanted[f"layers.{layer}.{part}.scales"] = (out,)
    if dict(tensors.shapes) != wanted:
        raise ModelFileError(
            f"{folder / _WEIGHTS} does not hold what its settings and this model ask for: it was "
            "made for another model, or is damaged."
        )
    made: dict[str, Tensor] = {}
    pairs: dict[tuple[int, PartName], LowRank] = {}
    for layer in range(config.layers):
        for part in compact.parts:
            name = _a_name(compact, layer, part)
            if name not in made:
                made[name] = compact_a(compact, config, layer, part, make_a)
            b = _codes(folder, tensors, layer, part)
            pairs[layer, part] = LowRank(made[name], b, compact.scale)
    return Adapter(
        digest=digest_of([folder / COMPACT_CONFIG, folder / _WEIGHTS]),
        parts=pairs,
        invocation=compact.invocation,
    )


def write_compact(
    folder: Path, compact: CompactConfig, bs: dict[tuple[int, PartName], Int8Rows]
) -> None:
    """Save an adapter of which `bs` are the B's, in signed bytes, by layer and part."""
    tensors: dict[str, Tensor] = {}
    for (layer, part), packed in sorted(bs.items()):
        name = f"layers.{layer}.{part}"
        tensors[f"{name}.codes"] = packed.codes.contiguous()
        tensors[f"{name}.scales"] = packed.scales.contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / _WEIGHTS)
    (folder / COMPACT_CONFIG).write_bytes(msgspec.json.format(msgspec.json.encode(compact)))


def _codes(folder: Path, tensors: SafetensorsTensors, layer: int, part: PartName) -> Int8Rows:
    name = f"layers.{layer}.{part}"
    codes, scales = tensors.read(f"{name}.codes"), tensors.read(f"{name}.scales")
    if codes.dtype is not torch.int8 or not scales.is_floating_point():
        raise ModelFileError(f"{folder / _WEIGHTS}: {name} is not in signed bytes with scales.")
    return Int8Rows(codes, scales)
