"""Adapters in a batch, whatever else happens to it, answer as transformers with them does: fp32.

Each kind alone, and with each feature of the cache and the scheduler, and with several at once.
"""

import random
from functools import cache
from itertools import combinations
from typing import Any, NamedTuple

import pytest
import torch

from node.engine.adapters.registry import AdapterSet
from node.engine.adapters.weights import Adapter
from node.engine.base import AdapterUse, EngineRequest
from node.engine.model import LlamaModel
from node.engine.pages import PAGE_SIZE
from node.engine.torch_engine import EngineOptions, TorchEngine
from node.engine.weights.packings import as_floats
from node.engine.weights.scheme import QuantisedSource
from protocols.messages.ask import Sampling
from tests.effort import few
from tests.unit.node.engine.adapters.adapter_referee import (
    hooked_greedy,
    merged_greedy,
    random_adapter,
)
from tests.unit.node.engine.conftest import TINY, RandomWeights
from tests.unit.node.engine.test_model import reference
from tests.unit.node.engine.test_paged_identity import finish, scatter

TOKENS = 16
KINDS = ("ordinary", "activated", "shared", "int8")
FEATURES = ("scattered", "chunked", "cached", "preempted", "mixed", "packed")
SETS = [set(names) for size in (0, 1, 2, 6) for names in combinations(FEATURES, size)]


class Case(NamedTuple):
    """A request with or without an adapter, and its answer by transformers."""

    adapter: Adapter | None
    start: int
    prompt: tuple[int, ...]
    answer: list[int]


class Packed:
    """Weights in fours and eights: the referee's arithmetic is that of the dequantised ones."""

    def __init__(self) -> None:
        self._source = QuantisedSource(RandomWeights(TINY, 11), TINY, "int4")

    def read(self, name: str) -> torch.Tensor:
        return as_floats(self._source.read(name)).float()


@cache
def judge(is_packed: bool) -> Any:
    return reference(TINY, Packed() if is_packed else RandomWeights(TINY, 11))


@cache
def model(is_packed: bool) -> LlamaModel:
    weights = RandomWeights(TINY, 11)
    source = QuantisedSource(weights, TINY, "int4") if is_packed else weights
    return LlamaModel(TINY, source, torch.float32, 128)


def prompts() -> list[tuple[int, ...]]:
    rng = random.Random(4)
    stem = [rng.randrange(61) for _ in range(45)]
    return [(*stem, *(rng.randrange(61) for _ in range(n))) for n in (1, 3, 20)]


def adapters(kind: str) -> list[Adapter]:
    """Three of a kind; the third is of another shape."""
    shared = 99 if kind == "shared" else None
    is_int8 = kind == "int8"
    return [
        random_adapter(TINY, 1, shared_a=shared, is_int8=is_int8),
        random_adapter(TINY, 2, shared_a=shared, is_int8=is_int8),
        random_adapter(
            TINY, 3, rank=3, parts=("query", "value", "up"), shared_a=shared, is_int8=is_int8
        ),
    ]


@cache
def cases(kind: str, is_packed: bool) -> list[Case]:
    """The first with an adapter, then others with others and without any."""
    one, two, three = adapters(kind)
    plain, longer, longest = prompts()
    wanted = [(one, plain), (two, longer), (three, longest), (one, longest), (None, longer)]
    made = []
    for adapter, prompt in wanted:
        # In the middle of a page; the last one at its beginning.
        start = 0 if kind != "activated" else 32 if prompt is longest else 37
        if adapter is not None and kind != "activated":
            answer = merged_greedy(judge(is_packed), adapter, prompt, TOKENS)
        else:
            answer = hooked_greedy(judge(is_packed), adapter, prompt, TOKENS, start=start)
        made.append(Case(adapter, start, prompt, answer))
    return made


def engine_for(kind: str, step_tokens: int = 256, *, is_packed: bool = False) -> TorchEngine:
    loaded = AdapterSet(TINY, torch.float32)
    for adapter in adapters(kind):
        loaded.load(adapter)
    return TorchEngine(model(is_packed), EngineOptions(128, 1024, 16, step_tokens), loaded)


def run(engine: TorchEngine, batch: list[Case], *, preempts: bool = False) -> list[list[int]]:
    for number, case in enumerate(batch):
        use = AdapterUse(case.adapter.digest, case.start) if case.adapter else None
        engine.submit(
            EngineRequest(str(number), case.prompt, TOKENS, Sampling(), frozenset(), adapter=use)
        )
    return finish(engine, len(batch), preempts=preempts)


@pytest.mark.parametrize("kind", KINDS)
def test_the_adapters_here_change_what_is_said(kind: str) -> None:
    """Or else no test below could fail."""
    assert len({tuple(case.answer) for case in cases(kind, is_packed=False)}) == 5
    base = hooked_greedy(judge(is_packed=False), None, prompts()[0], TOKENS, start=0)
    assert cases(kind, is_packed=False)[0].answer != base


def test_where_an_activated_adapter_begins_matters() -> None:
    case = cases("activated", is_packed=False)[0]
    assert case.adapter is not None
    everywhere = merged_greedy(judge(is_packed=False), case.adapter, case.prompt, TOKENS)
    assert case.answer != everywhere


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "features", few(SETS, 5), ids=lambda names: "+".join(sorted(names)) or "plain"
)
def test_greedy_answers_are_those_of_transformers(
    kind: str, features: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "scattered" in features:
        scatter(monkeypatch)
    is_packed = "packed" in features
    engine = engine_for(kind, 7 if "chunked" in features else 256, is_packed=is_packed)
    every = cases(kind, is_packed)
    batch = every if "mixed" in features else every[:1]
    if "cached" in features:
        # The base's own request: what an activated adapter finds of it ends at its beginning.
        run(engine, [every[4]])
        run(engine, every[3:4])
    hits = engine.statistics().prefix_hit_tokens
    got = run(engine, batch, preempts="preempted" in features)
    assert got == [case.answer for case in batch]
    if features == {"cached"}:
        # The case run before has the same adapter: its pages too are found, where there are any.
        wanted = 32 if kind == "activated" else 2 * PAGE_SIZE
        assert engine.statistics().prefix_hit_tokens - hits == wanted
    assert engine.statistics().pages_used == 0
    assert engine._uses._handles == {}


@pytest.mark.parametrize("step_tokens", [7, 256])
@pytest.mark.parametrize("kind", KINDS)
def test_thirty_two_at_once_over_all_adapters(kind: str, step_tokens: int) -> None:
    loaded = AdapterSet(TINY, torch.float32)
    for adapter in adapters(kind):
        loaded.load(adapter)
    engine = TorchEngine(model(is_packed=False), EngineOptions(128, 4096, 32, step_tokens), loaded)
    every = cases(kind, is_packed=False)
    batch = [every[number % 5] for number in range(32)]
    assert run(engine, batch) == [case.answer for case in batch]
