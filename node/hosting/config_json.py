"""`config.json` of a Hugging Face folder, read through an allow-list.

Knows which settings change what a model computes, family by family. A setting that is not listed
is refused: ignoring it might give wrong answers without a word.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from node.engine.config import LlamaConfig
from node.hosting.families.family import Family
from node.hosting.families.gemma3 import Gemma3, Gemma3Text
from node.hosting.families.llama import Llama, Mistral, SmolLM3
from node.hosting.families.qwen import Qwen2, Qwen3
from node.hosting.json_file import JSON_ERRORS
from protocols.errors import ModelFileError

FAMILIES: Mapping[str, type[Family | Gemma3]] = {
    "llama": Llama,
    "mistral": Mistral,
    "smollm3": SmolLM3,
    "qwen2": Qwen2,
    "qwen3": Qwen3,
    "gemma3_text": Gemma3Text,
    "gemma3": Gemma3,
}
"""By `model_type`."""


class _Kind(Struct):
    """Looked at first, so that another architecture is called by its name."""

    model_type: str = ""
    auto_map: dict[str, Any] | None = None
    quantization_config: dict[str, Any] | None = None


def read_config_json(path: Path) -> LlamaConfig:
    """The shape that the file describes. `ModelFileError`, naming the setting, if unsupported."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        kind = msgspec.json.decode(data, type=_Kind)
        _check_kind(path, kind)
        return msgspec.json.decode(data, type=FAMILIES[kind.model_type]).shape()
    # Overflow: of a number of hundreds of digits, where a root of it is wanted.
    except (ValueError, OverflowError, *JSON_ERRORS) as error:
        raise ModelFileError(
            f"{path}: {error}. This setting is not known to leave the answers as they should be."
        ) from error


def _check_kind(path: Path, kind: _Kind) -> None:
    if kind.auto_map is not None:
        raise ModelFileError(
            f"{path} asks to run code that came with the model (auto_map). dslm never does that."
        )
    if kind.model_type not in FAMILIES:
        raise ModelFileError(
            f"{path} describes a model of type {kind.model_type[:80]!r}. Supported are "
            f"{', '.join(sorted(FAMILIES))}."
        )
    if kind.quantization_config is not None:
        raise ModelFileError(
            f"{path} describes quantised weights. Use the original weights or a GGUF file."
        )
