"""What `config.json` of each family means, and what is refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest

from node.engine.config import LLAMA, LlamaConfig, RopeScaling, Variant
from node.hosting.config_json import FAMILIES, read_config_json
from protocols.errors import ModelFileError

COMMON: dict[str, Any] = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
TEXT_FAMILIES = [family for family in FAMILIES if family != "gemma3"]


def read(tmp_path: Path, family: str, **changes: Any) -> LlamaConfig:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": family} | COMMON | changes))
    return read_config_json(path)


def test_what_is_left_out_is_what_transformers_takes_for_granted(tmp_path: Path) -> None:
    sizes = {family: read(tmp_path, family) for family in TEXT_FAMILIES}
    heads = {family: config.head_dimension for family, config in sizes.items()}
    assert heads == dict.fromkeys(("llama", "mistral", "smollm3", "qwen2"), 8) | {
        "qwen3": 128,
        "gemma3_text": 256,
    }
    tied = {family for family, config in sizes.items() if config.tied_embeddings}
    assert tied == {"smollm3", "gemma3_text"}
    bases = {family: config.rope_theta for family, config in sizes.items()}
    assert bases["smollm3"] == 2_000_000
    assert bases["gemma3_text"] == 1_000_000
    assert {bases[family] for family in ("llama", "mistral", "qwen2", "qwen3")} == {10_000}


def test_a_llama_differs_in_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, "llama").variant == LLAMA
    assert read(tmp_path, "mistral", sliding_window=None).variant == LLAMA


def test_windows_and_layers_without_positions(tmp_path: Path) -> None:
    every = tuple(range(6))
    assert read(tmp_path, "mistral").variant == Variant(sliding_window=4096, sliding_layers=every)
    assert read(tmp_path, "smollm3").variant == Variant(unrotated_layers=(3,))
    slid = {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 4}
    assert read(tmp_path, "qwen2", **slid).variant.sliding_layers == (4, 5)
    assert read(tmp_path, "qwen3", **slid | {"use_sliding_window": False}).variant == Variant(
        has_query_key_norms=True
    )
    mixed = {"layer_types": ["sliding_attention", "full_attention"] * 3}
    assert read(tmp_path, "qwen2", **slid | mixed).variant.sliding_layers == (0, 2, 4)
    gemma = read(tmp_path, "gemma3_text", num_hidden_layers=13).variant
    assert [i for i in range(13) if i not in gemma.sliding_layers] == [5, 11]
    assert gemma.local_rope_theta == 10_000


def test_yarn_reaches_as_far_as_it_stretches(tmp_path: Path) -> None:
    rope = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    config = read(tmp_path, "qwen2", rope_scaling=rope)
    assert config.context_length == 256
    assert config.rope_scaling is not None
    assert config.rope_scaling.attention_factor == pytest.approx(1.1386, abs=1e-4)
    given = read(tmp_path, "qwen2", rope_scaling=rope | {"attention_factor": 1.5})
    assert given.rope_scaling == RopeScaling(
        "yarn", factor=4.0, original_context_length=64, attention_factor=1.5
    )


def test_the_text_part_of_a_model_with_eyes_has_its_own_defaults(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    text = {"hidden_size": 2560, "num_hidden_layers": 34, "sliding_window": 1024}
    whole = {"model_type": "gemma3", "text_config": text, "vision_config": {"depth": 3}}
    path.write_text(json.dumps(whole))
    config = read_config_json(path)
    assert (config.heads, config.kv_heads, config.head_dimension) == (8, 4, 256)
    assert config.vocabulary_size == 262_208
    assert config.variant.embedding_scale == pytest.approx(2560**0.5)
    path.write_text(json.dumps(whole | {"hidden_size": 5}))
    with pytest.raises(ModelFileError, match="hidden_size"):
        read_config_json(path)
    path.write_text(json.dumps(whole | {"tie_word_embeddings": False}))
    with pytest.raises(ModelFileError, match="tie_word_embeddings"):
        read_config_json(path)


@pytest.mark.parametrize("family", TEXT_FAMILIES)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"frobnicate": 1}, "frobnicate"),
        ({"num_experts": 8}, "num_experts"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"num_attention_heads": 0}, "heads"),
        ({"num_key_value_heads": 3}, "heads"),
        ({"head_dim": 7}, "head_dim"),
        ({"num_hidden_layers": 10**12}, "layers"),
        ({"num_hidden_layers": -1}, "layers"),
        ({"hidden_size": -32}, "hidden_size"),
        ({"rms_norm_eps": 0.0}, "epsilon"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "longrope"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "mscale": 1.0}}, "mscale"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": -2.0}}, "factor"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 1e308}}, "factor"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2, "beta_fast": 1e308}}, "beta_fast"),
        ({"rope_scaling": {"rope_type": "linear", "partial_rotary_factor": 0.5}}, "partial"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
        ({"auto_map": {}}, "auto_map"),
    ],
)
def test_what_no_family_computes_is_refused_in_one_line(
    tmp_path: Path, family: str, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(ModelFileError, match=words) as caught:
        read(tmp_path, family, **change)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("family", "change", "words"),
    [
        ("llama", {"rope_interleaved": True}, "rope_interleaved"),
        ("llama", {"sliding_window": 8}, "sliding_window"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act"),
        ("mistral", {"sliding_window": 0}, "sliding_window"),
        ("mistral", {"layer_types": ["full_attention"] * 6}, "layer_types"),
        ("smollm3", {"no_rope_layers": [1]}, "no_rope_layers"),
        ("smollm3", {"no_rope_layer_interval": 0}, "no_rope_layer_interval"),
        ("smollm3", {"mlp_bias": True}, "mlp_bias"),
        ("qwen2", {"use_mrope": True}, "use_mrope"),
        ("qwen2", {"layer_types": ["sliding_attention"] * 6}, "sliding_window"),
        ("qwen2", {"layer_types": ["full_attention"] * 5}, "5 entries"),
        ("qwen3", {"layer_types": ["linear_attention"] * 6}, "linear_attention"),
        ("qwen3", {"attention_bias": 2}, "attention_bias"),
        ("gemma3_text", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ("gemma3_text", {"final_logit_softcapping": -1.0}, "softcap"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "bidirectional"),
        ("gemma3_text", {"hidden_activation": "silu"}, "hidden_activation"),
        ("gemma3_text", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar"),
        ("gemma3_text", {"sliding_window": None}, "sliding_window"),
        ("gemma3_text", {"sliding_window_pattern": 0}, "sliding_window_pattern"),
        (
            "gemma3_text",
            {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}},
            "scaled",
        ),
        (
            "qwen2",
            {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {}},
            "contradict",
        ),
    ],
)
def test_what_a_family_does_not_compute_is_refused_by_name(
    tmp_path: Path, family: str, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(ModelFileError, match=words):
        read(tmp_path, family, **change)


def test_a_number_that_no_float_holds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"config\.json"):
        read(tmp_path, "gemma3_text", hidden_size=10**400)


@pytest.mark.parametrize("data", ["", "{", '{"model_type": "qwen3"', "[]", '{"model_type": 3}'])
def test_a_file_cut_short_is_refused(tmp_path: Path, data: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(data)
    with pytest.raises(ModelFileError, match=r"config\.json"):
        read_config_json(path)
