"""Targets for adapters in folders: settings and weights, PEFT's and our own form.

Knows readers and what each may raise.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save, save_file

from node.engine.config import LlamaConfig
from node.hosting.adapters import read_adapter
from protocols.errors import ModelFileError
from tests.fuzz.target import Maker, Target

_CONFIG = LlamaConfig(
    vocabulary_size=8,
    hidden_size=8,
    intermediate_size=8,
    layers=1,
    heads=2,
    kv_heads=1,
    head_dimension=4,
    context_length=32,
    norm_epsilon=1e-5,
    rope_theta=1e4,
)
_QUERY = "base_model.model.model.layers.0.self_attn.q_proj"
_PEFT = {
    "peft_type": "LORA",
    "r": 2,
    "lora_alpha": 4,
    "target_modules": ["q_proj"],
    "bias": "none",
    "use_dora": False,
    "use_rslora": True,
    "layers_to_transform": [0],
    "alora_invocation_tokens": [3, 4],
    "rank_pattern": {},
}
_COMPACT = {"format": "dslm-adapter-1", "seed": 7, "rank": 2, "scale": 0.5, "parts": ["query"]}
_WORDS = (
    b'"q_proj"', b'"down_proj"', b'"all-linear"', b'"input"', b'"weight"', b"NaN", b"1e309",
    b"18446744073709551616", b"-1", b"null", b"true", b"[0,1]",
)  # fmt: skip


def peft_settings(folder: Path) -> Target:
    """`adapter_config.json` beside good weights."""
    save_file(_peft_tensors(), folder / "adapter_model.safetensors")
    return _file(folder, "adapter_config.json", (_encoded(_PEFT),), "json")


def peft_weights(folder: Path) -> Target:
    """`adapter_model.safetensors` beside good settings."""
    (folder / "adapter_config.json").write_bytes(_encoded(_PEFT))
    return _file(folder, "adapter_model.safetensors", (save(_peft_tensors()),), "raw")


def compact_settings(folder: Path) -> Target:
    """`dslm_adapter.json` beside good weights."""
    save_file(_compact_tensors(), folder / "dslm_adapter.safetensors")
    return _file(folder, "dslm_adapter.json", (_encoded(_COMPACT),), "json")


def compact_weights(folder: Path) -> Target:
    """`dslm_adapter.safetensors` beside good settings."""
    (folder / "dslm_adapter.json").write_bytes(_encoded(_COMPACT))
    return _file(folder, "dslm_adapter.safetensors", (save(_compact_tensors()),), "raw")


def _file(folder: Path, name: str, seeds: tuple[bytes, ...], style: str) -> Target:
    path = folder / name

    def run(data: bytes) -> None:
        path.unlink(missing_ok=True)  # the one before may still be mapped
        path.write_bytes(data)
        read_adapter(folder, _CONFIG)

    return Target(run, (ModelFileError,), seeds, style, _WORDS)


def _encoded(settings: Mapping[str, object]) -> bytes:
    return json.dumps(settings).encode()


def _peft_tensors() -> dict[str, torch.Tensor]:
    return {
        f"{_QUERY}.lora_A.weight": torch.ones(2, 8),
        f"{_QUERY}.lora_B.weight": torch.ones(8, 2),
    }


def _compact_tensors() -> dict[str, torch.Tensor]:
    return {
        "layers.0.query.codes": torch.ones(8, 2, dtype=torch.int8),
        "layers.0.query.scales": torch.ones(8, dtype=torch.bfloat16),
    }


MAKERS: Mapping[str, Maker] = {
    "peft_settings": peft_settings,
    "peft_weights": peft_weights,
    "compact_settings": compact_settings,
    "compact_weights": compact_weights,
}
