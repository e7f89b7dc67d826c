"""Adapters in folders: what PEFT saves is read as PEFT computes it, all else is refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from node.config import EngineConfig, ModelConfig
from node.engine.adapters.weights import PARTS, Adapter
from node.engine.base import EngineRequest, Generated
from node.engine.config import LlamaConfig
from node.engine.errors import UnknownAdapter
from node.engine.weights.quantise import quantise_int8
from node.hosting.adapters import read_adapter
from node.hosting.compact_adapter import CompactConfig, compact_a, read_compact, write_compact
from node.hosting.hosted import (
    HostedModel,
    HostedSpec,
    host_adapter,
    load_model,
    unload_adapter,
)
from node.hosting.peft import read_peft, write_peft
from node.hosting.startup import load_models
from node.paths import Paths
from protocols.errors import ModelFileError
from protocols.ids import SpecialistId
from protocols.messages.ask import Sampling
from tests.unit.node.engine.adapters.adapter_referee import (
    MODULES,
    hooked_greedy,
    merged_greedy,
    random_adapter,
)

Make = Callable[..., Path]
Spoil = Callable[[dict[str, Any]], Any]
TINY = LlamaConfig(
    vocabulary_size=320,
    hidden_size=64,
    intermediate_size=96,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dimension=16,
    context_length=128,
    norm_epsilon=1e-6,
    rope_theta=10_000.0,
)


def peft_folder(
    folder: Path, settings: dict[str, Any] | None = None, tensors: dict[str, Tensor] | None = None
) -> Path:
    """As PEFT 0.18 writes them: every setting of its own is there."""
    adapter = random_adapter(TINY, 5)
    folder.mkdir(exist_ok=True)
    every: dict[str, Any] = {
        "alora_invocation_tokens": None,
        "alpha_pattern": {},
        "arrow_config": None,
        "auto_mapping": None,
        "base_model_name_or_path": "org/tiny",
        "bias": "none",
        "corda_config": None,
        "ensure_weight_tying": False,
        "eva_config": None,
        "exclude_modules": None,
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "layer_replication": None,
        "layers_pattern": None,
        "layers_to_transform": None,
        "loftq_config": {},
        "lora_alpha": 8,
        "lora_bias": False,
        "lora_dropout": 0.05,
        "megatron_config": None,
        "megatron_core": "megatron.core",
        "modules_to_save": None,
        "peft_type": "LORA",
        "peft_version": "0.18.0",
        "qalora_group_size": 16,
        "r": 4,
        "rank_pattern": {},
        "revision": None,
        "target_modules": [name.rpartition(".")[2] for name in MODULES.values()],
        "target_parameters": None,
        "task_type": "CAUSAL_LM",
        "trainable_token_indices": None,
        "use_dora": False,
        "use_qalora": False,
        "use_rslora": False,
    }
    (folder / "adapter_config.json").write_text(json.dumps(every | (settings or {})))
    names = tensors if tensors is not None else peft_tensors(adapter)
    save_file(names, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def peft_tensors(adapter: Adapter) -> dict[str, Tensor]:
    tensors = {}
    for (layer, part), pair in adapter.parts.items():
        name = f"base_model.model.model.layers.{layer}.{MODULES[part]}"
        tensors[f"{name}.lora_A.weight"] = pair.a
        tensors[f"{name}.lora_B.weight"] = pair.unscaled_b()
    return tensors


def test_a_folder_of_peft_is_read_as_it_was_meant(tmp_path: Path) -> None:
    adapter = read_adapter(peft_folder(tmp_path / "one"), TINY)
    wanted = random_adapter(TINY, 5)
    assert adapter.parts.keys() == wanted.parts.keys()
    for key, pair in adapter.parts.items():
        assert torch.equal(pair.delta(), wanted.parts[key].delta())
    assert adapter.invocation == ()


def test_the_digest_is_that_of_the_content(tmp_path: Path) -> None:
    one = read_adapter(peft_folder(tmp_path / "one"), TINY)
    two = read_adapter(peft_folder(tmp_path / "two"), TINY)
    other = read_adapter(peft_folder(tmp_path / "three", {"lora_alpha": 4}), TINY)
    assert one.digest == two.digest != other.digest
    assert len(one.digest) == 64


@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        ({}, 2.0),
        ({"lora_alpha": 2}, 0.5),
        ({"use_rslora": True}, 4.0),
        ({"lora_alpha": 1.5}, 0.375),
    ],
)
def test_scales_are_those_of_peft(tmp_path: Path, settings: dict[str, Any], scale: float) -> None:
    adapter = read_peft(peft_folder(tmp_path / "one", settings), TINY)
    assert {pair.scale for pair in adapter.parts.values()} == {scale}


def test_some_layers_and_some_modules_and_invocation_tokens(tmp_path: Path) -> None:
    adapter = random_adapter(TINY, 6, parts=("query", "value"))
    tensors = {
        name.replace(".weight", ".default.weight"): tensor
        for name, tensor in peft_tensors(adapter).items()
        if ".layers.1." in name
    }
    settings = {
        "layers_to_transform": [1],
        "target_modules": ["q_proj", "v_proj"],
        "alora_invocation_tokens": [1, 5],
    }
    read = read_peft(peft_folder(tmp_path / "one", settings, tensors), TINY)
    assert sorted(read.parts) == [(1, "query"), (1, "value")]
    assert read.invocation == (1, 5)
    one = {**settings, "layers_to_transform": 1}
    assert sorted(read_peft(peft_folder(tmp_path / "two", one, tensors), TINY).parts) == sorted(
        read.parts
    )


def test_all_linear_means_all_seven(tmp_path: Path) -> None:
    read = read_peft(peft_folder(tmp_path / "one", {"target_modules": "all-linear"}), TINY)
    assert {part for _, part in read.parts} == set(PARTS)


@pytest.mark.parametrize(
    ("settings", "about"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 8}}, "alpha_pattern"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias"),
        ({"lora_bias": True}, "lora_bias"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"target_parameters": ["x"]}, "target_parameters"),
        ({"exclude_modules": ["q_proj"]}, "exclude_modules"),
        ({"use_qalora": True}, "use_qalora"),
        ({"megatron_config": {"a": 1}}, "megatron_config"),
        ({"a_setting_of_next_year": "on"}, "a_setting_of_next_year"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa"),
        ({"init_lora_weights": "olora"}, "olora"),
        ({"peft_type": "LOHA"}, "LOHA"),
        ({"task_type": "SEQ_CLS"}, "SEQ_CLS"),
        ({"r": 0}, "r is 0"),
        ({"r": 8}, "rank 8"),
        ({"r": "4"}, "cannot be read"),
        ({"target_modules": ["q_proj", "lm_head"]}, "lm_head"),
        ({"target_modules": ".*_proj"}, r"\.\*_proj"),
        ({"target_modules": []}, "target_modules"),
        ({"target_modules": ["q_proj"]}, "do not name"),
        ({"layers_to_transform": [2]}, "layer 2"),
        ({"layers_to_transform": [-1]}, "layer -1"),
        ({"layers_to_transform": [0]}, "do not name"),
        ({"alora_invocation_tokens": []}, "empty"),
        ({"alora_invocation_tokens": [-1]}, "negative"),
    ],
)
def test_settings_that_change_what_is_computed_are_refused_by_name(
    tmp_path: Path, settings: dict[str, Any], about: str
) -> None:
    with pytest.raises(ModelFileError, match=about):
        read_adapter(peft_folder(tmp_path / "one", settings), TINY)


Q = "base_model.model.model.layers.0.self_attn.q_proj."


@pytest.mark.parametrize(
    ("spoil", "about"),
    [
        (lambda t: t.pop(Q + "lora_B.weight"), "lacks the weights of layer 0"),
        (lambda t: (t.pop(Q + "lora_A.weight"), t.pop(Q + "lora_B.weight")), "lacks"),
        (lambda t: t.update({Q + "lora_A.weight": torch.ones(4, 63)}), "another model"),
        (lambda t: t.update({Q + "lora_B.weight": torch.ones(64, 3)}), "another model"),
        (lambda t: t.update({Q + "lora_A.weight": torch.ones(4, 64, 1)}), "another model"),
        (lambda t: t.update({Q + "lora_A.weight": torch.ones(5, 64)}), "rank 4"),
        (lambda t: t.update({Q + "lora_A.weight": torch.ones(4, 64).int()}), "I32"),
        (lambda t: t.update({Q + "lora_A.weight": torch.full((4, 64), torch.nan)}), "numbers"),
        (lambda t: t.update({Q + "lora_magnitude_vector": torch.ones(64)}), "magnitude"),
        (lambda t: t.update({"base_model.model.lm_head.weight": torch.ones(2)}), "lm_head"),
        (lambda t: t.update({Q.replace("0", "9") + "lora_A.weight": torch.ones(4, 64)}), "layer 9"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(tmp_path: Path, spoil: Spoil, about: str) -> None:
    tensors = peft_tensors(random_adapter(TINY, 5))
    spoil(tensors)
    with pytest.raises(ModelFileError, match=about):
        read_adapter(peft_folder(tmp_path / "one", None, tensors), TINY)


def test_folders_that_are_no_adapter_or_not_whole(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no adapter"):
        read_adapter(tmp_path, TINY)
    folder = peft_folder(tmp_path / "one")
    weights = folder / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelFileError, match="damaged"):
        read_adapter(folder, TINY)
    weights.unlink()
    with pytest.raises(ModelFileError, match="holds no adapter_model"):
        read_adapter(folder, TINY)
    (folder / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(ModelFileError, match="pickle"):
        read_adapter(folder, TINY)
    (folder / "adapter_config.json").write_bytes(b"[" * 100_000)
    with pytest.raises(ModelFileError, match="cannot be read"):
        read_adapter(folder, TINY)


def test_what_is_written_for_peft_is_read_back(tmp_path: Path) -> None:
    adapter = Adapter("x", random_adapter(TINY, 7, parts=("query", "down")).parts, (1, 2))
    write_peft(adapter, tmp_path / "out", "org/tiny")
    settings = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert settings["target_modules"] == ["q_proj", "down_proj"]
    assert (settings["r"], settings["lora_alpha"]) == (4, 8)
    names = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert Q + "lora_A.weight" in names
    back = read_adapter(tmp_path / "out", TINY)
    assert back.invocation == (1, 2)
    for key, pair in back.parts.items():
        assert torch.equal(pair.delta(), adapter.parts[key].delta())
    mixed = {**adapter.parts, **random_adapter(TINY, 1, rank=2, parts=("up",)).parts}
    with pytest.raises(ValueError, match="one rank"):
        write_peft(Adapter("x", mixed), tmp_path / "no", "org/tiny")


@pytest.mark.parametrize("a_for", ["input", "weight"])
def test_the_compact_form_keeps_b_in_bytes_and_makes_a_anew(tmp_path: Path, a_for: Any) -> None:
    bs = {
        key: quantise_int8(pair.unscaled_b())
        for key, pair in random_adapter(TINY, 8, rank=8).parts.items()
    }
    compact = CompactConfig("dslm-adapter-1", 1234, 8, 2.0, a_for=a_for, invocation=(1, 2))
    write_compact(tmp_path / "one", compact, bs)
    adapter = read_adapter(tmp_path / "one", TINY)
    assert adapter.invocation == (1, 2)
    for (layer, part), pair in adapter.parts.items():
        assert torch.equal(pair.a, compact_a(compact, TINY, layer, part))
        assert torch.equal(pair.scaled_b(), 2 * bs[layer, part].dequantised())
    a = {part: adapter.parts[0, part].a for part in PARTS}
    assert torch.equal(a["query"], a["key"]) == (a_for == "input")
    assert not torch.equal(a["query"], a["gate"])


@pytest.mark.parametrize(
    ("settings", "about"),
    [
        ({"format": "dslm-adapter-2"}, "format"),
        ({"rank": 0}, "rank"),
        ({"rank": 9}, "another model"),
        ({"rank": 200}, "rank 200"),
        ({"parts": ["query"]}, "another model"),
        ({"parts": ["norm"]}, "norm"),
        ({"unknown": 1}, "unknown"),
        ({"scale": 0}, "scale"),
    ],
)
def test_compact_settings_that_do_not_fit_are_refused(
    tmp_path: Path, settings: dict[str, Any], about: str
) -> None:
    adapter = random_adapter(TINY, 8, rank=8)
    bs = {key: quantise_int8(pair.unscaled_b()) for key, pair in adapter.parts.items()}
    write_compact(tmp_path, CompactConfig("dslm-adapter-1", 1234, 8, 2.0), bs)
    path = tmp_path / "dslm_adapter.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    with pytest.raises(ModelFileError, match=about):
        read_compact(tmp_path, TINY)


async def answer(model: HostedModel, prompt: tuple[int, ...]) -> list[int]:
    generation = model.generate(EngineRequest("a", prompt, 12, Sampling(), frozenset()))
    outputs = [await generation.next() for _ in range(13)]
    return [one.token_id for one in outputs if isinstance(one, Generated)]


async def test_a_hosted_adapter_answers_as_the_merged_model_beside_its_base(
    make_folder: Make, make_llama: Callable[..., Any], tmp_path: Path
) -> None:
    judge = make_llama()
    base = await load_model(HostedSpec(make_folder(judge), SpecialistId("org/tiny")))
    special = await host_adapter(base, "org/special", peft_folder(tmp_path / "one"))
    activated = await host_adapter(
        base, "", peft_folder(tmp_path / "Two", {"alora_invocation_tokens": [9, 8]})
    )
    assert (special.specialist, activated.specialist) == ("org/special", "two")
    assert len({base.model_digest, special.model_digest, activated.model_digest}) == 3
    assert special.size > base.size
    adapter = random_adapter(TINY, 5)
    prompt = (*range(10, 30), 9, 8, 40)
    assert await answer(base, prompt) == hooked_greedy(judge, None, prompt, 12, start=0)
    assert await answer(special, prompt) == merged_greedy(judge, adapter, prompt, 12)
    assert await answer(activated, prompt) == hooked_greedy(judge, adapter, prompt, 12, start=20)
    uninvoked = prompt[:20]
    assert await answer(activated, uninvoked) == await answer(base, uninvoked)
    unload_adapter(special)
    with pytest.raises(UnknownAdapter):
        await answer(special, prompt)
    await base.close()


async def test_an_adapter_without_room_is_told_with_figures(
    make_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = await load_model(HostedSpec(make_folder(), SpecialistId("org/tiny")))
    memory = psutil.virtual_memory()._replace(available=1000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    with pytest.raises(ModelFileError, match=r"needs .* free"):
        await host_adapter(base, "x", peft_folder(tmp_path / "one"))
    assert base.adapters.size == 0
    await base.close()


def paths(folder: Path) -> Paths:
    return Paths(folder / "config.toml", folder / "data", folder / "state", folder / "models")


async def test_settings_with_adapters_share_one_base(make_folder: Make, tmp_path: Path) -> None:
    path = str(make_folder())
    one = peft_folder(tmp_path / "one")
    settings = [
        ModelConfig(path, "base", slots=2),
        ModelConfig(path, "special", slots=2, adapter=str(one), domains=("math",)),
        ModelConfig(path, "elsewhere", slots=1),
    ]
    models = await load_models(settings, paths(tmp_path), EngineConfig())
    base, special, elsewhere = models.values()
    assert list(models) == ["base", "special", "elsewhere"]
    assert base.loop is special.loop is not elsewhere.loop
    assert special.adapter is not None
    for model in models.values():
        await model.close()


async def test_an_adapter_that_cannot_be_had_closes_its_base(
    make_folder: Make, tmp_path: Path
) -> None:
    settings = [ModelConfig(str(make_folder()), "x", adapter=str(tmp_path), domains=("math",))]
    with pytest.raises(ModelFileError, match="no adapter"):
        await load_models(settings, paths(tmp_path), EngineConfig())
