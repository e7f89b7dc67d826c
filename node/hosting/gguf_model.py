"""A Llama model in a GGUF file: what its keys and tensors mean.

Knows llama.cpp's names and its order of attention rows; must not know how the container stores
them or how the model is computed.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from node.engine.config import LlamaConfig, RopeScaling
from node.engine.weights.packings import Stored, select
from node.engine.weights.scheme import Precision
from node.hosting.gguf import GgufFile, Value
from node.hosting.gguf_blocks import KEPT_AS, packed_from
from node.hosting.gguf_tokenizer import read_gguf_tokenizer
from node.hosting.weights import ModelWeights, check_tensors, digest_of, name_from
from protocols.errors import ModelFileError

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
    "ffn_norm": "feed_forward_norm",
    "ffn_gate": "gate",
    "ffn_up": "up",
    "ffn_down": "down",
}
_LAYER = re.compile(r"blk\.(0|[1-9][0-9]{0,5})\.(\w+)\.weight")
_ROPE_DIVISORS = "rope_freqs.weight"
_KNOWN_KEYS = frozenset(
    {
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "attention.value_length",
        "attention.layer_norm_rms_epsilon",
        "rope.dimension_count",
        "rope.freq_base",
        "rope.scaling.type",
        "rope.scaling.factor",
        "rope.scaling.finetuned",
        "rope.scaling.original_context_length",
        "vocab_size",
        "expert_count",
        "expert_used_count",
    }
)


def read_gguf_model(path: Path) -> ModelWeights:
    """The model in `path`. `ModelFileError` when it is damaged or not a model we can compute."""
    file = GgufFile(path)
    architecture = file.metadata.get("general.architecture")
    if architecture != "llama":
        raise ModelFileError(
            f"{path} holds a model of architecture {architecture!r}. Only llama is supported."
        )
    config = _Reader(path, file).config()
    shapes = {
        own: info.shape
        for name, info in file.tensors.items()
        if (own := own_name(name)) != _ROPE_DIVISORS
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
        index, part = layer.groups()
        return f"layers.{index}.{_LAYER_TENSORS.get(part, part)}"
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
        self._heads = {"query": config.heads, "key": config.kv_heads}

    def name(self, own: str) -> str:
        """llama.cpp's name of a weight of ours."""
        return self._names[own]

    def order(self, own: str, rows: int) -> Tensor | None:
        """Which of the file's rows go where; None if they stay where they are."""
        heads = self._heads.get(own.rpartition(".")[2])
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


class _Reader:
    """Turns the metadata of one file into a `LlamaConfig`, refusing what it does not know."""

    def __init__(self, path: Path, file: GgufFile) -> None:
        self._path = path
        self._file = file
        self._metadata = file.metadata

    def config(self) -> LlamaConfig:
        self._refuse_unknown()
        heads = self._integer("attention.head_count")
        hidden = self._integer("embedding_length")
        head_dimension = self._integer("attention.key_length", hidden // max(heads, 1))
        for key in ("attention.value_length", "rope.dimension_count"):
            if self._integer(key, head_dimension) != head_dimension:
                raise self._unsupported(key)
        if self._integer("expert_count", 0):
            raise self._unsupported("expert_count")
        try:
            return LlamaConfig(
                vocabulary_size=self._vocabulary_size(),
                hidden_size=hidden,
                intermediate_size=self._integer("feed_forward_length"),
                layers=self._integer("block_count"),
                heads=heads,
                kv_heads=self._integer("attention.head_count_kv", heads),
                head_dimension=head_dimension,
                context_length=self._integer("context_length"),
                norm_epsilon=self._number("attention.layer_norm_rms_epsilon"),
                rope_theta=self._number("rope.freq_base", 10_000.0),
                rope_scaling=self._rope_scaling(head_dimension),
                tied_embeddings="output.weight" not in self._file.tensors,
            )
        except ValueError as error:
            raise ModelFileError(f"{self._path} describes no usable model: {error}.") from error

    def _refuse_unknown(self) -> None:
        for key in self._metadata:
            prefix, _, rest = key.partition(".")
            if prefix == "llama" and rest not in _KNOWN_KEYS:
                raise self._unsupported(rest)

    def _vocabulary_size(self) -> int:
        embedding = self._file.tensors.get("token_embd.weight")
        if embedding is None:
            raise ValueError("it has no token_embd.weight")
        return embedding.shape[0]

    def _rope_scaling(self, head_dimension: int) -> RopeScaling | None:
        kind = self._metadata.get("llama.rope.scaling.type", "none")
        if _ROPE_DIVISORS in self._file.tensors:
            divisors = tuple(self._file.read(_ROPE_DIVISORS).reshape(-1).tolist())
            usable = all(0 < divisor < math.inf for divisor in divisors)
            if kind != "none" or len(divisors) != head_dimension // 2 or not usable:
                raise self._unsupported("rope.scaling.type")
            return RopeScaling("table", divisors=divisors)
        if kind == "linear":
            return RopeScaling("linear", factor=self._number("rope.scaling.factor"))
        if kind != "none":
            raise self._unsupported("rope.scaling.type")
        return None

    def _integer(self, key: str, default: int | None = None) -> int:
        value = self._metadata.get(f"llama.{key}", default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._unsupported(key)
        return value

    def _number(self, key: str, default: float | None = None) -> float:
        value = self._metadata.get(f"llama.{key}", default)
        if (
            not isinstance(value, int | float)
            or isinstance(value, bool)
            or not math.isfinite(value)
        ):
            raise self._unsupported(key)
        return float(value)

    def _unsupported(self, key: str) -> ModelFileError:
        value = self._metadata.get(f"llama.{key}")
        text = "is missing" if value is None else f"is {str(value)[:80]}"
        return ModelFileError(
            f"{self._path}: llama.{key} {text}, which is not supported. "
            "Use a plain Llama model in GGUF or a Hugging Face folder with safetensors."
        )
