"""Each family of models with each feature of the engine, and with all at once: fp32.

One batch under adapters of each kind and none; transformers judges each answer in
one pass, with hooks on its linears, and with its weights packed and unpacked where ours are packed.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from node.engine.adapters.registry import AdapterSet
from node.engine.adapters.weights import PARTS, Adapter
from node.engine.base import AdapterUse, EngineRequest
from node.engine.model import LlamaModel
from node.engine.torch_engine import EngineOptions, TorchEngine
from node.engine.weights.packings import as_floats
from node.engine.weights.scheme import QuantisedSource, WeightSource
from node.hosting.read import read_model
from node.hosting.weights import ModelWeights
from protocols.messages.ask import Sampling
from tests.unit.node.engine.adapters.adapter_referee import (
    _adding,
    _linear,
    random_adapter,
)
from tests.unit.node.engine.test_paged_identity import named, scatter
from tests.unit.node.engine.test_speculated_identity import Oracle, generated, ids
from tests.unit.node.hosting.family_models import CASES, build
from tests.unit.node.hosting.test_families import CONTEXT, TOKENS, assert_greedy, prompts

FEATURES = ("scattered", "chunked", "cached", "preempted", "packed", "drafted", "adapted")
ALL = set(FEATURES)
SINGLE = [set[str](), *({name} for name in FEATURES)]
EACH = ("llama", "llama3", "mistral_window", "smollm3", "qwen2", "qwen3", "gemma3")
"""One of each family with every feature alone; every variant with all at once."""
QUICK = ("gemma3", named(ALL))
RUNS = [(name, features) for name in EACH for features in SINGLE]
RUNS += [(name, ALL) for name in CASES]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, and the adapter under which it is answered from `start` on."""

    prompt: tuple[int, ...]
    adapter: Adapter | None = None
    start: int = 0


@dataclass(frozen=True, slots=True)
class Family:
    """A model in transformers, and the weights that were read from what it saved."""

    judge: Any
    weights: ModelWeights


@pytest.fixture(scope="module")
def families() -> dict[str, Family]:
    """Each built once."""
    return {}


@pytest.fixture
def family(name: str, families: dict[str, Family], tmp_path: Path, small_bpe: Any) -> Family:
    if name not in families:
        judge = build(CASES[name])
        judge.save_pretrained(tmp_path)
        small_bpe.save(str(tmp_path / "tokenizer.json"))
        families[name] = Family(judge, read_model(tmp_path))
    return families[name]


def asked(weights: ModelWeights, *, is_adapted: bool) -> list[Asked]:
    """Without adapters all prompts; else ordinary ones (a shared A, its own) and an activated one,
    and none.
    """
    short, middle, long, alike = prompts()
    if not is_adapted:
        return [Asked(short), Asked(middle), Asked(long), Asked(alike)]
    shared, other = (random_adapter(weights.config, seed, shared_a=7) for seed in (1, 2))
    activated, own = (random_adapter(weights.config, seed, rank=seed) for seed in (3, 4))
    # The activated one begins in the middle of a page.
    return [
        *(Asked(short, shared), Asked(long, other), Asked(middle, own)),
        *(Asked(alike, activated, 37), Asked(alike)),
    ]


def packed(judge: Any, source: WeightSource) -> Any:
    """A copy of `judge` with the numbers that the packed weights of `source` stand for."""
    judge = copy.deepcopy(judge)

    def floats(name: str) -> torch.Tensor:
        return as_floats(source.read(name)).float()

    with torch.no_grad():
        judge.get_input_embeddings().weight.copy_(floats("embedding"))
        if not judge.config.tie_word_embeddings:
            judge.lm_head.weight.copy_(floats("head"))
        for index in range(judge.config.num_hidden_layers):
            for part in PARTS:
                _linear(judge, (index, part)).weight.copy_(floats(f"layers.{index}.{part}"))
    return judge


@contextmanager
def under(judge: Any, one: Asked) -> Iterator[None]:
    """`judge` as `one` is to be answered."""
    handles = [
        _linear(judge, key).register_forward_hook(_adding(pair, one.start))
        for key, pair in (one.adapter.parts.items() if one.adapter else ())
    ]
    yield
    for handle in handles:
        handle.remove()


def requests(batch: list[Asked]) -> list[EngineRequest]:
    return [
        EngineRequest(
            str(number),
            one.prompt,
            TOKENS,
            Sampling(),
            frozenset(),
            adapter=AdapterUse(one.adapter.digest, one.start) if one.adapter else None,
        )
        for number, one in enumerate(batch)
    ]


def engine_of(
    model: LlamaModel, batch: list[Asked], features: set[str], guessed: dict[str, list[int]]
) -> TorchEngine:
    loaded = AdapterSet(model.config, torch.float32)
    for one in batch:
        if one.adapter is not None:
            loaded.load(one.adapter)
    options = EngineOptions(
        CONTEXT,
        2048,
        16,
        step_tokens=29 if "chunked" in features else 512,
        speculation="auto" if guessed else "off",
    )
    drafters = [Oracle(guessed)] if guessed else []
    return TorchEngine(model, options, loaded, drafters=drafters, clock=lambda: 0.0)


@pytest.mark.parametrize(
    ("name", "features"),
    [
        pytest.param(
            name,
            features,
            id=f"{name}-{'all' if features == ALL else named(features)}",
            marks=() if (name, named(features)) == QUICK else pytest.mark.slow,
        )
        for name, features in RUNS
    ],
)
def test_answers_are_those_of_transformers(
    features: set[str], family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, weights = family.judge, family.weights
    source: WeightSource = weights.tensors
    if "packed" in features:
        source = QuantisedSource(weights.stored, weights.config, "int4")
        judge = packed(judge, source)
    model = LlamaModel(weights.config, source, torch.float32, CONTEXT)
    batch = asked(weights, is_adapted="adapted" in features)
    plain = engine_of(model, batch, set(), {})
    wanted = ids(generated(plain, requests(batch)))
    for one, answer in zip(batch, wanted.values(), strict=True):
        with under(judge, one):
            assert_greedy(judge, one.prompt, answer)
    assert len({tuple(answer) for answer in wanted.values()}) == len(batch)

    if "scattered" in features:
        scatter(monkeypatch)
    guessed = wanted if "drafted" in features else {}
    engine = engine_of(model, batch, features, guessed)
    for _ in range(2 if "cached" in features else 1):
        found = generated(engine, requests(batch), preempts="preempted" in features)
        assert ids(found) == wanted
    statistics = engine.statistics()
    assert (statistics.preemptions > 0) == ("preempted" in features)
    assert statistics.prefix_hit_tokens > 0 or not {"cached", "preempted"} & features
    assert (statistics.accepted_tokens > 0) == ("drafted" in features)
    assert statistics.pages_used == 0


def test_every_family_is_among_those_tried_alone() -> None:
    assert {CASES[name].family for name in EACH} == {case.family for case in CASES.values()}
