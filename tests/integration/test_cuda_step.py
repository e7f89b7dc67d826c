"""The fused step on a GPU: fp32 answers are those of transformers, bf16 stays near the referee.

Without a GPU the kernels can be run by Triton's interpreter (TRITON_INTERPRET=1), very slowly.
"""

import math
import os
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations
from typing import Any

import pytest
import torch

from node.engine.adapters.registry import AdapterSet
from node.engine.base import AdapterUse, EngineRequest, Generated
from node.engine.batch import Chunk
from node.engine.config import LlamaConfig, Variant
from node.engine.errors import EngineFailed
from node.engine.model import LlamaModel
from node.engine.pages import pages_for
from node.engine.torch_engine import EngineOptions, TorchEngine
from protocols.messages.ask import Sampling
from tests.unit.node.engine.adapters.adapter_referee import (
    hooked_greedy,
    merged_greedy,
    random_adapter,
)
from tests.unit.node.engine.conftest import RandomWeights
from tests.unit.node.engine.test_model import reference
from tests.unit.node.engine.test_paged_identity import (
    TOKENS,
    answer,
    finish,
    named,
    scatter,
)
from tests.unit.node.engine.test_speculated_identity import Oracle

pytestmark = [pytest.mark.gpu, pytest.mark.integration]

SMALL = LlamaConfig(
    vocabulary_size=61,
    hidden_size=64,
    intermediate_size=96,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dimension=16,
    context_length=128,
    norm_epsilon=1e-5,
    rope_theta=10_000.0,
)
FEATURES = ("scattered", "chunked", "cached", "preempted")
SETS = [set(names) for size in (0, 1, 2, 4) for names in combinations(FEATURES, size)]
CASES = [(kv_heads, features) for kv_heads in (4, 2, 1) for features in SETS]
HAS_GPU = torch.cuda.is_available()
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cuda" if HAS_GPU else "cpu")
BF16_BOUND = 0.1
"""Of the root mean square of all logits: what any may differ by from eager torch, which is itself
as far from fp32."""

if not (HAS_GPU or INTERPRETED):
    pytest.skip("no CUDA device here", allow_module_level=True)

from node.engine.cuda.model import CudaModel  # noqa: E402 - needs Triton


class Weights(RandomWeights):
    """Matrices that keep a row's size, so that bf16 errors do not grow from layer to layer."""

    def __init__(self, config: LlamaConfig, seed: int) -> None:
        super().__init__(config, seed)
        for name, tensor in self._tensors.items():
            if tensor.dim() > 1 and name not in {"embedding", "head"}:
                self._tensors[name] = tensor / (0.3 * math.sqrt(tensor.shape[1]))


@cache
def eager(kv_heads: int, dtype: torch.dtype = torch.float32, on: str = "gpu") -> LlamaModel:
    config = replace(SMALL, kv_heads=kv_heads)
    device = DEVICE if on == "gpu" else torch.device("cpu")
    return LlamaModel(config, RandomWeights(config, 11), dtype, 128, device=device)


HAS_OVERLAPS = HAS_GPU and torch.cuda.get_device_capability() >= (9, 0)


def fused(kv_heads: int, *, overlaps: bool = HAS_OVERLAPS) -> CudaModel:
    return CudaModel(eager(kv_heads), has_graphs=HAS_GPU, overlaps=overlaps)


@cache
def asked(kv_heads: int) -> tuple[list[tuple[int, ...]], list[list[int]]]:
    """Prompts that share a beginning, and what transformers answers."""
    config = replace(SMALL, kv_heads=kv_heads)
    rng = random.Random(4)
    stem = [rng.randrange(61) for _ in range(45)]
    prompts = [(*stem, *(rng.randrange(61) for _ in range(n))) for n in (1, 3, 20)]
    judge = reference(config, RandomWeights(config, 11))
    return prompts, [hooked_greedy(judge, None, one, TOKENS, start=0) for one in prompts]


@pytest.mark.parametrize(("kv_heads", "features"), CASES, ids=named)
def test_greedy_answers_are_those_of_transformers(
    kv_heads: int, features: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts, wanted = asked(kv_heads)
    if "scattered" in features:
        scatter(monkeypatch)
    step_tokens = 7 if "chunked" in features else 256
    engine = TorchEngine(fused(kv_heads), EngineOptions(128, 1024, 16, step_tokens))
    if "cached" in features:
        answer(engine, prompts[2:])
    assert answer(engine, prompts, preempts="preempted" in features) == wanted
    assert (engine.statistics().preemptions > 0) == ("preempted" in features)


@pytest.mark.parametrize("overlaps", {False, HAS_OVERLAPS})
def test_overlapping_kernels_change_nothing(overlaps: bool) -> None:
    prompts, wanted = asked(1)
    engine = TorchEngine(fused(1, overlaps=overlaps), EngineOptions(128, 1024, 16, 32))
    assert answer(engine, prompts, preempts=True) == wanted


@pytest.mark.parametrize("is_scattered", [False, True])
def test_many_at_once_answer_as_alone(is_scattered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if is_scattered:
        scatter(monkeypatch)
    prompts, wanted = asked(2)
    engine = TorchEngine(fused(2), EngineOptions(128, 64 * 128, 64, 512))
    assert answer(engine, [prompts[n % 3] for n in range(50)]) == [wanted[n % 3] for n in range(50)]


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("features", [SETS[0], SETS[-1]], ids=named)
def test_speculated_answers_are_those_of_transformers(
    kv_heads: int, features: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts, wanted = asked(kv_heads)
    if "scattered" in features:
        scatter(monkeypatch)
    step_tokens = 21 if "chunked" in features else 256
    oracle = Oracle({str(number): one for number, one in enumerate(wanted)})
    options = EngineOptions(128, 1024, 16, step_tokens)
    engine = TorchEngine(fused(kv_heads), options, drafters=[oracle], clock=lambda: 0.0)
    assert answer(engine, prompts, preempts="preempted" in features) == wanted
    assert engine.statistics().accepted_tokens > 8


@pytest.mark.parametrize("kind", ["ordinary", "activated", "shared", "int8"])
def test_adapted_answers_are_those_of_transformers(kind: str) -> None:
    prompts, wanted = asked(2)
    judge = reference(SMALL, RandomWeights(SMALL, 11))
    shared = 99 if kind == "shared" else None
    adapters = [
        random_adapter(SMALL, seed, shared_a=shared, is_int8=kind == "int8") for seed in (1, 2)
    ]
    loaded = AdapterSet(SMALL, torch.float32, DEVICE)
    for adapter in adapters:
        loaded.load(adapter)
    start = 37 if kind == "activated" else 0
    say = hooked_greedy if kind == "activated" else merged_greedy
    extra = {"start": start} if kind == "activated" else {}
    expected = [say(judge, adapters[n], prompts[n], TOKENS, **extra) for n in range(2)]
    engine = TorchEngine(fused(2), EngineOptions(128, 1024), loaded)
    for number, prompt in enumerate(prompts):
        use = AdapterUse(adapters[number].digest, start) if number < 2 else None
        engine.submit(
            EngineRequest(str(number), prompt, TOKENS, Sampling(), frozenset(), adapter=use)
        )
    assert finish(engine, 3, preempts=False) == [*expected, wanted[2]]


@pytest.mark.parametrize("step_tokens", [7, 256])
def test_given_answers_are_as_likely_as_on_the_cpu(step_tokens: int) -> None:
    prompts, _ = asked(2)
    given = tuple(random.Random(8).choices(range(61), k=50))
    options = EngineOptions(128, 1024, 16, step_tokens)
    found = []
    for model in (eager(2, on="cpu"), fused(2)):
        engine = TorchEngine(model, options)
        for number, prompt in enumerate(prompts):
            engine.submit(
                EngineRequest(
                    str(number), prompt, len(given), Sampling(), frozenset(), forced=given
                )
            )
        said: dict[str, list[float]] = {}
        while engine.has_work:
            for output in engine.step():
                if isinstance(output, Generated):
                    assert output.token_id == given[output.position]
                    assert output.likelihood is not None
                    said.setdefault(output.request_id, []).append(output.likelihood.logprob)
        found.append([said[str(number)] for number in range(len(prompts))])
    for expected, measured in zip(*found, strict=True):
        assert len(expected) == len(given)
        assert measured == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1.0, top_k=20, seed=5),
        Sampling(temperature=0.9, seed=4, top_p=0.9, logprobs=2),
        Sampling(temperature=0.8, seed=6, repetition_penalty=1.3, frequency_penalty=0.4),
        Sampling(temperature=1.2, seed=9, min_p=0.05),
    ],
)
def test_sampled_answers_are_those_of_the_cpu(sampling: Sampling) -> None:
    prompts, _ = asked(2)
    options = EngineOptions(128, 1024)
    wanted = answer(TorchEngine(eager(2, on="cpu"), options), prompts, sampling=sampling)
    assert answer(TorchEngine(fused(2), options), prompts, sampling=sampling) == wanted


def test_a_model_that_gives_no_numbers_fails() -> None:
    broken = LlamaModel(SMALL, RandomWeights(SMALL, 3), torch.float32, 128, device=DEVICE)
    broken.final_norm[5] = float("nan")
    engine = TorchEngine(CudaModel(broken, has_graphs=HAS_GPU), EngineOptions(128, 1024))
    with pytest.raises(EngineFailed, match="not a number"):
        answer(engine, [(1, 2, 3)])
    engine.close()
    with pytest.raises(EngineFailed, match="closed"):
        engine.step()


VARIANTS = {
    "gemma": Variant(
        has_query_key_norms=True, has_output_norms=True, activation="gelu_tanh",
        has_wide_norms=True, embedding_scale=8.0, sliding_window=8, sliding_layers=(0,),
        local_rope_theta=1000.0,
    ),
    "qwen": Variant(has_input_biases=True, has_query_key_norms=True),
    "smollm3": Variant(unrotated_layers=(1,), has_output_bias=True),
}  # fmt: skip


@pytest.mark.parametrize("family", VARIANTS)
def test_families_are_computed_eagerly_on_the_gpu(family: str) -> None:
    config = replace(SMALL, variant=VARIANTS[family])
    weights = RandomWeights(config, 11)
    prompts, _ = asked(2)
    answers = []
    for device in (torch.device("cpu"), DEVICE):
        model = LlamaModel(config, weights, torch.float32, 128, device=device)
        engine = TorchEngine(model, EngineOptions(128, 1024, 16, 32))
        answers.append(answer(engine, prompts))
    assert answers[0] == answers[1]


@pytest.mark.parametrize("is_cache_quantised", [False, True])
def test_eager_torch_on_the_gpu_answers_as_on_the_cpu(is_cache_quantised: bool) -> None:
    prompts, _ = asked(2)
    options = EngineOptions(128, 1024, is_cache_quantised=is_cache_quantised)
    answers = [answer(TorchEngine(eager(2, on=on), options), prompts) for on in ("cpu", "gpu")]
    assert [one[:4] for one in answers[0]] == [one[:4] for one in answers[1]]


def chunks_of(lengths: Sequence[tuple[int, int, int]], seed: int) -> list[Chunk]:
    """Chunks of (position, tokens, logits), each sequence in scattered pages of its own."""
    rng = random.Random(seed)
    total = sum(pages_for(position + count) for position, count, _ in lengths)
    free = list(range(total))
    rng.shuffle(free)
    made = []
    for position, count, logits in lengths:
        pages = [free.pop() for _ in range(pages_for(position + count))]
        made.append(Chunk([rng.randrange(61) for _ in range(count)], position, pages, logits))
    return made


SHAPES: dict[str, list[tuple[int, int, int]]] = {
    "one": [(0, 1, 1)],
    "one after many": [(1500, 1, 1)],
    "three": [(7, 1, 1), (16, 1, 1), (700, 1, 1)],
    "drafts": [(300, 4, 4), (31, 3, 3), (15, 1, 1)],
    "a prompt": [(0, 333, 1)],
    "a chunk and answers": [(256, 100, 1), (40, 1, 1), (0, 5, 5)],
    "many": [(10 * number, 1, 1) for number in range(70)],
    "many chunks": [(3 * number, 6, 2) for number in range(130)],
}


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_logits_are_near_those_of_the_referee(
    shape: str, kv_heads: int, dtype: torch.dtype
) -> None:
    """And a step that is recorded, or whose kernels overlap, gives the same to the bit."""
    if dtype is torch.bfloat16 and not HAS_GPU:
        pytest.skip("no CUDA device here")
    config = replace(SMALL, kv_heads=kv_heads, context_length=2048)
    model = LlamaModel(config, Weights(config, 11), dtype, 2048, device=DEVICE)
    steps = chunks_of(SHAPES[shape], 3)
    before = [replace(c, token_ids=[7] * c.position, position=0, logits=0) for c in steps]
    tokens = 16 * sum(pages_for(one.seen) for one in steps)
    results: list[Any] = []
    for runner in (
        model.open(tokens),
        CudaModel(model, has_graphs=False).open(tokens),
        CudaModel(model, has_graphs=HAS_GPU).open(tokens),
        CudaModel(model, has_graphs=HAS_GPU, overlaps=HAS_OVERLAPS).open(tokens),
    ):
        for one in before:
            if one.token_ids:
                runner.run([one])
        if HAS_GPU:
            runner.run(steps)  # so that the next one is replayed
        results.append(runner.run(steps).clone())
    eagerly, launched, replayed, overlapped = results
    assert torch.equal(launched, replayed)
    assert torch.equal(launched, overlapped)
    size = eagerly.square().mean().sqrt()
    error = float((eagerly - launched).abs().max() / size)
    agreement = float((eagerly.argmax(1) == launched.argmax(1)).float().mean())
    print(  # noqa: T201 - a figure that is wanted
        f"{shape}, {dtype}, {kv_heads} kv heads: error {error:.2e}, top-1 {agreement:.1%}"
    )
    assert error < (BF16_BOUND if dtype is torch.bfloat16 else 2e-5)
