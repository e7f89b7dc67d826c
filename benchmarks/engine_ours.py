"""Our engine, built as a node builds it, on the order of the benchmark.

Knows how to drive an engine step by step and note when tokens come; must not know baselines. A
child of `engine.py`: `python engine_ours.py MODEL PRECISION THREADS SPECULATION`.
"""

import asyncio
import sys
from pathlib import Path

import psutil
import torch

from engine_build import (
    adapted,
    engine_of,
    load_adapters,
    precision_of,
    spec_of,
)
from engine_child import (
    Adapted,
    Continue,
    Decode,
    Forced,
    Mixed,
    Order,
    Overhead,
    Prefill,
    Ready,
    Result,
    SharedPrefix,
    Through,
    serve,
)
from engine_drive import Driver, Prompts, forced_perplexity, native_share
from node.engine.base import EngineRequest, Generated
from node.hosting.hosted import HostedModel, load_model
from node.hosting.memory import return_free_memory
from node.hosting.read import read_model
from protocols.messages.ask import ChatMessage, Sampling


def own_bytes() -> int:
    """Resident memory of this process, without what it shares (files that are mapped)."""
    memory = psutil.Process().memory_info()
    return int(memory.rss - memory.shared)


class Ours:
    """Carries orders out."""

    def __init__(self, hosted: HostedModel, runner: asyncio.Runner, path: Path) -> None:
        self._hosted = hosted
        self._runner = runner
        self._path = path
        self._digests: dict[tuple[int, int, bool], list[str]] = {}
        self._driver = Driver(engine_of(hosted))
        self._prompts = Prompts(hosted.tokenizer.tokenizer.get_vocab_size())

    def carry_out(self, order: Order) -> Result:  # noqa: PLR0911 - one for each order
        """Any order."""
        match order:
            case Decode():
                return self._decode(order)
            case Prefill():
                return self._prefill(order)
            case Mixed():
                return self._mixed(order)
            case SharedPrefix():
                return self._shared_prefix(order)
            case Through():
                return self._runner.run(self._through(order))
            case Overhead():
                request = self._request(order.context, order.tokens + 1)
                return native_share(self._driver, request)
            case Forced():
                ids = self._hosted.tokenizer.encode_text(order.text)[: order.tokens]
                return forced_perplexity(self._driver, ids, order.window)
            case Continue():
                return self._continue(order)
            case Adapted():
                return self._adapted(order)

    def _request(self, context: int, tokens: int, name: str = "one") -> EngineRequest:
        return EngineRequest(name, self._prompts.fresh(context), tokens, Sampling(), frozenset())

    def _decode(self, order: Decode) -> Result:
        run = self._driver.run([self._request(order.context, order.tokens + 1)])
        times = run.arrivals["one"]
        return Result(times[-1] - times[0], len(times) - 1)

    def _prefill(self, order: Prefill) -> Result:
        run = self._driver.run([self._request(order.tokens, 1)])
        return Result(run.arrivals["one"][0], order.tokens)

    def _mixed(self, order: Mixed) -> Result:
        requests = [
            self._request(context, tokens, str(number))
            for number, (context, tokens) in enumerate(order.lengths)
        ]
        groups = [requests] if order.is_together else [[one] for one in requests]
        runs = [self._driver.run(group) for group in groups]
        first = tuple(times[0] for run in runs for times in run.arrivals.values())
        tokens = sum(len(times) for run in runs for times in run.arrivals.values())
        return Result(sum(run.seconds for run in runs), tokens, first)

    def _shared_prefix(self, order: SharedPrefix) -> Result:
        shared = self._prompts.fresh(order.shared)
        first = []
        for name in ("cold", "warm"):
            prompt = shared + self._prompts.fresh(order.own)
            request = EngineRequest(name, prompt, 1, Sampling(), frozenset())
            first.append(self._driver.run([request]).arrivals[name][0])
        return Result(sum(first), 2 * (order.shared + order.own), tuple(first))

    def _adapted(self, order: Adapted) -> Result:
        """The decode steps that all requests share: from the last first token to the first end."""
        digests = self._digests_for(order) if order.adapters else []
        requests = []
        for number in range(order.requests):
            one = self._request(order.context, order.tokens + 1, str(number))
            requests.append(adapted(one, digests[number % len(digests)]) if digests else one)
        times = self._driver.run(requests).arrivals.values()
        began, ended = max(one[0] for one in times), min(one[-1] for one in times)
        made = sum(began < time <= ended for one in times for time in one)
        return Result(ended - began, made)

    def _digests_for(self, order: Adapted) -> list[str]:
        """Adapters are loaded when they are first wanted, and stay."""
        kind = (order.adapters, order.rank, order.is_a_shared)
        if kind not in self._digests:
            count, rank, is_a_shared = kind
            self._digests[kind] = load_adapters(self._hosted, count, rank, is_a_shared=is_a_shared)
        return self._digests[kind]

    async def _through(self, order: Through) -> Result:
        """Counted by the one who reads the answer, in the event loop."""
        clock = asyncio.get_running_loop().time
        generation = self._hosted.generate(self._request(order.context, order.tokens + 1))
        times = []
        while isinstance(await generation.next(), Generated):
            times.append(clock())
        return Result(times[-1] - times[0], len(times) - 1)

    def _continue(self, order: Continue) -> Result:
        prompt = self._hosted.tokenizer.encode_chat([ChatMessage("user", order.text)])
        sampling = Sampling(temperature=order.temperature, seed=order.seed)
        request = EngineRequest("one", prompt, order.tokens + 1, sampling, frozenset())
        times = self._driver.run([request]).arrivals["one"]
        return Result(times[-1] - times[0], len(times) - 1)


def main() -> None:
    """Load, then serve until stdin ends."""
    path, precision, threads = Path(sys.argv[1]), precision_of(sys.argv[2]), int(sys.argv[3])
    spec = spec_of(path, precision, threads, sys.argv[4])
    with asyncio.Runner() as runner:
        torch.set_num_threads(threads)
        before = own_bytes()
        read = read_model(path)
        return_free_memory()
        beside = own_bytes() - before
        before = own_bytes()
        hosted = runner.run(load_model(spec))
        return_free_memory()
        resident = own_bytes() - before
        del read
        by = getattr(hosted, "kernels", "torch")
        version = f"dslm, {precision}, computed by {by}, torch {torch.__version__}"
        try:
            serve(Ready(resident, version, beside), Ours(hosted, runner, path).carry_out)
        finally:
            runner.run(hosted.close())


if __name__ == "__main__":
    main()
