"""The real model with adapters in one batch says what transformers says with them, in fp32."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from node.engine.adapters.registry import AdapterSet
from node.engine.adapters.weights import Adapter, start_of
from node.engine.base import AdapterUse, EngineRequest, Generated
from node.engine.model import LlamaModel
from node.engine.torch_engine import EngineOptions, TorchEngine
from node.hosting.weights import ModelWeights
from protocols.messages.ask import ChatMessage, Sampling
from tests.integration.test_engine_identity import transformers_model
from tests.unit.node.engine.adapters.adapter_referee import (
    hooked_greedy,
    merged_greedy,
    random_adapter,
)
from tests.unit.node.engine.test_paged_identity import scatter
from tests.unit.node.engine.test_speculated_identity import Oracle, generated, ids

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.usefixtures("one_thread"),
]

TOKENS = 16
SCALE = 0.25
"""As strong as trained adapters are. Random ones of full strength leave a model that finds many
tokens equally likely, so that the order of two sums decides between them."""
Case = tuple[Adapter | None, tuple[int, ...]]
QUESTIONS = ("Why is the sky blue?", "Write a haiku about the sea.")


@pytest.fixture(scope="module")
def adapters(weights: ModelWeights) -> dict[str, Adapter]:
    config = weights.config
    invocation = weights.tokenizer.encode_text("<|im_start|>assistant\n")
    made: dict[str, Adapter] = {
        "ordinary": random_adapter(config, 1, rank=16),
        "shared": random_adapter(config, 2, rank=32, shared_a=9),
        "shared too": random_adapter(config, 3, rank=32, shared_a=9),
        "int8": random_adapter(config, 4, rank=32, shared_a=9, is_int8=True),
    }
    parts = random_adapter(config, 5, rank=16).parts
    made["activated"] = Adapter("activated", parts, invocation)
    return {name: softened(adapter) for name, adapter in made.items()}


def softened(adapter: Adapter) -> Adapter:
    parts = {key: replace(pair, scale=SCALE) for key, pair in adapter.parts.items()}
    return replace(adapter, parts=parts)


@pytest.fixture(scope="module")
def prompts(weights: ModelWeights) -> list[tuple[int, ...]]:
    return [weights.tokenizer.encode_chat([ChatMessage("user", text)]) for text in QUESTIONS]


@pytest.fixture(scope="module")
def judge(smollm2_path: Path) -> Any:
    return transformers_model(smollm2_path)


def starts(adapter: Adapter | None, prompt: tuple[int, ...]) -> int:
    start = start_of(adapter.invocation, prompt) if adapter else 0
    assert start is not None
    return start


def test_requests_with_all_kinds_of_adapters_and_none(
    weights: ModelWeights,
    adapters: dict[str, Adapter],
    prompts: list[tuple[int, ...]],
    judge: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In chunks; then from the cache; then scattered, drafted and preempted."""
    model = LlamaModel(weights.config, weights.tensors, torch.float32, 512)
    loaded = AdapterSet(weights.config, torch.float32)
    for adapter in adapters.values():
        loaded.load(adapter)
    engine = TorchEngine(model, EngineOptions(512, 4096, 16, 23), loaded)
    cases: list[Case] = [
        (adapter, prompt) for adapter in (*adapters.values(), None) for prompt in prompts
    ]
    answers = answer(engine, cases)
    plain = dict(zip(prompts, answers[-len(prompts) :], strict=True))
    for case, got in zip(cases, answers, strict=True):
        assert got == judged(judge, case), case[0]
        assert case[0] is None or got != plain[case[1]], "an adapter that changes nothing"
    # At first nothing was in the cache; now whole prompts are, each adapter's own.
    hits = engine.statistics().prefix_hit_tokens
    assert answer(engine, cases) == answers
    assert engine.statistics().prefix_hit_tokens - hits >= 12 * 16
    scatter(monkeypatch)
    options = EngineOptions(512, 4096, 16, 64)
    wanted = {str(number): one for number, one in enumerate(answers)}
    crowded = TorchEngine(model, options, loaded, drafters=[Oracle(wanted)], clock=lambda: 0.0)
    assert ids(generated(crowded, requests(cases), preempts=True)) == wanted
    assert crowded.statistics().accepted_tokens > 0
    assert crowded.statistics().preemptions > 0


def judged(judge: Any, case: Case) -> list[int]:
    adapter, prompt = case
    if adapter is None or adapter.invocation:
        start = starts(adapter, prompt)
        return hooked_greedy(judge, adapter, prompt, TOKENS, start=start)
    return merged_greedy(judge, adapter, prompt, TOKENS)


def requests(cases: list[Case]) -> list[EngineRequest]:
    found = []
    for number, (adapter, prompt) in enumerate(cases):
        use = AdapterUse(adapter.digest, starts(adapter, prompt)) if adapter else None
        found.append(
            EngineRequest(str(number), prompt, TOKENS, Sampling(), frozenset(), adapter=use)
        )
    return found


def answer(engine: TorchEngine, cases: list[Case]) -> list[list[int]]:
    for one in requests(cases):
        engine.submit(one)
    answers: list[list[int]] = [[] for _ in cases]
    while engine.has_work:
        for output in engine.step():
            if isinstance(output, Generated):
                answers[int(output.request_id)].append(output.token_id)
    return answers
