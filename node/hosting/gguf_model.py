"""A model in a GGUF file: what its tensors are.

Knows llama.cpp's names and its order of attention rows; must not know how the container stores
them or how the model is computed. `gguf_config` knows the keys.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from node.engine.config import LlamaConfig
from node.engine.weights.packings import Stored, select
from node.engine.weights.scheme import Precision
from node.hosting.gguf import GgufFile, Value
from node.hosting.gguf_blocks import KEPT_AS, packed_from
from node.hosting.gguf_config import ROPE_DIVISORS, is_interleaved, read_gguf_config
from node.hosting.gguf_tokenizer import read_gguf_tokenizer
from node.hosting.weights import ModelWeights, check_tensors, digest_of, name_from

_TENSORS = {
    "token_embd": "embedding",
    "output_norm": "final_norm",
    "output": "head",
}
_LAYER_TENSORS = {
    "attn_norm": "attention_norm",
    "attn_q": "query",
    "attn_k": "key",
    "attn_v": "value",
    "attn_output": "output",
    "attn_q_norm": "query_norm",
    "attn_k_norm": "key_norm",
    "post_attention_norm": "attention_output_norm",
    "post_ffw_norm": "feed_forward_output_norm",
    "ffn_norm": "feed_forward_norm",
    "ffn_gate": "gate",
    "ffn_up": "up",
    "ffn_down": "down",
}
_SUFFIXES = {"weight": "", "bias": "_bias"}
_LAYER = re.compile(r"blk\.(0|[1-9][0-9]{0,5})\.(\w+)\.(weight|bias)")


def read_gguf_model(path: Path) -> ModelWeights:
    """The model in `path`. `ModelFileError` when it is damaged or not a model we can compute."""
    file = GgufFile(path)
    config = read_gguf_config(path, file)
    shapes = {
        own: info.shape
        for name, info in file.tensors.items()
        if (own := own_name(name)) != ROPE_DIVISORS
    }
    check_tensors(path, config, shapes)
    return ModelWeights(
        config=config,
        tensors=GgufTensors(file, config),
        stored=GgufStored(file, config),
        kept_as=_kept_as(file),
        tokenizer=read_gguf_tokenizer(path, file.metadata),
        digest=digest_of([path]),
        name=_model_name(path, file.metadata),
        licence=str(file.metadata.get("general.license", "")),
    )


def own_name(name: str) -> str:
    """Our name of a tensor; llama.cpp's where we have none."""
    if layer := _LAYER.fullmatch(name):
        index, part, kind = layer.groups()
        return f"layers.{index}.{_LAYER_TENSORS.get(part, part)}" + _SUFFIXES[kind]
    return _TENSORS.get(name.removesuffix(".weight"), name)


class GgufTensors:
    """Implements `TensorSource` on an open file."""

    def __init__(self, file: GgufFile, config: LlamaConfig) -> None:
        self._file = file
        self._places = _Places(file, config)

    def read(self, name: str) -> Tensor:
        """One weight as fp32."""
        values = torch.from_numpy(self._file.read(self._places.name(name)))
        order = self._places.order(name, len(values))
        return values if order is None else values[order]


class GgufStored:
    """Implements `WeightSource` on an open file."""

    def __init__(self, file: GgufFile, config: LlamaConfig) -> None:
        self._file = file
        self._places = _Places(file, config)
        self._floats = GgufTensors(file, config)

    def read(self, name: str) -> Stored:
        """One weight as the file packs it, where we have that packing; else as fp32."""
        info = self._file.tensors[self._places.name(name)]
        blocks = self._file.blocks(info.name)
        packed = packed_from(blocks, info.kind) if blocks.ndim == 2 else None
        if packed is None:
            return self._floats.read(name)
        order = self._places.order(name, len(blocks))
        return packed if order is None else select(packed, order)


class _Places:
    """Where our weights are in a file, and in which order their rows."""

    def __init__(self, file: GgufFile, config: LlamaConfig) -> None:
        self._names = {own_name(name): name for name in file.tensors}
        self._heads: dict[str, int] = {}
        if is_interleaved(file):
            self._heads = {"query": config.heads, "key": config.kv_heads}

    def name(self, own: str) -> str:
        """llama.cpp's name of a weight of ours."""
        return self._names[own]

    def order(self, own: str, rows: int) -> Tensor | None:
        """Which of the file's rows go where; None if they stay where they are."""
        heads = self._heads.get(own.rpartition(".")[2].removesuffix("_bias"))
        return None if heads is None else unpermuted(rows, heads)


def unpermuted(rows: int, heads: int) -> Tensor:
    """The order of rows that undoes llama.cpp's interleaving of the two rotary halves of q and k.

    Blocks lie within rows, so that the same order serves packed weights.
    """
    pairs = torch.arange(rows).view(heads, rows // heads // 2, 2)
    return pairs.transpose(1, 2).reshape(rows)


def _kept_as(file: GgufFile) -> Precision | None:
    """The precision that keeps most of the file's matrices as they are packed, by their size."""
    sizes: dict[Precision | None, int] = {None: 0}
    for info in file.tensors.values():
        if len(info.shape) == 2 and own_name(info.name) not in {"embedding", "head"}:
            kind = KEPT_AS.get(info.kind)
            sizes[kind] = sizes.get(kind, 0) + info.size
    return max(sizes, key=lambda kind: sizes[kind])


def _model_name(path: Path, metadata: Mapping[str, Value]) -> str:
    parts = [metadata.get(f"general.{key}") for key in ("basename", "size_label")]
    known = [part for part in parts if isinstance(part, str) and part]
    return name_from("-".join(known) or path.stem)
