"""The shape of a model from the keys of a GGUF file, architecture by architecture.

Knows llama.cpp's keys, and what its code takes for granted where a file says nothing; must not know
tensors' values. A key that is not known is refused: ignoring it might give wrong answers.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from node.engine.config import LLAMA, LlamaConfig, RopeScaling, Variant
from node.hosting.families.family import LAYERS_MAX
from node.hosting.families.rope import Rope, yarn
from node.hosting.gguf import GgufFile, Value
from protocols.errors import ModelFileError

ROPE_DIVISORS = "rope_freqs.weight"
_ARCHITECTURES: Mapping[str, frozenset[str]] = {
    "llama": frozenset({"attention.sliding_window"}),
    "smollm3": frozenset(),
    "qwen2": frozenset(),
    "qwen3": frozenset(),
    "gemma3": frozenset(
        {
            "attention.sliding_window",
            "attention.sliding_window_pattern",
            "rope.freq_base_swa",
            "final_logit_softcapping",
        }
    ),
}
"""Keys of an architecture beyond those that all have."""
_INTERLEAVED = frozenset({"llama", "smollm3"})
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
        "rope.scaling.yarn_beta_fast",
        "rope.scaling.yarn_beta_slow",
        "vocab_size",
        "expert_count",
        "expert_used_count",
    }
)
_NOPE_INTERVAL = 4
_GEMMA_INTERVAL, _GEMMA_LOCAL_THETA, _GEMMA_27B_LAYERS = 6, 10_000.0, 62


def read_gguf_config(path: Path, file: GgufFile) -> LlamaConfig:
    """The shape that `file` describes. `ModelFileError`, naming the key, if unsupported."""
    architecture = file.metadata.get("general.architecture")
    if architecture not in _ARCHITECTURES:
        raise ModelFileError(
            f"{path} holds a model of architecture {str(architecture)[:80]!r}. Supported are "
            f"{', '.join(sorted(_ARCHITECTURES))}."
        )
    return _Reader(path, file, str(architecture)).config()


def is_interleaved(file: GgufFile) -> bool:
    """Whether the rows of queries and keys alternate between the two halves that are rotated."""
    return file.metadata.get("general.architecture") in _INTERLEAVED


@dataclass(frozen=True, slots=True)
class _Reader:
    path: Path
    file: GgufFile
    architecture: str

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
        is_gemma = self.architecture == "gemma3"
        try:
            scaling = self._rope_scaling(head_dimension)
            shape = LlamaConfig(
                vocabulary_size=self._vocabulary_size(),
                hidden_size=hidden,
                intermediate_size=self._integer("feed_forward_length"),
                layers=self._layers(),
                heads=heads,
                kv_heads=self._integer("attention.head_count_kv", heads),
                head_dimension=head_dimension,
                context_length=self._context_length(scaling),
                norm_epsilon=self._number("attention.layer_norm_rms_epsilon"),
                rope_theta=self._number("rope.freq_base", None if is_gemma else 10_000.0),
                rope_scaling=scaling,
                tied_embeddings="output.weight" not in self.file.tensors,
            )
            return replace(shape, variant=self._variant(shape))
        except ValueError as error:
            raise ModelFileError(f"{self.path} describes no usable model: {error}.") from error

    def _refuse_unknown(self) -> None:
        known = _KNOWN_KEYS | _ARCHITECTURES[self.architecture]
        for key in self.file.metadata:
            prefix, _, rest = key.partition(".")
            if prefix == self.architecture and rest not in known:
                raise self._unsupported(rest)

    def _layers(self) -> int:
        layers = self._integer("block_count")
        if layers > LAYERS_MAX:
            raise ValueError(f"block_count is {layers}: too many layers")
        return layers

    def _variant(self, shape: LlamaConfig) -> Variant:
        """The families' differences, and the biases that are there."""
        match self.architecture:
            case "llama":
                window = self._integer("attention.sliding_window", 0)
                layers = tuple(range(shape.layers)) if window else ()
                variant = Variant(sliding_window=window, sliding_layers=layers)
            case "smollm3":
                variant = Variant(unrotated_layers=_every(_NOPE_INTERVAL, shape.layers))
            case "qwen3":
                variant = Variant(has_query_key_norms=True)
            case "gemma3":
                variant = self._gemma3(shape)
            case _:
                variant = LLAMA
        return replace(
            variant,
            has_input_biases="blk.0.attn_q.bias" in self.file.tensors,
            has_output_bias="blk.0.attn_output.bias" in self.file.tensors,
        )

    def _gemma3(self, shape: LlamaConfig) -> Variant:
        # llama.cpp knows the largest model by its layers: it alone scales by the hidden size.
        is_largest = shape.layers == _GEMMA_27B_LAYERS
        width = shape.hidden_size // shape.heads if is_largest else shape.head_dimension
        window = self._integer("attention.sliding_window", 0)
        slide = self._sliding_layers(shape.layers) if window else ()
        softcap = self._number("final_logit_softcapping", 0.0)
        return Variant(
            has_query_key_norms=True,
            has_output_norms=True,
            has_wide_norms=True,
            activation="gelu_tanh",
            embedding_scale=shape.hidden_size**0.5,
            attention_scale=width**-0.5,
            logit_softcap=softcap or None,
            sliding_window=window,
            sliding_layers=slide,
            local_rope_theta=self._number("rope.freq_base_swa", _GEMMA_LOCAL_THETA)
            if slide
            else None,
        )

    def _sliding_layers(self, layers: int) -> tuple[int, ...]:
        pattern = self._value("attention.sliding_window_pattern")
        if isinstance(pattern, tuple):
            if len(pattern) != layers:
                raise self._unsupported("attention.sliding_window_pattern")
            return tuple(index for index, slides in enumerate(pattern) if slides)
        interval = self._integer("attention.sliding_window_pattern", _GEMMA_INTERVAL)
        if interval < 1:
            raise self._unsupported("attention.sliding_window_pattern")
        return tuple(sorted({*range(layers)} - {*_every(interval, layers)}))

    def _vocabulary_size(self) -> int:
        embedding = self.file.tensors.get("token_embd.weight")
        if embedding is None:
            raise ValueError("it has no token_embd.weight")
        return embedding.shape[0]

    def _rope_scaling(self, head_dimension: int) -> RopeScaling | None:
        kind = self._value("rope.scaling.type") or "none"
        if ROPE_DIVISORS in self.file.tensors:
            divisors = tuple(self.file.read(ROPE_DIVISORS).reshape(-1).tolist())
            usable = all(0 < divisor < math.inf for divisor in divisors)
            if kind != "none" or len(divisors) != head_dimension // 2 or not usable:
                raise self._unsupported("rope.scaling.type")
            return RopeScaling("table", divisors=divisors)
        if kind == "linear":
            return RopeScaling("linear", factor=self._number("rope.scaling.factor"))
        if kind == "yarn":
            return self._yarn()
        if kind != "none":
            raise self._unsupported("rope.scaling.type")
        return None

    def _context_length(self, scaling: RopeScaling | None) -> int:
        """As far as YaRN reaches, where the file says how far the model was trained first."""
        length = self._integer("context_length")
        if scaling is None or scaling.kind != "yarn":
            return length
        return max(length, int(scaling.factor * scaling.original_context_length))

    def _yarn(self) -> RopeScaling:
        settings = Rope(
            beta_fast=self._number("rope.scaling.yarn_beta_fast", 32.0),
            beta_slow=self._number("rope.scaling.yarn_beta_slow", 1.0),
        )
        original = self._integer("rope.scaling.original_context_length")
        return yarn(self._number("rope.scaling.factor"), original, settings)

    def _value(self, key: str) -> Value | None:
        return self.file.metadata.get(f"{self.architecture}.{key}")

    def _integer(self, key: str, default: int | None = None) -> int:
        value = self.file.metadata.get(f"{self.architecture}.{key}", default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._unsupported(key)
        return value

    def _number(self, key: str, default: float | None = None) -> float:
        value = self.file.metadata.get(f"{self.architecture}.{key}", default)
        if (
            not isinstance(value, int | float)
            or isinstance(value, bool)
            or not math.isfinite(value)
        ):
            raise self._unsupported(key)
        return float(value)

    def _unsupported(self, key: str) -> ModelFileError:
        value = self._value(key)
        text = "is missing" if value is None else f"is {str(value)[:80]}"
        return ModelFileError(
            f"{self.path}: {self.architecture}.{key[:80]} {text}, which is not supported. "
            "Use another GGUF file of the model, or its Hugging Face folder with safetensors."
        )


def _every(interval: int, layers: int) -> tuple[int, ...]:
    """Each layer that ends a group of `interval`."""
    return tuple(index for index in range(layers) if (index + 1) % interval == 0)
