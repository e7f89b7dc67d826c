"""The real model in fp32 says with drafts what it and transformers say without."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from node.engine.base import EngineRequest, EngineStatistics
from node.engine.model import LlamaModel
from node.engine.torch_engine import EngineOptions, TorchEngine
from node.hosting.weights import ModelWeights
from protocols.messages.ask import ChatMessage, Sampling
from tests.integration.test_engine_identity import greedy, run_on, transformers_model

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.usefixtures("one_thread"),
]

PARAGRAPH = (
    "The harbour of Whitby lies at the mouth of the river Esk, and its two stone piers reach far "
    "into the grey North Sea."
)
PROMPTS = (
    f"Repeat this paragraph exactly, word for word:\n\n{PARAGRAPH}",
    "Why is the sky blue?",
    "Count: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12. Count again.",
)
SAMPLINGS = {
    "greedy": Sampling(),
    "warm": Sampling(temperature=0.8, top_k=50, top_p=0.9, seed=7),
    "busy": Sampling(temperature=0.6, seed=8, frequency_penalty=0.3, logprobs=2),
}


@pytest.fixture(scope="module")
def model(weights: ModelWeights) -> LlamaModel:
    return LlamaModel(weights.config, weights.tensors, torch.float32, 2048)


@pytest.fixture(scope="module")
def prompts(weights: ModelWeights) -> list[tuple[int, ...]]:
    return [weights.tokenizer.encode_chat([ChatMessage("user", text)]) for text in PROMPTS]


def answers(
    model: LlamaModel,
    prompts: Sequence[tuple[int, ...]],
    sampling: Sampling,
    options: EngineOptions,
    tokens: int = 40,
) -> tuple[list[list[int]], EngineStatistics]:
    """Twice the same, so that the second time earlier answers are drafted; the second ones."""
    engine = TorchEngine(model, options, clock=lambda: 0.0)
    asked = [
        EngineRequest(str(n), prompt, tokens, sampling, frozenset())
        for n, prompt in enumerate(prompts)
    ]
    run_on(engine, asked)
    got = run_on(engine, asked)
    return list(got.values()), engine.statistics()


@pytest.mark.parametrize("name", SAMPLINGS)
@pytest.mark.parametrize("step_tokens", [37, 256])
def test_answers_are_the_same_with_drafts(
    model: LlamaModel, prompts: list[tuple[int, ...]], name: str, step_tokens: int
) -> None:
    sampling = SAMPLINGS[name]
    off = EngineOptions(2048, 8192, speculation="off")
    wanted, plain = answers(model, prompts, sampling, off)
    got, statistics = answers(model, prompts, sampling, EngineOptions(2048, 8192, 16, step_tokens))
    assert got == wanted
    assert plain.drafted_tokens == 0
    assert statistics.accepted_tokens > 40


def test_a_drafted_chain_is_that_of_transformers(
    model: LlamaModel, prompts: list[tuple[int, ...]], smollm2_path: Path
) -> None:
    got, statistics = answers(model, prompts, Sampling(), EngineOptions(2048, 8192), tokens=32)
    judge = transformers_model(smollm2_path)
    wanted = [greedy(judge, prompt) for prompt in prompts]  # they end where the model does
    assert min(map(len, wanted)) > 20
    assert [one[: len(other)] for one, other in zip(got, wanted, strict=True)] == wanted
    assert statistics.accepted_tokens > 40
