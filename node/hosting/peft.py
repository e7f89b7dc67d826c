"""LoRA adapters as PEFT saves them: `adapter_config.json`, `adapter_model.safetensors`.

Knows PEFT's settings and names, through an allow-list: a setting that changes what is computed and
that we do not compute is refused by its name. Runs no code from the folder and opens no pickle.
"""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from safetensors.torch import save_file
from torch import Tensor

from node.engine.adapters.weights import PARTS, Adapter, LowRank, PartName
from node.engine.config import LlamaConfig
from node.hosting.json_file import JSON_ERRORS
from node.hosting.safetensors import SafetensorsTensors
from node.hosting.weights import digest_of
from protocols.errors import ModelFileError

PEFT_CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
_PICKLE = "adapter_model.bin"

MODULES: Mapping[str, PartName] = {
    "self_attn.q_proj": "query",
    "self_attn.k_proj": "key",
    "self_attn.v_proj": "value",
    "self_attn.o_proj": "output",
    "mlp.gate_proj": "gate",
    "mlp.up_proj": "up",
    "mlp.down_proj": "down",
}
_SHORT: Mapping[str, PartName] = {name.rpartition(".")[2]: part for name, part in MODULES.items()}
_NAMES: Mapping[PartName, str] = {part: name for name, part in MODULES.items()}
_PREFIX = "base_model.model.model.layers."
_TENSOR = re.compile(
    r"base_model\.model\.model\.layers\.(0|[1-9][0-9]{0,5})\.(\w+\.\w+)\.lora_([AB])"
    r"(?:\.default)?\.weight"
)

_KNOWN = frozenset(
    {
        "peft_type",
        "r",
        "lora_alpha",
        "target_modules",
        "use_rslora",
        "layers_to_transform",
        "alora_invocation_tokens",
        "bias",
        "init_lora_weights",
        "task_type",
    }
)
"""Settings that are read."""
_HARMLESS = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "revision",
        "inference_mode",
        "lora_dropout",
        "layers_pattern",
        "loftq_config",
        "eva_config",
        "corda_config",
        "lora_ga_config",
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "ensure_weight_tying",
    }
)
"""Settings of training, or without effect unless another one is set."""
_INITS = frozenset({"gaussian", "eva", "orthogonal"})
"""Ways to begin training that leave the base's weights as they are; pissa, olora and others do
not, and an adapter trained so belongs on a base that nobody else has."""


class _Config(Struct):
    peft_type: str
    r: int
    lora_alpha: float
    target_modules: list[str] | str | None = None
    use_rslora: bool = False
    layers_to_transform: list[int] | int | None = None
    alora_invocation_tokens: list[int] | None = None
    bias: str = "none"
    init_lora_weights: bool | str = True
    task_type: str | None = None


def read_peft(folder: Path, config: LlamaConfig) -> Adapter:
    """The adapter in `folder`, for a model of the shape `config`.

    `ModelFileError`, naming the setting or the tensor, when it is not whole or asks for something
    that we do not compute: DoRA, patterns of ranks, biases, saved modules and so on.
    """
    settings = _read_config(folder / PEFT_CONFIG)
    tensors = SafetensorsTensors([_weights(folder)])
    wanted = set(_wanted(folder, settings, config))
    places = _places(folder, tensors.shapes)
    _check_complete(folder, wanted, places)
    root = math.sqrt(settings.r) if settings.use_rslora else settings.r
    pairs: dict[tuple[int, PartName], LowRank] = {}
    for key in wanted:
        a, b = places[key]["A"], places[key]["B"]
        if tensors.shapes[a][:1] != (settings.r,):
            raise ModelFileError(f"{folder}: {a} has {tensors.shapes[a]}, not rank {settings.r}.")
        _check_shapes(folder, config, key, (tensors.shapes[a], tensors.shapes[b]))
        pairs[key] = LowRank(tensors.read(a), tensors.read(b), settings.lora_alpha / root)
    return Adapter(
        digest=digest_of([folder / PEFT_CONFIG, folder / _WEIGHTS]),
        parts=pairs,
        invocation=tuple(settings.alora_invocation_tokens or ()),
    )


def write_peft(adapter: Adapter, folder: Path, base: str) -> None:
    """Save `adapter` into `folder`, which need not exist, as PEFT 0.18 and later read it.

    `base` is the base's Hugging Face name or path. `ValueError` for an adapter whose parts differ
    in rank or scale, or whose layers differ in parts; PEFT has patterns for those, we do not.
    """
    ranks = {(pair.rank, pair.scale) for pair in adapter.parts.values()}
    layers = sorted({layer for layer, _ in adapter.parts})
    parts = [part for part in PARTS if (layers[0], part) in adapter.parts]
    if len(ranks) != 1 or len(adapter.parts) != len(layers) * len(parts):
        raise ValueError("only adapters with one rank, one scale and the same parts in each layer")
    (rank, scale) = ranks.pop()
    settings: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": _alpha(scale, rank),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": [_NAMES[part].rpartition(".")[2] for part in parts],
        "layers_to_transform": layers,
        "alora_invocation_tokens": list(adapter.invocation) or None,
    }
    tensors: dict[str, Tensor] = {}
    for (layer, part), pair in adapter.parts.items():
        name = f"{_PREFIX}{layer}.{_NAMES[part]}"
        tensors[f"{name}.lora_A.weight"] = pair.a.contiguous()
        tensors[f"{name}.lora_B.weight"] = pair.unscaled_b().contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / _WEIGHTS, metadata={"format": "pt"})
    (folder / PEFT_CONFIG).write_bytes(msgspec.json.format(msgspec.json.encode(settings)))


def _alpha(scale: float, rank: int) -> float:
    """PEFT writes whole numbers where it can."""
    alpha = scale * rank
    return int(alpha) if alpha == int(alpha) else alpha


def _read_config(path: Path) -> _Config:
    try:
        data = path.read_bytes()
        every: dict[str, Any] = msgspec.json.decode(data, type=dict[str, Any])
        if every.get("peft_type") != "LORA":
            raise ModelFileError(
                f"{path} describes an adapter of type {every.get('peft_type')!r}. "
                "Only LORA is supported."
            )
        config = msgspec.json.decode(data, type=_Config)
    except (OSError, *JSON_ERRORS) as error:
        raise ModelFileError(f"{path} cannot be read: {error}.") from error
    for name, value in sorted(every.items()):
        if name not in _KNOWN | _HARMLESS and value not in (None, False, [], {}, ""):
            raise ModelFileError(
                f"{path}: {name} is {str(value)[:80]!r}; adapters that set it are not supported."
            )
    for reason in _reasons(config):
        raise ModelFileError(f"{path}: {reason}.")
    return config


def _reasons(config: _Config) -> Iterator[str]:
    """Why the adapter cannot be computed, though each setting is known."""
    if config.bias != "none":
        yield f"bias is {config.bias!r}; adapters that change biases are not supported"
    if isinstance(config.init_lora_weights, str) and config.init_lora_weights not in _INITS:
        yield (
            f"init_lora_weights is {config.init_lora_weights!r}, which changes the base's weights "
            "too; convert the adapter to plain LoRA when saving it"
        )
    if config.task_type not in (None, "CAUSAL_LM"):
        yield f"task_type is {config.task_type!r}; only CAUSAL_LM is supported"
    if config.r < 1 or not math.isfinite(config.lora_alpha):
        yield f"r is {config.r} and lora_alpha {config.lora_alpha}"
    if config.alora_invocation_tokens is not None and not config.alora_invocation_tokens:
        yield "alora_invocation_tokens is an empty list"
    if any(token < 0 for token in config.alora_invocation_tokens or ()):
        yield "alora_invocation_tokens has a negative id"


def _weights(folder: Path) -> Path:
    path = folder / _WEIGHTS
    if path.is_file():
        return path
    if (folder / _PICKLE).exists():
        raise ModelFileError(
            f"{folder} holds its weights only as pickle ({_PICKLE}), which can run code when "
            "opened. Save the adapter as safetensors."
        )
    raise ModelFileError(f"{folder} holds no {_WEIGHTS}. Get the whole folder.")


def _wanted(folder: Path, settings: _Config, config: LlamaConfig) -> Iterator[tuple[int, PartName]]:
    """All weights that the settings say are changed."""
    targets = settings.target_modules
    if targets == "all-linear":
        targets = sorted(_SHORT)
    if not isinstance(targets, list) or not targets:
        raise ModelFileError(
            f"{folder}: target_modules is {targets!r}; a list of {', '.join(sorted(_SHORT))} "
            "or 'all-linear' is supported."
        )
    chosen = settings.layers_to_transform
    layers = (
        range(config.layers) if chosen is None else [chosen] if isinstance(chosen, int) else chosen
    )
    for layer in layers:
        if not 0 <= layer < config.layers:
            raise ModelFileError(
                f"{folder} changes layer {layer}, but the model has {config.layers}."
            )
    for target in targets:
        part = _SHORT.get(target)
        if part is None:
            raise ModelFileError(
                f"{folder}: target_modules names {target[:80]!r}; "
                f"only {', '.join(sorted(_SHORT))} can be adapted."
            )
        yield from ((layer, part) for layer in layers)


def _places(
    folder: Path, shapes: Mapping[str, tuple[int, ...]]
) -> dict[tuple[int, PartName], dict[str, str]]:
    """The names of A and B of each changed weight."""
    places: dict[tuple[int, PartName], dict[str, str]] = {}
    for name in shapes:
        found = _TENSOR.fullmatch(name)
        part = MODULES.get(found[2]) if found else None
        if found is None or part is None:
            raise ModelFileError(
                f"{folder} holds {name[:120]}, which is no A or B of a weight that can be adapted "
                f"({', '.join(sorted(_SHORT))})."
            )
        places.setdefault((int(found[1]), part), {})[found[3]] = name
    return places


def _check_complete(
    folder: Path,
    wanted: set[tuple[int, PartName]],
    places: Mapping[tuple[int, PartName], Mapping[str, str]],
) -> None:
    for layer, part in sorted(wanted | places.keys()):
        name = f"layer {layer} {_NAMES[part]}"
        if (layer, part) not in wanted:
            raise ModelFileError(
                f"{folder} holds weights of {name}, which its settings do not name."
            )
        if len(places.get((layer, part), {})) < 2:
            raise ModelFileError(f"{folder} lacks the weights of {name}. Get the folder again.")


def _check_shapes(
    folder: Path,
    config: LlamaConfig,
    key: tuple[int, PartName],
    found: tuple[tuple[int, ...], tuple[int, ...]],
) -> None:
    """Before anything of that size is read."""
    layer, part = key
    out, into = config.tensor_shapes()[f"layers.{layer}.{part}"]
    a, b = found
    if a[1:] != (into,) or b != (out, a[0]):
        raise ModelFileError(
            f"{folder}: A and B of layer {layer} {_NAMES[part]} have shapes {a} and {b}; "
            f"this model's weight is {(out, into)}. The adapter was made for another model."
        )
