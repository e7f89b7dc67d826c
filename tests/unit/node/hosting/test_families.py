"""Each family of models, from both kinds of files, says what transformers says."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGMLQuantizationType
from torch import Tensor

from node.engine.base import EngineRequest, Generated
from node.engine.batch import Chunk, build_batch
from node.engine.cache import KeyValueCache
from node.engine.model import LlamaModel
from node.engine.torch_engine import EngineOptions, TorchEngine
from node.engine.weights.scheme import WeightSource
from node.hosting.read import read_model
from node.hosting.weights import ModelWeights
from protocols.messages.ask import Sampling
from tests.unit.node.hosting.family_models import CASES, build, build_with_eyes, write_gguf

CONTEXT = 256
TOKENS = 32
# One of each family by default; the others cover the settings in which a family varies.
QUICK = {"mistral_window", "smollm3", "qwen2", "qwen3", "gemma3"}
ALL = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in CASES]
WITH_GGUF = [name for name, case in CASES.items() if case.architecture]


@pytest.fixture(scope="module")
def judges() -> dict[str, Any]:
    """The models in transformers, each built once."""
    return {}


@pytest.fixture
def judge(judges: dict[str, Any], name: str) -> Any:
    if name not in judges:
        judges[name] = build(CASES[name])
    return judges[name]


@pytest.fixture
def save(tmp_path: Path, small_bpe: Any) -> Any:
    """Writes a model of transformers as a folder."""

    def write(model: Any, shard: str = "5GB") -> Path:
        folder = tmp_path / "model"
        model.save_pretrained(folder, max_shard_size=shard)
        small_bpe.save(str(folder / "tokenizer.json"))
        return folder

    return write


def prompts() -> list[tuple[int, ...]]:
    """Shorter and longer than the windows of 12; the last two begin alike."""
    generator = torch.Generator().manual_seed(11)
    ids = torch.randint(3, 320, (150,), generator=generator).tolist()
    return [tuple(ids[:5]), tuple(ids[60:73]), tuple(ids[:70]), (*ids[:64], *ids[100:109])]


def answers_of(
    engine: TorchEngine, asked: Sequence[tuple[int, ...]], name: str = "a"
) -> list[list[int]]:
    answers: dict[str, list[int]] = {f"{name}{number}": [] for number in range(len(asked))}
    for request_id, prompt in zip(answers, asked, strict=True):
        engine.submit(EngineRequest(request_id, prompt, TOKENS, Sampling(), frozenset()))
    while engine.has_work:
        for output in engine.step():
            if isinstance(output, Generated):
                answers[output.request_id].append(output.token_id)
    return list(answers.values())


def assert_greedy(judge: Any, prompt: tuple[int, ...], answer: Sequence[int]) -> None:
    """One pass of transformers over it all: after each token, the next is its first choice."""
    assert len(answer) == TOKENS
    with torch.inference_mode():
        logits: Tensor = judge(torch.tensor([[*prompt, *answer]])).logits[0]
    wanted = logits[len(prompt) - 1 : -1].argmax(dim=-1).tolist()
    assert list(answer) == wanted


def model_of(weights: ModelWeights) -> LlamaModel:
    return LlamaModel(weights.config, weights.tensors, torch.float32, CONTEXT)


def assert_judged_equal(judge: Any, weights: ModelWeights) -> None:
    """Alone and in chunks, several at once, and with the first pages found in the cache."""
    asked = prompts()
    engine = TorchEngine(model_of(weights), EngineOptions(CONTEXT, 2048, 16, step_tokens=29))
    first = answers_of(engine, asked[2:3], "first")
    together = answers_of(engine, asked)
    assert engine.statistics().prefix_hit_tokens >= 64
    for prompt, answer in zip([asked[2], *asked], first + together, strict=True):
        assert_greedy(judge, prompt, answer)
    assert len({token for answer in together for token in answer}) >= TOKENS // 2


def logits_of(config: Any, source: WeightSource, dtype: torch.dtype = torch.float32) -> Tensor:
    ids = prompts()[2]
    model = LlamaModel(config, source, dtype, CONTEXT)
    cache = KeyValueCache(config, 128, dtype)
    return model.forward(build_batch([Chunk(ids, 0, range(8), True)], dtype), cache)[0]


def reference_logits(judge: Any) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = judge(torch.tensor([prompts()[2]])).logits[0, -1]
    return logits.float()


@pytest.mark.parametrize("name", ALL)
def test_a_folder_is_answered_as_by_transformers(judge: Any, save: Any) -> None:
    weights = read_model(save(judge))
    ours = logits_of(weights.config, weights.tensors)
    assert torch.allclose(ours, reference_logits(judge), atol=2e-4, rtol=1e-4)
    assert_judged_equal(judge, weights)


@pytest.mark.parametrize("name", WITH_GGUF)
def test_a_gguf_file_has_the_weights_and_the_shape_of_the_folder(
    judge: Any, save: Any, tmp_path: Path, name: str
) -> None:
    """So that its answers are those of the folder, which are judged above."""
    write_gguf(tmp_path / "model.gguf", judge, CASES[name])
    ours, theirs = read_model(tmp_path / "model.gguf"), read_model(save(judge))
    assert ours.config == theirs.config
    for tensor in theirs.config.tensor_shapes():
        assert torch.equal(ours.tensors.read(tensor), theirs.tensors.read(tensor)), tensor


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_1"])
@pytest.mark.parametrize("name", ["llama_multi_query_biased", "smollm3", "qwen2", "gemma3"])
def test_packed_weights_stay_packed_and_say_what_they_say_unpacked(
    judge: Any, tmp_path: Path, name: str, kind: str
) -> None:
    write_gguf(tmp_path / "model.gguf", judge, CASES[name], GGMLQuantizationType[kind])
    weights = read_model(tmp_path / "model.gguf")
    assert weights.kept_as == ("int8" if kind == "Q8_0" else "int4")
    packed = logits_of(weights.config, weights.stored)
    assert torch.equal(packed, logits_of(weights.config, weights.tensors))


@pytest.mark.parametrize("name", ["qwen2", "gemma3"])
def test_in_bf16_a_model_says_nearly_what_transformers_says_in_bf16(
    judge: Any, save: Any, name: str
) -> None:
    weights = read_model(save(judge))
    ours = logits_of(weights.config, weights.tensors, torch.bfloat16)
    theirs = reference_logits(build(CASES[name]).to(torch.bfloat16))
    assert torch.nn.functional.cosine_similarity(ours, theirs, dim=0) > 0.98


@pytest.mark.parametrize("name", ["qwen3"])
def test_a_folder_in_several_files_is_read_by_its_index(judge: Any, save: Any) -> None:
    folder = save(judge, "20KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    weights = read_model(folder)
    ours = logits_of(weights.config, weights.tensors)
    assert torch.allclose(ours, reference_logits(judge), atol=2e-4, rtol=1e-4)


def test_of_a_model_with_eyes_the_text_part_is_read(save: Any) -> None:
    judge = build_with_eyes()
    folder = save(judge)
    weights = read_model(folder)
    ours = logits_of(weights.config, weights.tensors)
    assert torch.allclose(ours, reference_logits(judge), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["gemma3"])
def test_the_settings_that_gemma_is_published_with_mean_the_same(judge: Any, save: Any) -> None:
    """transformers once wrote bases, scaling and windows under other names."""
    folder = save(judge)
    wanted = read_model(folder).config
    config = json.loads((folder / "config.json").read_text())
    for key in ("rope_parameters", "layer_types"):
        del config[key]
    config |= {
        "rope_theta": 1_000_000.0,
        "rope_local_base_freq": 10_000.0,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window_pattern": 6,
        "cache_implementation": "hybrid",
    }
    (folder / "config.json").write_text(json.dumps(config))
    assert read_model(folder).config == wanted
