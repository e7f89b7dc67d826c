"""A model in a Hugging Face folder: `config.json`, `*.safetensors`, `tokenizer.json`.

Knows Hugging Face's names and files; runs no code from the folder and opens no pickle.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from msgspec import Struct
from safetensors import SafetensorError, safe_open
from torch import Tensor

from node.engine.config import LLAMA, Variant
from node.hosting.config_json import read_config_json
from node.hosting.folder_tokenizer import TOKENIZER_FILES, read_folder_tokenizer
from node.hosting.json_file import read_json
from node.hosting.weights import ModelWeights, check_tensors, digest_of, name_from
from protocols.errors import ModelFileError

_INDEX = "model.safetensors.index.json"
_TENSORS = {
    "model.embed_tokens.weight": "embedding",
    "model.norm.weight": "final_norm",
    "lm_head.weight": "head",
}
_LAYER_TENSORS = {
    "input_layernorm": "attention_norm",
    "self_attn.q_proj": "query",
    "self_attn.k_proj": "key",
    "self_attn.v_proj": "value",
    "self_attn.o_proj": "output",
    "self_attn.q_norm": "query_norm",
    "self_attn.k_norm": "key_norm",
    "post_attention_layernorm": "feed_forward_norm",
    "mlp.gate_proj": "gate",
    "mlp.up_proj": "up",
    "mlp.down_proj": "down",
}
_NORMED_TENSORS = _LAYER_TENSORS | {
    "post_attention_layernorm": "attention_output_norm",
    "pre_feedforward_layernorm": "feed_forward_norm",
    "post_feedforward_layernorm": "feed_forward_output_norm",
}
"""Where attention's output is normed too, a name that Llama has means another norm."""
_LAYER = re.compile(r"model\.layers\.(0|[1-9][0-9]{0,5})\.([\w.]+)\.(weight|bias)")
# Of models with eyes: the text part's prefix, as transformers writes it and as it once did.
_TEXT_PART = re.compile(r"^(?:model\.language_model|language_model\.model)\.(.+)")
_OTHER_PARTS = re.compile(r"(?:model\.)?(?:vision_tower|multi_modal_projector)\..+")
# Old checkpoints carry the rotary frequencies, which are computed from the settings anyway.
_IGNORED = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")
FLOATS = frozenset({"F32", "F16", "BF16", "F64"})


class _Index(Struct):
    weight_map: dict[str, str]


def read_huggingface_model(folder: Path) -> ModelWeights:
    """The model in `folder`. `ModelFileError` when it is not whole or not one we can compute."""
    config = read_config_json(folder / "config.json")
    files = _weight_files(folder)
    tensors = SafetensorsTensors(files, config.variant)
    shapes = dict(tensors.shapes)
    if config.tied_embeddings:
        shapes.pop("head", None)
    check_tensors(folder, config, shapes)
    parts = [folder / name for name in ("config.json", *TOKENIZER_FILES)]
    return ModelWeights(
        config=config,
        tensors=tensors,
        stored=tensors,
        kept_as=None,
        tokenizer=read_folder_tokenizer(folder),
        digest=digest_of([*files, *(part for part in parts if part.is_file())]),
        name=name_from(folder.resolve().name),
        licence="",
    )


def own_name(name: str, variant: Variant = LLAMA) -> str:
    """Our name of a tensor; Hugging Face's where we have none."""
    if variant.has_output_norms:
        name = _TEXT_PART.sub(r"model.\1", name).removeprefix("language_model.")
    if layer := _LAYER.fullmatch(name):
        index, part, kind = layer.groups()
        parts = _NORMED_TENSORS if variant.has_output_norms else _LAYER_TENSORS
        return f"layers.{index}.{parts.get(part, part)}" + ("_bias" if kind == "bias" else "")
    return _TENSORS.get(name, name)


class SafetensorsTensors:
    """Implements `TensorSource` on files that stay mapped while this lives."""

    def __init__(
        self,
        files: Sequence[Path],
        variant: Variant = LLAMA,
        kinds: frozenset[str] = FLOATS,
    ) -> None:
        """Read the headers. `ModelFileError` for a damaged file or a type not among `kinds`."""
        self.shapes: Mapping[str, tuple[int, ...]]
        self._variant = variant
        self._places: dict[str, tuple[Path, str, Any]] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        for path in files:
            try:
                # Not closed: the handle is the mapping, and ends with this object.
                handle: Any = ExitStack().enter_context(safe_open(path, framework="pt"))
                for name in handle.keys():  # noqa: SIM118
                    if self._is_left_out(name):
                        continue
                    part = handle.get_slice(name)
                    _check_kind(path, name, part.get_dtype(), kinds)
                    own = own_name(name, variant)
                    shapes[own] = tuple(part.get_shape())
                    self._places[own] = (path, name, handle)
            except (OSError, SafetensorError) as error:
                raise _damaged(path, error) from error
        self.shapes = shapes

    def read(self, name: str) -> Tensor:
        """One weight in the type it is stored in."""
        path, stored_name, handle = self._places[name]
        try:
            tensor: Tensor = handle.get_tensor(stored_name)
        except (OSError, SafetensorError) as error:
            raise _damaged(path, error) from error
        # Wide norms are stored less one, so that a weight of zero changes nothing.
        is_less_one = self._variant.has_wide_norms and name.endswith("norm")
        return tensor.float() + 1 if is_less_one else tensor

    def _is_left_out(self, name: str) -> bool:
        has_eyes = self._variant.has_output_norms and _OTHER_PARTS.fullmatch(name)
        return bool(has_eyes or _IGNORED.fullmatch(name))


def _check_kind(path: Path, name: str, kind: str, kinds: frozenset[str]) -> None:
    if kind not in kinds:
        raise ModelFileError(
            f"{path} stores {name} as {kind}. Quantised safetensors are not supported: "
            "use the original fp32, fp16 or bf16 weights, or a GGUF file."
        )


def _damaged(path: Path, error: Exception) -> ModelFileError:
    return ModelFileError(
        f"{path} is not a whole safetensors file ({error}). "
        "It may be damaged or cut short: get it again."
    )


def _weight_files(folder: Path) -> list[Path]:
    index = folder / _INDEX
    if index.is_file():
        return _indexed_files(folder, index)
    files = sorted(folder.glob("*.safetensors"))
    if files:
        return files
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")) or any(folder.glob("*.pth")):
        raise ModelFileError(
            f"{folder} holds weights only as pickle (.bin, .pt), which can run code when opened. "
            "Get the safetensors or GGUF version of this model."
        )
    raise ModelFileError(f"{folder} holds no *.safetensors file. Get the whole model folder.")


def _indexed_files(folder: Path, index: Path) -> list[Path]:
    names = set(read_json(index, _Index).weight_map.values())
    for name in sorted(names):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelFileError(
                f"{index} names {name[:80]!r}, which is no safetensors file beside it."
            )
        if not _is_file(folder / name):
            raise ModelFileError(
                f"{folder} lacks {name[:80]}, which its index names. Get it again."
            )
    return [folder / name for name in sorted(names)]


def _is_file(path: Path) -> bool:
    """`Path.is_file` raises for a name that no file can have, such as a too long one."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
