"""Pages, chunks, cached prefixes and preemption never change an answer: fp32, against transformers.

Each feature alone, all pairs, and all at once, for each way of sharing key-value heads.
"""

import random
from dataclasses import replace
from functools import cache
from itertools import combinations
from typing import Any

import pytest
import torch

from node.engine.base import EngineRequest, Generated
from node.engine.model import LlamaModel
from node.engine.pages import BlockTable, PageBook
from node.engine.torch_engine import EngineOptions, TorchEngine
from protocols.messages.ask import Sampling
from tests.effort import few
from tests.unit.node.engine.conftest import TINY, RandomWeights
from tests.unit.node.engine.test_model import reference

FEATURES = ("scattered", "chunked", "cached", "preempted")
SETS = [set(names) for size in (0, 1, 2, 4) for names in combinations(FEATURES, size)]
CASES = [(kv_heads, features) for kv_heads in (4, 2, 1) for features in SETS]
"""Multi-head, grouped and multi-query attention, with no, one, two and all of the features."""
TOKENS = 24


def named(case: object) -> str:
    """A name for a set of features that is the same in every process."""
    return "+".join(sorted(case)) or "plain" if isinstance(case, set) else str(case)


@cache
def tiny(kv_heads: int) -> tuple[LlamaModel, list[tuple[int, ...]], list[list[int]]]:
    """A model, prompts that share a beginning, and what transformers answers."""
    config = replace(TINY, kv_heads=kv_heads)
    weights = RandomWeights(config, 11)
    rng = random.Random(4)
    stem = [rng.randrange(61) for _ in range(45)]
    prompts = [(*stem, *(rng.randrange(61) for _ in range(n))) for n in (1, 3, 20)]
    judge = reference(config, weights)
    answers = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        output = judge.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOKENS, do_sample=False,
            eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
        answers.append(output[0, len(prompt) :].tolist())
    return LlamaModel(config, weights, torch.float32, 128), prompts, answers


def scatter(monkeypatch: pytest.MonkeyPatch) -> None:
    """No two pages of a sequence follow each other, but by chance."""
    rng = random.Random(8)

    def take(self: PageBook, _table: BlockTable, _wanted: int) -> int:
        page = rng.choice([number for run in self._free.runs() for number in run])
        self._free.take(page)
        return page

    monkeypatch.setattr(PageBook, "_take", take)


def answer(
    engine: TorchEngine,
    prompts: list[tuple[int, ...]],
    *,
    preempts: bool = False,
    sampling: Sampling = Sampling(),  # noqa: B008
) -> list[Any]:
    """The answers, all at once; `preempts` takes one request's pages away at every fourth step."""
    for number, prompt in enumerate(prompts):
        engine.submit(EngineRequest(str(number), prompt, TOKENS, sampling, frozenset()))
    return finish(engine, len(prompts), preempts=preempts)


def finish(engine: TorchEngine, count: int, *, preempts: bool) -> list[list[int]]:
    """The answers to requests named 0 to `count` - 1; `preempts` as in `answer`."""
    answers: list[list[int]] = [[] for _ in range(count)]
    steps = 0
    while engine.has_work:
        for output in engine.step():
            if isinstance(output, Generated):
                answers[int(output.request_id)].append(output.token_id)
        steps += 1
        running = list(engine._scheduler._running.values())
        if preempts and running and steps % 4 == 0:
            engine._scheduler._preempt(running[steps // 4 % len(running)])
    return answers


@pytest.mark.parametrize(("kv_heads", "features"), few(CASES, 9), ids=named)
def test_greedy_answers_are_those_of_transformers(
    kv_heads: int, features: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prompts, wanted = tiny(kv_heads)
    assert len({tuple(one) for one in wanted}) == 3
    if "scattered" in features:
        scatter(monkeypatch)
    step_tokens = 7 if "chunked" in features else 256
    engine = TorchEngine(model, EngineOptions(128, 1024, 16, step_tokens))
    if "cached" in features:
        answer(engine, prompts[2:])
    hits = engine.statistics().prefix_hit_tokens
    assert answer(engine, prompts, preempts="preempted" in features) == wanted
    statistics = engine.statistics()
    assert (statistics.prefix_hit_tokens - hits >= 32 * 3) == bool(
        {"cached", "preempted"} & features
    ) or "chunked" in features
    assert (statistics.preemptions > 0) == ("preempted" in features)
    assert statistics.pages_used == 0


@pytest.mark.parametrize("step_tokens", [7, 256])
def test_answers_are_the_same_when_pages_run_out(step_tokens: int) -> None:
    """Nothing is forced here: the pool holds less than half of what the requests need."""
    model, prompts, wanted = tiny(2)
    engine = TorchEngine(model, EngineOptions(128, 160, 16, step_tokens))
    assert answer(engine, prompts) == wanted
    assert engine.statistics().pages_total == 10


@pytest.mark.parametrize("features", SETS[1:5] + SETS[-1:], ids=lambda n: "+".join(sorted(n)))
def test_sampled_answers_do_not_change_either(
    features: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prompts, _ = tiny(2)
    sampling = Sampling(temperature=1.0, top_k=20, seed=5)
    wanted = answer(TorchEngine(model, EngineOptions(128, 1024)), prompts, sampling=sampling)
    if "scattered" in features:
        scatter(monkeypatch)
    step_tokens = 7 if "chunked" in features else 256
    engine = TorchEngine(model, EngineOptions(128, 1024, 16, step_tokens))
    if "cached" in features:
        answer(engine, prompts[2:])
    assert answer(engine, prompts, preempts="preempted" in features, sampling=sampling) == wanted


def test_an_int8_cache_gives_the_same_first_tokens() -> None:
    """It is not exact: later tokens may differ, and do for some weights."""
    model, prompts, wanted = tiny(2)
    engine = TorchEngine(model, EngineOptions(128, 1024, is_cache_quantised=True))
    got = answer(engine, prompts)
    assert [one[0] for one in got] == [one[0] for one in wanted]
