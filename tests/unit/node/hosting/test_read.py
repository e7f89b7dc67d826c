"""Both formats against transformers' own model, and everything that can be wrong with a file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGMLQuantizationType
from torch import Tensor

from node.engine.batch import Chunk, build_batch
from node.engine.cache import KeyValueCache
from node.engine.model import LlamaModel
from node.engine.rope import inverse_frequencies
from node.hosting.read import read_model
from node.hosting.weights import ModelWeights, name_from
from protocols.errors import ModelFileError
from protocols.ids import parse_specialist_id

Make = Callable[..., Path]
MakeLlama = Callable[..., Any]
IDS = [5, 17, 300, 42, 9, 9, 250]


def logits_of(weights: ModelWeights) -> Tensor:
    model = LlamaModel(weights.config, weights.tensors, torch.float32, 128)
    cache = KeyValueCache(weights.config, 16, torch.float32)
    return model.forward(build_batch([Chunk(IDS, 0, (0,), True)], torch.float32), cache)[0]


def reference_logits(model: Any) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = model(torch.tensor([IDS])).logits[0, -1]
    return logits


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": False},
        {"num_key_value_heads": 4},
        {"num_key_value_heads": 1},
        {"num_attention_heads": 8, "head_dim": 16},
    ],
    ids=["grouped", "untied", "multi_head", "multi_query", "wide"],
)
def test_both_formats_give_the_logits_of_transformers(
    make_gguf: Make, make_folder: Make, make_llama: MakeLlama, changes: dict[str, Any]
) -> None:
    model = make_llama(**changes)
    wanted = reference_logits(model)
    for path in (make_gguf(model), make_folder(model)):
        assert torch.allclose(logits_of(read_model(path)), wanted, atol=1e-4)


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_quantised_files_are_near_the_original(
    make_gguf: Make, make_llama: MakeLlama, kind: str
) -> None:
    model = make_llama()
    weights = read_model(make_gguf(model, quantisation=GGMLQuantizationType[kind]))
    original = model.state_dict()
    for ours, theirs in (
        ("embedding", "model.embed_tokens.weight"),
        ("layers.1.query", "model.layers.1.self_attn.q_proj.weight"),
        ("layers.0.down", "model.layers.0.mlp.down_proj.weight"),
    ):
        difference = (weights.tensors.read(ours) - original[theirs]).norm()
        assert difference / original[theirs].norm() < 0.12


def test_tensors_belong_to_the_reader(make_gguf: Make) -> None:
    """Writing into a weight must not reach the file or the next read."""
    tensors = read_model(make_gguf()).tensors
    tensors.read("final_norm").zero_()
    assert tensors.read("final_norm").abs().sum() > 0


def test_a_table_of_rope_divisors_is_used(make_gguf: Make) -> None:
    divisors = (1.0, 1.0, 1.0, 1.0, 2.0, 4.0, 8.0, 8.0)
    plain = read_model(make_gguf())
    scaled = read_model(make_gguf(rope_divisors=divisors))
    ratio = inverse_frequencies(plain.config) / inverse_frequencies(scaled.config)
    assert torch.allclose(ratio, torch.tensor(divisors))
    assert not torch.allclose(logits_of(plain), logits_of(scaled), atol=1e-3)


@pytest.mark.parametrize("kind", ["linear", "llama3"])
def test_rope_scaling_of_a_folder_gives_the_logits_of_transformers(
    make_folder: Make, make_llama: MakeLlama, kind: str
) -> None:
    rope: dict[str, Any] = {"rope_type": kind, "rope_theta": 500.0, "factor": 4.0}
    if kind == "llama3":
        rope |= {
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        }
    model = make_llama(rope_parameters=rope)
    plain = reference_logits(make_llama())
    wanted = reference_logits(model)
    assert not torch.allclose(plain, wanted, atol=1e-3)
    assert torch.allclose(logits_of(read_model(make_folder(model))), wanted, atol=1e-4)


def test_a_model_in_several_files_is_read_by_its_index(
    make_folder: Make, make_llama: MakeLlama
) -> None:
    model = make_llama()
    folder = make_folder(model, shard="60KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    weights = read_model(folder)
    assert torch.allclose(logits_of(weights), reference_logits(model), atol=1e-4)
    sorted(folder.glob("*.safetensors"))[0].unlink()
    with pytest.raises(ModelFileError, match="lacks"):
        read_model(folder)


def test_an_index_cannot_name_files_elsewhere(make_folder: Make) -> None:
    folder = make_folder()
    index = {"weight_map": {"lm_head.weight": "../../secret.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelFileError, match="beside it"):
        read_model(folder)


def test_facts_of_a_gguf_file(make_gguf: Make) -> None:
    weights = read_model(make_gguf())
    assert weights.name == "tiny-llama"
    assert weights.licence == "apache-2.0"
    assert weights.tokenizer.stop_ids == {2}
    assert weights.config.parameters == sum(
        weights.tensors.read(name).numel() for name in weights.config.tensor_shapes()
    )


def test_the_digest_names_the_content(make_gguf: Make, make_folder: Make, tmp_path: Path) -> None:
    path = make_gguf()
    digest = read_model(path).digest
    moved = path.rename(tmp_path / "other.gguf")
    assert read_model(moved).digest == digest
    assert read_model(make_gguf(template="{{ messages[0]['content'] }}")).digest != digest
    folder = make_folder()
    before = read_model(folder).digest
    (folder / "README.md").write_text("no part of the model")
    assert read_model(folder).digest == before
    (folder / "generation_config.json").write_text('{"eos_token_id": [0, 2]}')
    after = read_model(folder)
    assert after.digest != before
    assert after.tokenizer.stop_ids == {0, 2}


def test_a_folder_with_one_gguf_file_is_that_file(make_gguf: Make) -> None:
    path = make_gguf()
    assert read_model(path.parent).digest == read_model(path).digest
    (path.parent / "second.gguf").write_bytes(path.read_bytes())
    with pytest.raises(ModelFileError, match="several models"):
        read_model(path.parent)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"architecture": "mamba"}, "mamba"),
        ({"extra_key": "attention.causal"}, "causal"),
        ({"extra_key": "expert_count"}, "expert_count"),
        ({"leave_out": "blk.1.ffn_up.weight"}, r"layers\.1\.up"),
        ({"leave_out": "token_embd.weight"}, "token_embd"),
        ({"extra_tensor": "blk.0.attn_q.bias"}, "key_bias"),
        ({"extra_tensor": "blk.0.attn_q_norm.weight"}, "query_norm"),
        ({"extra_tensor": "blk.0.ffn_gate.bias"}, "gate_bias"),
        ({"rope_divisors": (1.0, 2.0)}, "rope"),
        ({"pre": "klingon"}, "klingon"),
        ({"tokenizer": "llama"}, "scores"),
        ({"tokenizer": "bert"}, "'bert'"),
        ({"template": "{% if %}"}, "template"),
    ],
)
def test_a_gguf_file_that_we_cannot_compute_is_refused_by_name(
    make_gguf: Make, recipe: dict[str, Any], words: str
) -> None:
    with pytest.raises(ModelFileError, match=words):
        read_model(make_gguf(**recipe))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "mamba"}, "mamba.*qwen3"),
        ({"model_type": "qwen2"}, "attention_bias"),
        ({"auto_map": {"AutoModel": "evil.Model"}}, "auto_map"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
        ({"attention_bias": True}, "key_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"sliding_window": 512}, "sliding_window"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "dynamic"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 0.0}}, "factor"),
        ({"num_attention_heads": "four"}, "num_attention_heads"),
        ({"num_key_value_heads": 3}, "heads"),
        ({"hidden_size": 32}, "shape"),
        ({"num_hidden_layers": 3}, "lacks"),
        ({"num_hidden_layers": 1}, "holds"),
        ({"tie_word_embeddings": False}, "head"),
    ],
)
def test_a_config_that_we_cannot_compute_is_refused_by_name(
    make_folder: Make, change: dict[str, Any], words: str
) -> None:
    folder = make_folder()
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFileError, match=words):
        read_model(folder)


def test_a_missing_path_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"no model at .*pull"):
        read_model(tmp_path / "nothing.gguf")
    with pytest.raises(ModelFileError, match="neither"):
        read_model(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.safetensors"])
def test_pickles_and_bare_weights_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04.")
    with pytest.raises(ModelFileError, match=r"pickle|weights alone"):
        read_model(tmp_path / name)


def test_a_folder_with_pickled_weights_only_is_refused(make_folder: Make) -> None:
    folder = make_folder()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelFileError, match="pickle"):
        read_model(folder)


def test_a_gguf_file_cut_short_anywhere_is_refused(make_gguf: Make, tmp_path: Path) -> None:
    data = make_gguf().read_bytes()
    cut = tmp_path / "cut.gguf"
    for size in [0, 3, 8, 20, 24, 100, *range(1000, len(data), len(data) // 40), len(data) - 40]:
        cut.write_bytes(data[:size])
        with pytest.raises(ModelFileError, match=r"damaged|cannot be read"):
            read_model(cut)


def test_a_safetensors_file_cut_short_is_refused(make_folder: Make) -> None:
    folder = make_folder()
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    for size in (0, 5, 300, len(data) // 2, len(data) - 1):
        weights.write_bytes(data[:size])
        with pytest.raises(ModelFileError, match="damaged"):
            read_model(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "tokenizer_config.json"])
def test_a_damaged_json_file_is_refused_by_name(make_folder: Make, name: str) -> None:
    folder = make_folder()
    (folder / name).write_text('{"model": ')
    with pytest.raises(ModelFileError, match=name):
        read_model(folder)


def test_a_folder_without_tokenizer_is_refused(make_folder: Make) -> None:
    folder = make_folder()
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelFileError, match=r"tokenizer\.json"):
        read_model(folder)


@pytest.mark.parametrize("text", ["Tiny Llama", "...", "日本", "A/B:c", "x" * 300, "-a-"])
def test_names_are_fit_for_specialist_ids(text: str) -> None:
    assert parse_specialist_id(name_from(text))
