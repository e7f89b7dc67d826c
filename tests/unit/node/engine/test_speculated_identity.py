"""Drafts never change an answer: fp32, against transformers and against the engine without them.

Drafts come from somebody who knows the answers and errs now and then, so that every number of
tokens is accepted at some time; from a draft model; and from the drafters that every engine has.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor

from node.engine.adapters.plan import Adaptation
from node.engine.base import Ended, EngineRequest, Generated
from node.engine.batch import StepBatch
from node.engine.cache import KeyValueCache
from node.engine.model import LlamaModel
from node.engine.speculation.drafts import Draft, Text
from node.engine.speculation.model_drafter import ModelDrafter
from node.engine.torch_engine import EngineOptions, TorchEngine
from protocols.messages.ask import LogitBias, Sampling
from tests.effort import THOROUGH
from tests.unit.node.engine.conftest import TINY, RandomWeights
from tests.unit.node.engine.test_paged_identity import named, scatter, tiny

TOKENS = 24
FEATURES = ("scattered", "chunked", "cached", "preempted")
SETS = [set(names) for size in (0, 1, 2, 4) for names in combinations(FEATURES, size)]
SAMPLINGS = {
    "greedy": Sampling(),
    "cool": Sampling(temperature=0.3, seed=3, top_k=5),
    "warm": Sampling(temperature=0.9, seed=4, top_p=0.9, logprobs=2),
    "hot": Sampling(temperature=2.0, seed=5, min_p=0.01),
    "penalised": Sampling(
        temperature=0.8, seed=6, repetition_penalty=1.3, presence_penalty=0.5,
        frequency_penalty=0.4, logit_bias=(LogitBias(3, 2.0),), logprobs=1,
    ),
    "greedy_penalised": Sampling(frequency_penalty=1.5, logprobs=0),
}  # fmt: skip


@dataclass(frozen=True)
class Alternating:
    """A matcher: only even ids after an even number of tokens, else odd ones. Remembers askings."""

    asked: list[tuple[int, ...]]
    failure: str = ""

    def allowed(self, answer: Sequence[int]) -> bytes:
        self.asked.append(tuple(answer))
        return bytes([0b01010101 if len(answer) % 2 == 0 else 0b10101010] * 8)


class Oracle:
    """Knows the answers; wrong at random, and silent at times."""

    is_free = True

    def __init__(self, answers: dict[str, list[int]], seed: int = 1, errors: float = 0.2) -> None:
        self.answers = answers
        self.rng = random.Random(seed)
        self.errors = errors

    def propose(self, text: Text, most: int) -> Draft | None:
        start = len(text.tokens) - len(text.request.prompt)
        coming = self.answers[text.request.request_id][start : start + most]
        wrong = self.rng.random
        guesses = [one if wrong() > self.errors else (one + 1) % 61 for one in coming]
        return Draft(guesses, "oracle", 0.99) if guesses and wrong() < 0.9 else None

    def leave(self, text: Text) -> None:
        pass


class Counted(LlamaModel):
    """Another's weights; each step takes a second of `count`, however many rows it has."""

    def __init__(self, model: LlamaModel) -> None:
        self.__dict__.update(model.__dict__)
        self.count = 0.0

    def forward(
        self, batch: StepBatch, cache: KeyValueCache, adaptation: Adaptation | None = None
    ) -> Tensor:
        self.count += 1.0
        return super().forward(batch, cache, adaptation)


@cache
def draft_model(noise: float) -> LlamaModel:
    """The model of `tiny(2)`, its weights somewhat off."""
    weights = RandomWeights(replace(TINY, kv_heads=2), 11)
    generator = torch.Generator().manual_seed(1)
    for name, tensor in weights._tensors.items():
        weights._tensors[name] = tensor + noise * torch.randn(tensor.shape, generator=generator)
    return LlamaModel(TINY, weights, torch.float32, 128)


def requests(
    prompts: Sequence[tuple[int, ...]], sampling: Sampling, matchers: Sequence[Any] = (None,) * 3
) -> list[EngineRequest]:
    return [
        EngineRequest(str(n), prompt, TOKENS, sampling, frozenset(), matcher=matcher)
        for n, (prompt, matcher) in enumerate(zip(prompts, matchers, strict=True))
    ]


def generated(
    engine: TorchEngine, asked: Sequence[EngineRequest], *, preempts: bool = False
) -> dict[str, list[Generated]]:
    """All tokens with their likelihoods; `preempts` takes one request's pages at times."""
    for one in asked:
        engine.submit(one)
    found: dict[str, list[Generated]] = {one.request_id: [] for one in asked}
    steps = 0
    while engine.has_work:
        for output in engine.step():
            if isinstance(output, Generated):
                found[output.request_id].append(output)
        steps += 1
        running = list(engine._scheduler._running.values())
        if preempts and running and steps % 4 == 0:
            engine._scheduler._preempt(running[steps // 4 % len(running)])
    for outputs in found.values():
        assert [output.position for output in outputs] == list(range(len(outputs)))
    return found


def ids(found: dict[str, list[Generated]]) -> dict[str, list[int]]:
    return {name: [one.token_id for one in outputs] for name, outputs in found.items()}


def eager(model: LlamaModel, *drafters: Any, **options: Any) -> TorchEngine:
    """An engine for which all steps take no time, so that every draft is worth a try."""
    settings = EngineOptions(128, options.pop("cache_tokens", 1024), **options)
    return TorchEngine(model, settings, drafters=drafters, clock=lambda: 0.0)


def plain(model: LlamaModel, asked: Sequence[EngineRequest], **options: Any) -> Any:
    engine = TorchEngine(model, EngineOptions(128, 1024, speculation="off", **options))
    found = generated(engine, asked)
    assert engine.statistics().drafted_tokens == 0
    return found


def same(got: dict[str, list[Generated]], wanted: dict[str, list[Generated]]) -> None:
    assert ids(got) == ids(wanted)
    for name, outputs in wanted.items():
        for one, other in zip(got[name], outputs, strict=True):
            assert (one.likelihood is None) == (other.likelihood is None)
            if one.likelihood is not None and other.likelihood is not None:
                assert one.likelihood.logprob == pytest.approx(other.likelihood.logprob, abs=1e-4)
                assert [a.token_id for a in one.likelihood.top] == [
                    a.token_id for a in other.likelihood.top
                ]


@pytest.mark.parametrize(
    ("kv_heads", "features"),
    [(heads, names) for heads in (4, 2, 1) for names in SETS if THOROUGH or heads == 2]
    + [(heads, SETS[-1]) for heads in (4, 1) if not THOROUGH],
    ids=named,
)
def test_speculated_greedy_answers_are_those_of_transformers(
    kv_heads: int, features: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prompts, wanted = tiny(kv_heads)
    if "scattered" in features:
        scatter(monkeypatch)
    answers = {str(n): one for n, one in enumerate(wanted)}
    engine = eager(model, Oracle(answers), step_tokens=27 if "chunked" in features else 256)
    asked = requests(prompts, Sampling())
    if "cached" in features:
        generated(engine, asked[2:])
    before = engine.statistics()
    got = generated(engine, asked, preempts="preempted" in features)
    assert ids(got) == answers
    statistics = engine.statistics()
    accepted = statistics.accepted_tokens - before.accepted_tokens
    assert accepted > TOKENS // 2
    assert statistics.drafted_tokens - before.drafted_tokens > accepted
    assert (statistics.preemptions > 0) == ("preempted" in features)
    assert statistics.pages_used == 0


@pytest.mark.parametrize("name", SAMPLINGS)
@pytest.mark.parametrize("constrained", [False, True], ids=["free", "constrained"])
def test_no_sampling_is_changed_by_drafts(name: str, *, constrained: bool) -> None:
    model, prompts, _ = tiny(2)
    notes: list[list[tuple[int, ...]]] = [[], [], []]
    matchers = [Alternating(note) if constrained else None for note in notes]
    asked = requests(prompts, SAMPLINGS[name], matchers)
    wanted = plain(model, asked)
    plain_notes = [list(note) for note in notes]
    for note in notes:
        note.clear()
    engine = eager(model, Oracle(ids(wanted)), step_tokens=64)
    same(generated(engine, asked), wanted)
    assert engine.statistics().accepted_tokens > TOKENS // 2
    assert notes == plain_notes, "asked in order and only about answers that came true"


@pytest.mark.parametrize("features", SETS[1:5] + SETS[-1:], ids=lambda n: "+".join(sorted(n)))
def test_sampled_answers_with_drafts_do_not_depend_on_pages(
    features: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prompts, _ = tiny(2)
    asked = requests(prompts, SAMPLINGS["warm"])
    wanted = plain(model, asked)
    if "scattered" in features:
        scatter(monkeypatch)
    engine = eager(model, Oracle(ids(wanted)), step_tokens=27 if "chunked" in features else 256)
    if "cached" in features:
        generated(engine, asked[2:])
    same(generated(engine, asked, preempts="preempted" in features), wanted)


@pytest.mark.parametrize("step_tokens", [27, 256])
def test_answers_are_the_same_when_pages_run_out(step_tokens: int) -> None:
    model, prompts, wanted = tiny(2)
    answers = {str(n): one for n, one in enumerate(wanted)}
    engine = eager(model, Oracle(answers), cache_tokens=160, step_tokens=step_tokens)
    assert ids(generated(engine, requests(prompts, Sampling()))) == answers
    assert engine.statistics().accepted_tokens > 0


def test_an_int8_cache_answers_the_same_with_drafts_as_without() -> None:
    """What a rejected draft wrote is written over, scales included."""
    model, prompts, _ = tiny(2)
    asked = requests(prompts, Sampling())
    wanted = plain(model, asked, is_cache_quantised=True)
    engine = eager(model, Oracle(ids(wanted)), is_cache_quantised=True)
    same(generated(engine, asked), wanted)


@pytest.mark.parametrize("step", range(1, 14, 1 if THOROUGH else 4))
def test_a_cancel_at_any_step_leaves_the_others_alone(step: int) -> None:
    model, prompts, wanted = tiny(2)
    answers = {str(n): one for n, one in enumerate(wanted)}
    engine = eager(model, Oracle(answers, errors=0.5), step_tokens=27)
    for one in requests(prompts, Sampling()):
        engine.submit(one)
    got: dict[str, list[int]] = {"0": [], "1": [], "2": []}
    for number in range(200):
        if number == step:
            engine.cancel("1")
        for output in engine.step():
            if isinstance(output, Generated):
                got[output.request_id].append(output.token_id)
    assert (got["0"], got["2"]) == (answers["0"], answers["2"])
    assert got["1"] == answers["1"][: len(got["1"])]
    assert not engine.has_work
    assert engine.statistics().pages_used == 0


@pytest.mark.parametrize("place", range(1, TOKENS, 1 if THOROUGH else 6))
def test_an_answer_ends_at_a_stop_id_among_drafts(place: int) -> None:
    model, prompts, wanted = tiny(2)
    stop = wanted[0][place]
    engine = eager(model, Oracle({"a": wanted[0]}, errors=0.0))
    engine.submit(EngineRequest("a", prompts[0], TOKENS, Sampling(), frozenset({stop})))
    outputs = [one for _ in range(TOKENS + 5) for one in engine.step()]
    tokens = [one.token_id for one in outputs if isinstance(one, Generated)]
    assert tokens == wanted[0][: wanted[0].index(stop)]
    assert outputs[-1] == Ended("a", "stop")
    assert engine.statistics().generated_tokens == len(tokens)


@pytest.mark.parametrize("max_tokens", [1, 2, 3, 9])
def test_an_answer_never_gets_longer_than_asked_for(max_tokens: int) -> None:
    model, prompts, wanted = tiny(2)
    engine = eager(model, Oracle({"a": wanted[0]}, errors=0.0))
    engine.submit(EngineRequest("a", prompts[0], max_tokens, Sampling(), frozenset()))
    outputs = [one for _ in range(TOKENS) for one in engine.step()]
    tokens = [one.token_id for one in outputs if isinstance(one, Generated)]
    assert tokens == wanted[0][:max_tokens]
    assert outputs[-1] == Ended("a", "length")


@pytest.mark.parametrize("name", ["greedy", "warm", "hot", "greedy_penalised"])
@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_a_draft_model_changes_nothing_and_is_right_as_often_as_it_is_like_the_model(
    name: str, noise: float
) -> None:
    model, prompts, _ = tiny(2)
    asked = requests(prompts, SAMPLINGS[name])
    wanted = plain(model, asked)
    drafter = ModelDrafter(draft_model(noise), 1024)
    steps = Counted(model)
    settings = EngineOptions(128, 1024)
    engine = TorchEngine(steps, settings, drafters=[drafter], clock=lambda: steps.count)
    same(generated(engine, asked), wanted)
    statistics = engine.statistics()
    share = statistics.accepted_tokens / statistics.drafted_tokens
    assert statistics.drafted_tokens > TOKENS
    assert share > 0.95 if noise == 0 else 0.1 < share < 0.9
    assert drafter.pages_used == 0


def test_a_draft_model_without_room_is_left_out() -> None:
    model, prompts, wanted = tiny(2)
    drafter = ModelDrafter(draft_model(0.0), 32)
    engine = eager(model, drafter)
    assert list(ids(generated(engine, requests(prompts, Sampling()))).values()) == wanted
    assert drafter.pages_used == 0


def test_a_text_that_comes_again_is_answered_in_a_few_steps_for_the_same_client_only() -> None:
    model, prompts, wanted = tiny(2)
    engine = eager(model)
    steps = {}
    for number, client in enumerate(["alice", "alice", "bob"]):
        one = EngineRequest(
            "a", prompts[0], TOKENS, Sampling(temperature=1.5, seed=2), frozenset(), client=client
        )
        engine.submit(one)
        steps[number] = 0
        while engine.has_work:
            engine.step()
            steps[number] += 1
    assert steps[1] <= 6
    assert steps[2] == steps[0] > 12
    assert wanted


def test_with_the_switch_off_nothing_is_drafted() -> None:
    model, prompts, wanted = tiny(2)
    engine = TorchEngine(model, EngineOptions(128, 1024, speculation="off"))
    for _ in range(2):
        assert list(ids(generated(engine, requests(prompts, Sampling()))).values()) == wanted
    assert engine.statistics().drafted_tokens == 0
