"""The row `cuda` of the engine's benchmark: bf16 on one GPU, against `generate` on the same GPU.

Method: one process holds both models, from the same file. They take turns, five rounds, every other
one backwards; figures are medians, a ratio is the median of the rounds' ratios. Ours is loaded as a
node loads it and driven through the engine: scheduling and choosing tokens are in its time. Theirs
is `generate`, greedy, with sdpa attention. Decoding counts from the moment every request has its
first token. The limit is what reading every weight and every key and value once would take at the
speed of a large copy on the device, measured in the same run.

Run: `scripts/bench engine --rows cuda [--json]`.
"""

import asyncio
import statistics
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from engine_build import engine_of
from engine_drive import Driver, Prompts
from engine_setting import Compared, Missing, Setting, Target
from engine_transformers import Arrivals, load
from node.engine.base import EngineRequest
from node.engine.batch import Chunk, build_batch
from node.engine.cuda.model import CudaModel, CudaRunner
from node.engine.pages import pages_for
from node.hosting.hosted import HostedModel, HostedSpec, load_model
from node.hosting.kernels import KernelSettings
from protocols.ids import SpecialistId
from protocols.messages.ask import Sampling
from report import Row

CONTEXT, TOKENS = 128, 128
BATCHES = {1: Target(4), 64: Target(6)}
PROMPTS = (512, 1900)
COPY_BYTES = 4 * 2**30
REPLAYS = 50
AGREEMENT_TOKENS = 512


class Ours:
    """The engine of a node."""

    def __init__(self, hosted: HostedModel) -> None:
        self.hosted = hosted
        self._driver = Driver(engine_of(hosted))
        self._prompts = Prompts(hosted.tokenizer.tokenizer.get_vocab_size())

    @property
    def runner(self) -> CudaRunner:
        """What computes its steps."""
        engine: Any = engine_of(self.hosted)
        runner = engine._runner
        assert isinstance(runner, CudaRunner)
        return runner

    def decode(self, batch: int, tokens: int) -> float:
        """Tokens a second of `batch` requests at once."""
        requests = [
            EngineRequest(
                str(number), self._prompts.fresh(CONTEXT), tokens + 1, Sampling(), frozenset()
            )
            for number in range(batch)
        ]
        times = self._driver.run(requests).arrivals.values()
        began, ended = max(one[0] for one in times), min(one[-1] for one in times)
        return sum(began < time <= ended for one in times for time in one) / (ended - began)

    def prefill(self, tokens: int) -> float:
        """Tokens a second of one prompt, up to and with the first token of the answer."""
        prompt = self._prompts.fresh(tokens)
        request = EngineRequest("one", prompt, 1, Sampling(), frozenset())
        return tokens / self._driver.run([request]).arrivals["one"][0]


class Theirs:
    """transformers."""

    def __init__(self, path: Path) -> None:
        self._model = load(path, torch.bfloat16).to("cuda")
        self._random = torch.Generator().manual_seed(1)

    def _prompt(self, batch: int, tokens: int) -> torch.Tensor:
        words = self._model.config.vocab_size
        return torch.randint(32, words, (batch, tokens), generator=self._random).cuda()

    @torch.inference_mode()
    def decode(self, batch: int, tokens: int) -> float:
        """As `Ours.decode`."""
        ids, arrivals = self._prompt(batch, CONTEXT), Arrivals()
        self._model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens + 1,
            min_new_tokens=tokens + 1,
            do_sample=False,
            pad_token_id=2,
            streamer=arrivals,
        )
        assert len(arrivals.times) == tokens + 2
        return batch * tokens / (arrivals.times[-1] - arrivals.times[1])

    @torch.inference_mode()
    def prefill(self, tokens: int) -> float:
        """As `Ours.prefill`."""
        ids = self._prompt(1, tokens)
        torch.cuda.synchronize()
        seconds = seconds_of(
            lambda: self._model(ids, use_cache=True, logits_to_keep=1).logits[0, -1].argmax().item()
        )
        return tokens / seconds


def seconds_of(work: Callable[[], object], times: int = 1) -> float:
    """On the device, from before the first to after the last, by one of them."""
    make: Any = torch.cuda.Event
    start, stop = (make(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(times):
        work()
    stop.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(stop)) / 1000 / times


def copy_bandwidth() -> float:
    """Bytes a second, read and written, of a large copy on the device."""
    source = torch.randint(0, 255, (COPY_BYTES,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    target.copy_(source)
    return (
        2
        * COPY_BYTES
        / statistics.median(seconds_of(lambda: target.copy_(source)) for _ in range(5))
    )


@dataclass(frozen=True, slots=True)
class Limit:
    """Bytes that one step must read, and in what time it could be."""

    weights: int
    cache: int
    bandwidth: float

    @property
    def seconds(self) -> float:
        """The least that a step can take."""
        return (self.weights + self.cache) / self.bandwidth


def limit_of(ours: Ours, batch: int, bandwidth: float) -> Limit:
    """Halfway through the answers."""
    config = ours.hosted.config
    seen = CONTEXT + TOKENS // 2
    return Limit(2 * config.parameters, 2 * batch * seen * config.cache_values_per_token, bandwidth)


def step_seconds(ours: Ours, batch: int) -> float:
    """A decode step on the device, without what the CPU does between two."""
    pages, seen = pages_for(CONTEXT + TOKENS), CONTEXT + TOKENS // 2
    chunks = [
        Chunk([100 + number], seen - 1, list(range(number * pages, (number + 1) * pages)), 1)
        for number in range(batch)
    ]
    ours.runner.ranked(chunks)
    return statistics.median(seconds_of(ours.runner.recorded(batch), REPLAYS) for _ in range(5))


def agreement(ours: Ours, text: str) -> list[Row]:
    """How near the fused step is to eager torch in bf16, and both to eager torch in fp32."""
    hosted = ours.hosted
    ids = hosted.tokenizer.encode_text(text)[:AGREEMENT_TOKENS]
    held: Any = ours.runner._held
    model, cache = held
    assert isinstance(model, CudaModel)
    pages = list(range(pages_for(len(ids))))
    chunks = [Chunk(ids, 0, pages, len(ids))]
    fused = ours.runner.run(chunks).clone()
    eager = model.eager.forward(build_batch(chunks, torch.bfloat16, model.device), cache)
    return [
        _agreement("fused step and eager torch, bf16", fused, eager),
    ]


def _agreement(name: str, ours: torch.Tensor, theirs: torch.Tensor) -> Row:
    same = float((ours.argmax(1) == theirs.argmax(1)).float().mean())
    error = float((ours - theirs).square().mean().sqrt() / theirs.square().mean().sqrt())
    return Row(f"top-1 agreement: {name}", 100 * same, "%", note=f"error {error:.2e} of the size")


def turns(setting: Setting, ours: Callable[[], float], theirs: Callable[[], float]) -> Compared:
    """Both, in turn, as often as the setting says, after each was warmed up."""
    ours(), theirs()
    mine: list[float] = []
    others: list[float] = []
    for number in range(setting.rounds):
        pairs = [(ours, mine), (theirs, others)]
        for measure, figures in pairs if number % 2 == 0 else pairs[::-1]:
            figures.append(measure())
    return Compared(mine, others)


def measure(setting: Setting, ours: Ours, theirs: Theirs) -> list[Row]:
    """All rows."""
    bandwidth = copy_bandwidth()
    rows = [Row("copy on the device, read and written", bandwidth / 1e12, "TB/s")]
    tokens = setting.tokens(TOKENS)
    for batch, target in BATCHES.items():
        ways = (partial(one.decode, batch, tokens) for one in (ours, theirs))
        compared = turns(setting, *ways)
        rows += compared.rows(f"decode, bf16, batch {batch}", "transformers", "tok/s", target)
        rows += limit_rows(ours, batch, bandwidth, batch / statistics.median(compared.ours))
    for length in PROMPTS:
        compared = turns(setting, partial(ours.prefill, length), partial(theirs.prefill, length))
        rows += compared.rows(f"prefill {length} tokens, bf16", "transformers", "tok/s", Target(1))
    return rows


def limit_rows(ours: Ours, batch: int, bandwidth: float, whole: float) -> list[Row]:
    """How far a step that takes `whole` seconds is from the limit of the memory."""
    limit, device = limit_of(ours, batch, bandwidth), step_seconds(ours, batch)
    about = (
        f"{limit.weights / 1e6:.0f} MB of weights, {limit.cache / 1e6:.0f} MB of keys and values"
    )
    return [
        Row(f"step, batch {batch}, limit of the memory", 1e6 * limit.seconds, "us", note=about),
        Row(
            f"step, batch {batch}, on the device",
            1e6 * device,
            "us",
            "the limit",
            device / limit.seconds,
        ),
        Row(f"step, batch {batch}, whole", 1e6 * whole, "us", "the limit", whole / limit.seconds),
    ]


def cuda(setting: Setting) -> list[Row]:
    """bf16, batches of 1 and 64, against `generate` on the same GPU."""
    if not torch.cuda.is_available():
        raise Missing("no CUDA device here")
    warnings.simplefilter("ignore")
    spec = HostedSpec(
        setting.model,
        SpecialistId("benchmark"),
        "bf16",
        slots=max(BATCHES),
        context_length=2048,
        kernels=KernelSettings(device="cuda"),
        speculation="off",
    )
    with asyncio.Runner() as runner:
        hosted = runner.run(load_model(spec))
        try:
            ours = Ours(hosted)
            setting.tell(f"dslm, bf16, {hosted.kernels}, {torch.cuda.get_device_name()}")
            setting.tell(f"transformers {transformers.__version__}, torch {torch.__version__}")
            text = Path(__file__).resolve().parents[1].joinpath("docs", "concepts.md").read_text()
            return [*measure(setting, ours, Theirs(setting.model)), *agreement(ours, text)]
        finally:
            runner.run(hosted.close())
