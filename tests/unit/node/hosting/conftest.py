import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def trained_bpe() -> Tokenizer:
    """A small byte-level BPE with SmolLM's way of splitting text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=CONTROL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        ["the cat sat on the mat, the dog did not: 2024 états"] * 9, trainer
    )
    return tokenizer


def tiny_llama(**changes: Any) -> Any:
    """Random weights; large enough that answers vary."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(4)
    settings: dict[str, Any] = {
        "vocab_size": 320,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    model: Any = LlamaForCausalLM(LlamaConfig(**(settings | changes)))
    model.eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    return model


def permuted(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """llama.cpp's converter (`LlamaModel.permute` of convert_hf_to_gguf.py)."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


@dataclass(frozen=True, slots=True)
class GgufRecipe:
    """What to write, and what to spoil."""

    architecture: str = "llama"
    quantisation: GGMLQuantizationType = GGMLQuantizationType.F32
    extra_key: str = ""
    extra_tensor: str = ""
    leave_out: str = ""
    pre: str = "smollm"
    tokenizer: str = "gpt2"
    template: str = TEMPLATE
    rope_divisors: tuple[float, ...] = ()


def write_gguf(path: Path, model: Any, recipe: GgufRecipe) -> None:
    """`model` and the small tokenizer as llama.cpp's converter would write them."""
    writer = GGUFWriter(str(path), recipe.architecture)
    config = model.config
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_string("general.basename", "Tiny Llama")
    writer.add_license("apache-2.0")
    if recipe.extra_key:
        writer.add_uint32(f"llama.{recipe.extra_key}", 3)
    _write_tokenizer(writer, recipe)
    for name, values in _gguf_tensors(model).items():
        if name != recipe.leave_out:
            is_matrix = values.ndim == 2
            kind = recipe.quantisation if is_matrix else GGMLQuantizationType.F32
            writer.add_tensor(name, quantize(values, kind), raw_dtype=kind)
    if recipe.extra_tensor:
        writer.add_tensor(recipe.extra_tensor, np.ones(4, dtype=np.float32))
    if recipe.rope_divisors:
        writer.add_tensor("rope_freqs.weight", np.array(recipe.rope_divisors, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_tokenizer(writer: GGUFWriter, recipe: GgufRecipe) -> None:
    tokenizer = trained_bpe()
    description = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(description["vocab"], key=description["vocab"].__getitem__)
    writer.add_tokenizer_model(recipe.tokenizer)
    writer.add_tokenizer_pre(recipe.pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in CONTROL else 1 for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in description["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    if recipe.template:
        writer.add_chat_template(recipe.template)


def _gguf_tensors(model: Any) -> dict[str, NDArray[np.float32]]:
    config = model.config
    state = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    tensors = {
        "token_embd.weight": state["model.embed_tokens.weight"],
        "output_norm.weight": state["model.norm.weight"],
    }
    if not config.tie_word_embeddings:
        tensors["output.weight"] = state["lm_head.weight"]
    for index in range(config.num_hidden_layers):
        for theirs, short in _LAYER_NAMES.items():
            values = state[f"model.layers.{index}.{theirs}.weight"]
            if short == "attn_q":
                values = permuted(values, config.num_attention_heads)
            if short == "attn_k":
                values = permuted(values, config.num_key_value_heads)
            tensors[f"blk.{index}.{short}.weight"] = values
    return tensors


def write_folder(folder: Path, model: Any, shard: str = "5GB") -> None:
    """`model` and the small tokenizer as a Hugging Face folder."""
    model.save_pretrained(folder, max_shard_size=shard)
    trained_bpe().save(str(folder / "tokenizer.json"))
    settings = {"chat_template": TEMPLATE, "eos_token": {"content": "<|im_end|>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


@pytest.fixture
def make_gguf(tmp_path: Path) -> Callable[..., Path]:
    def make(model: Any = None, **changes: Any) -> Path:
        path = tmp_path / "tiny.gguf"
        write_gguf(path, model or tiny_llama(), GgufRecipe(**changes))
        return path

    return make


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    def make(model: Any = None, shard: str = "5GB") -> Path:
        folder = tmp_path / "Tiny Model"
        write_folder(folder, model or tiny_llama(), shard)
        return folder

    return make


@pytest.fixture
def make_llama() -> Callable[..., Any]:
    return tiny_llama


@pytest.fixture
def small_bpe() -> Tokenizer:
    return trained_bpe()
