from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from gguf import GGMLQuantizationType

from node.engine.base import EngineRequest, Generated
from node.engine.errors import EngineFailed
from node.hosting import hosted
from node.hosting.hosted import TILED_PROMPT_TOKENS, HostedSpec, load_model, prompt_tokens
from node.hosting.kernels import KernelSettings
from node.hosting.memory import Load, footprint
from node.hosting.read import read_model
from node.hosting.startup import describe_model
from protocols.errors import ModelFileError
from protocols.ids import SpecialistId
from protocols.messages.ask import Sampling

Make = Callable[..., Path]


def spec(path: Path, **changes: Any) -> HostedSpec:
    settings: dict[str, Any] = {"path": path, "specialist": SpecialistId("org/tiny"), "slots": 2}
    return HostedSpec(**(settings | changes))


async def test_a_loaded_model_answers_as_transformers_does(
    make_gguf: Make, make_llama: Callable[..., Any]
) -> None:
    reference = make_llama()
    heard: list[float] = []
    model = await load_model(spec(make_gguf(reference)), heard.append)
    prompt = model.tokenizer.encode_text("the cat sat on")
    request = EngineRequest("a", prompt, 20, Sampling(), frozenset())
    generation = model.generate(request)
    outputs = [await generation.next() for _ in range(21)]
    wanted = reference.generate(
        torch.tensor([prompt]), max_new_tokens=20, do_sample=False, eos_token_id=None
    )
    assert [o.token_id for o in outputs if isinstance(o, Generated)] == wanted[0][
        len(prompt) :
    ].tolist()
    assert heard[-1] == 1.0
    assert model.statistics().generated_tokens == 20
    await model.close()
    with pytest.raises(EngineFailed):
        model.generate(request)


async def test_facts_of_a_loaded_model(make_folder: Make) -> None:
    model = await load_model(spec(make_folder(), precision="bf16", context_length=100))
    assert (model.specialist, model.base, model.precision) == ("org/tiny", "tiny-model", "bf16")
    assert (model.context_length, model.slots) == (100, 2)
    assert model.loop.context_length == 100
    assert model.statistics().cache_tokens_total == 2 * 112, (
        "two contexts of 100 tokens in pages of 16"
    )
    cache = 2 * 112 * 2 * 2 * 2 * 16 * 2
    assert cache < model.size == model.parameters * 2 + cache + 2 * 100 * 16 * 2
    await model.close()


async def test_keys_and_values_in_int8_take_what_was_said_and_are_computed_by_torch(
    make_folder: Make, tmp_path: Path
) -> None:
    kernels = KernelSettings("auto", tmp_path / "kernels")
    asked = spec(
        make_folder(),
        precision="bf16",
        context_length=100,
        is_cache_quantised=True,
        kernels=kernels,
    )
    model = await load_model(asked)
    assert model.kernels == "torch, because keys and values are kept in int8"
    vectors = 2 * 112 * 2 * 2 * 2
    assert model.size == model.weights_size + vectors * (16 + 4)
    prompt = model.tokenizer.encode_text("the cat sat on")
    generation = model.generate(EngineRequest("a", prompt, 5, Sampling(), frozenset()))
    assert len([await generation.next() for _ in range(6)]) == 6
    await model.close()


@pytest.mark.parametrize("is_shared", [False, True])
async def test_clients_find_each_others_prompts_only_if_they_may(
    make_folder: Make, *, is_shared: bool
) -> None:
    model = await load_model(spec(make_folder(), is_cache_shared=is_shared, slots=4))
    prompt = (model.tokenizer.encode_text("the cat sat on") * 20)[:40]
    for client in ("one", "other"):
        request = EngineRequest("a", prompt, 2, Sampling(), frozenset(), client=client)
        generation = model.generate(request)
        while isinstance(await generation.next(), Generated):
            pass
    assert model.statistics().prefix_hit_tokens == (32 if is_shared else 0)
    await model.close()


@pytest.mark.parametrize(("asked", "got"), [(0, 128), (64, 64), (1_000_000, 128)])
async def test_the_context_is_at_most_the_models(make_gguf: Make, asked: int, got: int) -> None:
    model = await load_model(spec(make_gguf(), context_length=asked))
    assert model.context_length == got
    await model.close()


async def test_without_a_name_the_file_gives_one(make_gguf: Make) -> None:
    model = await load_model(spec(make_gguf(), specialist=""))
    assert model.specialist == "tiny-llama"
    await model.close()


async def test_too_little_memory_is_told_with_figures_before_loading(
    make_gguf: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_gguf()
    read: list[str] = []
    monkeypatch.setattr(hosted, "build_model", lambda *_: read.append("read"))
    with pytest.raises(ModelFileError, match=r"needs \d+\.\d\d GiB .* fp32, 3051\.76 GiB for"):
        await load_model(spec(path, slots=50_000_000))
    assert read == []


@pytest.mark.parametrize(
    ("kind", "asked", "got"),
    [("Q4_1", "auto", "int4"), ("Q8_0", "auto", "int8"), ("F16", "auto", "bf16")]
    + [("Q4_1", one, one) for one in ("fp32", "bf16", "int8", "int4")],
)
async def test_each_precision_answers(make_gguf: Make, kind: str, asked: str, got: str) -> None:
    path = make_gguf(quantisation=GGMLQuantizationType[kind])
    model = await load_model(spec(path, precision=asked, context_length=64))
    assert model.precision == got
    cache = model.slots * 64 * 2 * 2 * 2 * 16 * (4 if got == "fp32" else 2)
    assert model.size == model.weights_size + cache
    generation = model.generate(EngineRequest("a", (5, 17, 300), 6, Sampling(), frozenset()))
    outputs = [await generation.next() for _ in range(7)]
    assert sum(isinstance(one, Generated) for one in outputs) == 6
    said = describe_model(model)
    assert f"org/tiny ({got}, " in said
    assert "2 answers of 64 tokens" in said
    await model.close()


async def test_auto_goes_lower_when_memory_is_short(
    make_folder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_folder()
    load = Load(path, read_model(path).config, 2, 128)
    free = footprint(load, "bf16").total - 1
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free))
    model = await load_model(spec(path, precision="auto"))
    assert model.precision == "int8"
    await model.close()


def test_long_steps_of_prompts_are_for_tiles_and_shorter_for_larger_models() -> None:
    assert prompt_tokens(134_515_008, has_tiles=False) == 0
    assert prompt_tokens(134_515_008, has_tiles=True) == TILED_PROMPT_TOKENS
    assert 128 < prompt_tokens(362_000_000, has_tiles=True) < 256
    assert prompt_tokens(1_700_000_000, has_tiles=True) < 128, "the budget of any step is more"
