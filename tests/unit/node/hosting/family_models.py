"""A small model of each family as transformers builds it, and as llama.cpp's converter writes it.

The converter's rules are those of `conversion/{llama,qwen,gemma}.py` of llama.cpp.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, RopeScalingType
from gguf.quants import quantize
from numpy.typing import NDArray

VOCABULARY = 320
_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 2.0**-17,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}
_PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_GEMMA_PARTS = _PARTS | {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


@dataclass(frozen=True, slots=True)
class Case:
    """One model: transformers' class, its settings, and the architecture that GGUF calls it."""

    family: str
    settings: dict[str, Any] = field(default_factory=dict)
    architecture: str = ""
    keys: dict[str, Any] = field(default_factory=dict)
    """Keys of the GGUF file that follow from the settings."""


_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_YARN = {
    "rope_type": "yarn",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
_GEMMA: dict[str, Any] = {
    "num_hidden_layers": 7,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "sliding_window": 12,
    "query_pre_attn_scalar": 16,
    "tie_word_embeddings": True,
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    },
}
_GEMMA_KEYS = {
    "attention.sliding_window": 12,
    "rope.freq_base": 1_000_000.0,
    "rope.scaling.type": "linear",
    "rope.scaling.factor": 8.0,
}
CASES = {
    "llama": Case("Llama", {"num_key_value_heads": 4}, "llama"),
    "llama_multi_query_biased": Case(
        "Llama", {"num_key_value_heads": 1, "attention_bias": True}, "llama"
    ),
    "llama3": Case("Llama", {"rope_parameters": _LLAMA3, "tie_word_embeddings": True}),
    "mistral": Case("Mistral", {"sliding_window": None, "head_dim": 16}, "llama"),
    "mistral_window": Case(
        "Mistral", {"sliding_window": 12}, "llama", {"attention.sliding_window": 12}
    ),
    "smollm3": Case("SmolLM3", {"num_hidden_layers": 5}, "smollm3", {"rope.freq_base": 2e6}),
    "smollm3_window": Case(
        "SmolLM3", {"no_rope_layers": [1, 0, 1], "use_sliding_window": True, "sliding_window": 12}
    ),
    "qwen2": Case("Qwen2", {"tie_word_embeddings": True}, "qwen2"),
    "qwen2_window": Case(
        "Qwen2", {"use_sliding_window": True, "sliding_window": 12, "max_window_layers": 1}
    ),
    "qwen2_yarn": Case(
        "Qwen2",
        {"rope_parameters": _YARN},
        "qwen2",
        {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 4.0,
            "rope.scaling.original_context_length": 64,
        },
    ),
    "qwen3": Case("Qwen3", {"head_dim": 16}, "qwen3"),
    "qwen3_multi_query": Case("Qwen3", {"head_dim": 8, "num_key_value_heads": 1}, "qwen3"),
    "gemma3": Case("Gemma3", _GEMMA, "gemma3", _GEMMA_KEYS),
    "gemma3_softcap": Case(
        "Gemma3",
        _GEMMA
        | {
            "final_logit_softcapping": 5.0,
            "layer_types": ["sliding_attention", "full_attention"] * 3 + ["sliding_attention"],
        },
        "gemma3",
        _GEMMA_KEYS
        | {
            "final_logit_softcapping": 5.0,
            "attention.sliding_window_pattern": [True, False] * 3 + [True],
        },
    ),
    "gemma3_no_window": Case(
        "Gemma3",
        {key: _GEMMA[key] for key in ("head_dim", "num_key_value_heads", "tie_word_embeddings")}
        | {"layer_types": ["full_attention"] * 3, "query_pre_attn_scalar": 16},
        "gemma3",
        {"rope.freq_base": 1_000_000.0},
    ),
}


def build(case: Case) -> Any:
    """The model in transformers, with random weights so large that answers vary."""
    import transformers

    suffix = "TextConfig" if case.family == "Gemma3" else "Config"
    config = getattr(transformers, case.family + suffix)(**(_COMMON | case.settings))
    model: Any = getattr(transformers, f"{case.family}ForCausalLM")(config)
    randomise(model)
    return model.eval()


def build_with_eyes() -> Any:
    """Gemma 3 with the smallest vision tower."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    config = Gemma3Config(
        text_config=_COMMON | _GEMMA,
        vision_config=vision,
        mm_tokens_per_image=4,
        image_token_index=319,
        boi_token_index=317,
        eoi_token_index=318,
    )
    model: Any = Gemma3ForConditionalGeneration(config)
    randomise(model)
    return model.eval()


def randomise(model: Any) -> None:
    """Give every weight a value that matters, biases and norms too."""
    generator = torch.Generator().manual_seed(4)
    config = model.config.get_text_config()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                # A token that drowns what the layers add would only ever repeat itself.
                is_scaled = "embed" in name and hasattr(config, "query_pre_attn_scalar")
                parameter.copy_(noise * (0.03 if is_scaled else 0.3))
            else:
                parameter.add_(noise * 0.3)


def write_gguf(
    path: Path, model: Any, case: Case, kind: GGMLQuantizationType = GGMLQuantizationType.F32
) -> None:
    """The weights and keys of `model`; a tokenizer of single bytes."""
    config = model.config
    writer = GGUFWriter(str(path), case.architecture)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    _write_keys(writer, case)
    write_byte_tokenizer(writer)
    for name, values in gguf_tensors(model, case).items():
        used = kind if values.ndim == 2 else GGMLQuantizationType.F32
        writer.add_tensor(name, quantize(values, used), raw_dtype=used)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_keys(writer: GGUFWriter, case: Case) -> None:
    for key, value in case.keys.items():
        name = f"{case.architecture}.{key}"
        if isinstance(value, str):
            writer.add_rope_scaling_type(RopeScalingType(value))
        elif isinstance(value, list):
            writer.add_array(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        else:
            writer.add_uint32(name, value)


def write_byte_tokenizer(writer: GGUFWriter) -> None:
    from tokenizers import pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    control = [f"<|{number}|>" for number in range(VOCABULARY - len(alphabet) - 1)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*control, *alphabet, "ab"])
    writer.add_token_types([3] * len(control) + [1] * (len(alphabet) + 1))
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(2)


def gguf_tensors(model: Any, case: Case) -> dict[str, NDArray[np.float32]]:
    """llama.cpp's names and contents."""
    state = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    config = model.config
    parts = _GEMMA_PARTS if case.architecture == "gemma3" else _PARTS
    tensors = {
        "token_embd.weight": state["model.embed_tokens.weight"],
        "output_norm.weight": state["model.norm.weight"],
    }
    if not config.tie_word_embeddings:
        tensors["output.weight"] = state["lm_head.weight"]
    for index in range(config.num_hidden_layers):
        for theirs, short in parts.items():
            for kind in ("weight", "bias"):
                values = state.get(f"model.layers.{index}.{theirs}.{kind}")
                if values is not None:
                    tensors[f"blk.{index}.{short}.{kind}"] = _converted(values, short, case, config)
    if case.architecture == "gemma3":
        return {
            name: values + np.float32(1) if name.endswith("norm.weight") else values
            for name, values in tensors.items()
        }
    return tensors


def _converted(
    values: NDArray[np.float32], short: str, case: Case, config: Any
) -> NDArray[np.float32]:
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(short)
    if heads is None or case.architecture not in {"llama", "smollm3"}:
        return values
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)
