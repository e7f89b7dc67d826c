"""The real model, with each feature of the engine and with all, says what transformers says.

In fp32, with the weights as floats and as the file packs them, where both say the same.
"""

from pathlib import Path

import pytest
import torch

from node.engine.base import EngineRequest
from node.engine.model import LlamaModel
from node.engine.torch_engine import EngineOptions, TorchEngine
from node.engine.weights.scheme import QuantisedSource
from node.hosting.weights import ModelWeights
from protocols.messages.ask import ChatMessage, Sampling
from tests.integration.test_engine_identity import greedy, transformers_model
from tests.unit.node.engine.test_paged_identity import named, scatter
from tests.unit.node.engine.test_speculated_identity import Oracle, generated, ids

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.usefixtures("one_thread"),
]

FEATURES = ("scattered", "chunked", "cached", "preempted", "drafted")
ALL = set(FEATURES)
RUNS = [("floats", {name}) for name in FEATURES] + [
    (held, features) for held in ("floats", "packed") for features in (set[str](), ALL)
]
QUESTIONS = (
    "Why is the sky blue?",
    "Write a haiku about the sea, then translate it into French.",
)
CONTEXT = 256
TOKENS = 16


@pytest.fixture(scope="module")
def prompts(weights: ModelWeights) -> list[tuple[int, ...]]:
    return [weights.tokenizer.encode_chat([ChatMessage("user", text)]) for text in QUESTIONS]


@pytest.fixture(scope="module")
def wanted(smollm2_path: Path, prompts: list[tuple[int, ...]]) -> dict[str, list[int]]:
    """What transformers answers; its model is not kept."""
    judge = transformers_model(smollm2_path)
    return {str(number): greedy(judge, prompt)[:TOKENS] for number, prompt in enumerate(prompts)}


@pytest.fixture(scope="module")
def models(weights: ModelWeights) -> dict[str, LlamaModel]:
    packed = QuantisedSource(weights.stored, weights.config, "int4")
    return {
        "floats": LlamaModel(weights.config, weights.tensors, torch.float32, CONTEXT),
        "packed": LlamaModel(weights.config, packed, torch.float32, CONTEXT),
    }


@pytest.mark.parametrize(("held", "features"), RUNS, ids=named)
def test_answers_are_those_of_transformers(
    held: str,
    features: set[str],
    models: dict[str, LlamaModel],
    prompts: list[tuple[int, ...]],
    wanted: dict[str, list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "scattered" in features:
        scatter(monkeypatch)
    is_drafted = "drafted" in features
    options = EngineOptions(
        CONTEXT,
        1024,
        16,
        step_tokens=17 if "chunked" in features else 256,
        speculation="auto" if is_drafted else "off",
    )
    guesses = Oracle(wanted)
    drafters = [guesses] if is_drafted else []
    engine = TorchEngine(models[held], options, drafters=drafters, clock=lambda: 0.0)
    asked = [
        EngineRequest(name, prompt, len(wanted[name]), Sampling(), frozenset())
        for name, prompt in zip(wanted, prompts, strict=True)
    ]
    for _ in range(2 if "cached" in features else 1):
        assert ids(generated(engine, asked, preempts="preempted" in features)) == wanted
    statistics = engine.statistics()
    assert (statistics.preemptions > 0) == ("preempted" in features)
    assert (statistics.accepted_tokens > 0) == is_drafted
    assert statistics.prefix_hit_tokens > 0 or not {"cached", "preempted"} & features
