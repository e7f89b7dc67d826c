"""Each family of models, from both kinds of files, says what transformers says."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from node.engine.base import EngineRequest, Generated
from node.engine.config import LLAMA
from node.engine.model import LlamaModel
from node.engine.torch_engine import EngineOptions, TorchEngine
from node.engine.weights.scheme import (
    PRECISIONS,
    Precision,
    QuantisedSource,
    activation_type,
    weight_bytes,
)
from node.hosting.read import read_model
from node.hosting.weights import ModelWeights
from protocols.messages.ask import Sampling
from tests.unit.node.hosting.family_models import CASES, Case, build, write_gguf

CONTEXT = 256
TOKENS = 32
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
def folder(judge: Any, tmp_path: Path, small_bpe: Any) -> Path:
    judge.save_pretrained(tmp_path / "model")
    small_bpe.save(str(tmp_path / "model" / "tokenizer.json"))
    return tmp_path / "model"


def prompts() -> list[tuple[int, ...]]:
    """Shorter and longer than the windows of 12; the last two begin alike."""
    generator = torch.Generator().manual_seed(11)
    ids = torch.randint(3, 320, (150,), generator=generator).tolist()
    return [tuple(ids[:5]), tuple(ids[60:73]), tuple(ids[:70]), tuple([*ids[:64], *ids[100:109]])]


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
    assert len({token for answer in together for token in answer}) > TOKENS


@pytest.mark.parametrize("name", CASES)
def test_a_folder_is_answered_as_by_transformers(judge: Any, folder: Path, name: str) -> None:
    assert_judged_equal(judge, read_model(folder))


@pytest.mark.parametrize("name", WITH_GGUF)
def test_a_gguf_file_has_the_weights_and_the_shape_of_the_folder(
    judge: Any, folder: Path, tmp_path: Path, name: str
) -> None:
    """So that its answers are those of the folder, which are judged above."""
    write_gguf(tmp_path / "model.gguf", judge, CASES[name])
    ours, theirs = read_model(tmp_path / "model.gguf"), read_model(folder)
    assert ours.config == theirs.config
    for tensor in theirs.config.tensor_shapes():
        assert torch.equal(ours.tensors.read(tensor), theirs.tensors.read(tensor)), tensor
