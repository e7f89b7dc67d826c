"""`config.json` of a Hugging Face folder, read through an allow-list.

Knows which settings change what a Llama computes. A setting that is not listed here is refused:
ignoring it might give wrong answers without a word.
"""

from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from node.engine.config import LlamaConfig, RopeScaling
from node.hosting.json_file import JSON_ERRORS
from protocols.errors import ModelFileError

_Ids = int | list[int] | None


class _Kind(Struct):
    """Looked at first, so that another architecture is called by its name."""

    model_type: str = ""
    auto_map: dict[str, Any] | None = None
    quantization_config: dict[str, Any] | None = None


class _Rope(Struct, forbid_unknown_fields=True):
    rope_type: str = ""
    type: str = ""
    rope_theta: float | None = None
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192


class _Config(Struct, forbid_unknown_fields=True):
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    vocab_size: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    rope_scaling: _Rope | None = None
    rope_parameters: _Rope | None = None
    tie_word_embeddings: bool = False
    # Must have the one value that we compute.
    hidden_act: str = "silu"
    attention_bias: bool = False
    mlp_bias: bool = False
    rope_interleaved: bool = False
    pretraining_tp: int = 1
    # Without effect on the answer.
    model_type: str = ""
    architectures: list[str] | None = None
    attention_dropout: float = 0.0
    bos_token_id: _Ids = None
    eos_token_id: _Ids = None
    pad_token_id: _Ids = None
    initializer_range: float = 0.0
    torch_dtype: str | None = None
    dtype: str | None = None
    transformers_version: str = ""
    use_cache: bool = True
    is_llama_config: bool = True
    name_or_path: str = field(default="", name="_name_or_path")
    javascript: Any = field(default=None, name="transformers.js_config")


def read_config_json(path: Path) -> LlamaConfig:
    """The shape that the file describes. `ModelFileError`, naming the setting, if unsupported."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        _check_kind(path, msgspec.json.decode(data, type=_Kind))
        config = msgspec.json.decode(data, type=_Config)
        _check_fixed(path, config)
        return _shape(path, config)
    except (ValueError, *JSON_ERRORS) as error:
        raise ModelFileError(
            f"{path}: {error}. Only plain Llama models are supported; this setting is not known "
            "to leave the answers as they should be."
        ) from error


def _check_kind(path: Path, kind: _Kind) -> None:
    if kind.auto_map is not None:
        raise ModelFileError(
            f"{path} asks to run code that came with the model (auto_map). dslm never does that."
        )
    if kind.model_type != "llama":
        raise ModelFileError(
            f"{path} describes a model of type {kind.model_type!r}. Only llama is supported."
        )
    if kind.quantization_config is not None:
        raise ModelFileError(
            f"{path} describes quantised weights. Use the original weights or a GGUF file."
        )


def _check_fixed(path: Path, config: _Config) -> None:
    fixed = {
        "hidden_act": (config.hidden_act, "silu"),
        "attention_bias": (config.attention_bias, False),
        "mlp_bias": (config.mlp_bias, False),
        "rope_interleaved": (config.rope_interleaved, False),
        "pretraining_tp": (config.pretraining_tp, 1),
    }
    for name, (value, wanted) in fixed.items():
        if value != wanted:
            raise ModelFileError(f"{path}: {name} is {value!r}; only {wanted!r} is supported.")


def _shape(path: Path, config: _Config) -> LlamaConfig:
    rope = config.rope_parameters or config.rope_scaling or _Rope()
    heads = config.num_attention_heads
    theta = config.rope_theta if rope.rope_theta is None else rope.rope_theta
    return LlamaConfig(
        vocabulary_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        layers=config.num_hidden_layers,
        heads=heads,
        kv_heads=heads if config.num_key_value_heads is None else config.num_key_value_heads,
        head_dimension=config.hidden_size // max(heads, 1)
        if config.head_dim is None
        else config.head_dim,
        context_length=config.max_position_embeddings,
        norm_epsilon=config.rms_norm_eps,
        rope_theta=theta,
        rope_scaling=_scaling(path, rope),
        tied_embeddings=config.tie_word_embeddings,
    )


def _scaling(path: Path, rope: _Rope) -> RopeScaling | None:
    kind = rope.rope_type or rope.type or "default"
    if kind == "default":
        return None
    if rope.factor <= 0:
        raise ValueError(f"the rope factor is {rope.factor}")
    if kind == "linear":
        return RopeScaling("linear", factor=rope.factor)
    if kind == "llama3":
        return RopeScaling(
            "llama3",
            factor=rope.factor,
            low_frequency_factor=rope.low_freq_factor,
            high_frequency_factor=rope.high_freq_factor,
            original_context_length=rope.original_max_position_embeddings,
        )
    raise ModelFileError(
        f"{path}: rope scaling {kind!r} is not supported; default, linear and llama3 are."
    )
