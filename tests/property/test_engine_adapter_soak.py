"""Random requests over adapters that come and go meanwhile, some cancelled: nothing is left behind.

A small pool of prompts, so that each is asked many times: whatever else is in the batch, wherever
its pages come from, and however often they are taken away, the answer under an adapter is always
the same. Now and then somebody's pages are taken for no reason, also while its adapter is leaving.
"""

import gc
import random
import tracemalloc

import pytest
import torch

from node.engine.adapters.registry import AdapterSet
from node.engine.adapters.weights import Adapter
from node.engine.base import AdapterUse, Ended, EngineRequest, Generated
from node.engine.errors import UnknownAdapter
from node.engine.model import LlamaModel
from node.engine.torch_engine import EngineOptions, TorchEngine
from protocols.messages.ask import Sampling
from tests.unit.node.engine.adapters.adapter_referee import random_adapter
from tests.unit.node.engine.conftest import TINY, RandomWeights

pytestmark = pytest.mark.slow

REQUESTS = 500
TOKENS = 20
"""More than a page: answers grow while others do."""
GROWTH_BYTES = 128 * 1024


class Coming:
    """Submits, cancels, loads and unloads; draws from one seed."""

    def __init__(self, seed: int, *, is_drafted: bool) -> None:
        self.rng = random.Random(seed)
        self.loaded = AdapterSet(TINY, torch.float32)
        model = LlamaModel(TINY, RandomWeights(TINY, 11), torch.float32, 128)
        options = EngineOptions(
            128, 208, 8, step_tokens=40, speculation="auto" if is_drafted else "off"
        )
        self.engine = TorchEngine(model, options, self.loaded, clock=lambda: 0.0)
        self.adapters = [self._adapter(number) for number in range(6)]
        stem = self.rng.choices(range(61), k=40)
        self.prompts = [
            (*stem[: self.rng.choice([0, 20, 40])], *self.rng.choices(range(61), k=9))
            for _ in range(8)
        ]
        self.inside: dict[str, tuple[tuple[object, ...], list[int]]] = {}
        self.answers: dict[tuple[object, ...], list[int]] = {}
        self.submitted = self.refused = self.swaps = 0
        self.taken = self.taken_while_leaving = 0

    def _adapter(self, number: int) -> Adapter:
        if number == 5:
            return random_adapter(TINY, number, rank=3, parts=("query", "down"))
        return random_adapter(TINY, number, shared_a=99 if number < 3 else None)

    def swap(self) -> None:
        adapter = self.rng.choice(self.adapters)
        if adapter.digest in self.loaded.digests:
            self.loaded.unload(adapter.digest)
        else:
            self.loaded.load(adapter)
        self.swaps += 1

    def submit(self) -> None:
        adapter = self.rng.choice([None, *self.adapters])
        prompt = self.rng.choice(self.prompts)
        start = self.rng.choice([0, 5]) if adapter else 0
        name = str(self.submitted)
        self.submitted += 1
        one = EngineRequest(
            name,
            prompt,
            TOKENS,
            Sampling(),
            frozenset(),
            client=f"client {self.rng.randrange(3)}",
            adapter=AdapterUse(adapter.digest, start) if adapter else None,
        )
        try:
            self.engine.submit(one)
        except UnknownAdapter:
            assert adapter is not None
            assert adapter.digest not in self.loaded.digests
            self.refused += 1
            return
        assert adapter is None or adapter.digest in self.loaded.digests
        key = (adapter.digest if adapter else "", start, prompt)
        self.inside[name] = key, []

    def cancel(self) -> None:
        name = self.rng.choice(list(self.inside))
        self.engine.cancel(name)
        del self.inside[name]

    def preempt(self) -> None:
        """Whoever it is starts again, even if nobody else may have its adapter any more."""
        scheduler = self.engine._scheduler
        running = list(scheduler._running.values())
        if running:
            victim = self.rng.choice(running)
            scheduler._preempt(victim)
            self.taken += 1
            use = victim.request.adapter
            is_leaving = use is not None and use.digest not in self.loaded.digests
            self.taken_while_leaving += is_leaving

    def step(self) -> None:
        for output in self.engine.step():
            key, answer = self.inside[output.request_id]
            match output:
                case Generated():
                    answer.append(output.token_id)
                case Ended():
                    assert len(answer) == TOKENS
                    assert self.answers.setdefault(key, answer) == answer
                    del self.inside[output.request_id]

    def run(self, requests: int) -> None:
        until = self.submitted + requests
        while self.submitted < until or self.engine.has_work:
            if self.submitted < until and len(self.inside) < 14:
                self.submit()
            if self.inside and self.rng.random() < 0.02:
                self.cancel()
            if self.rng.random() < 0.08:
                self.swap()
            if self.rng.random() < 0.6 and self.engine.has_work:
                self.step()
            if self.rng.random() < 0.03:
                self.preempt()
            statistics = self.engine.statistics()
            assert statistics.running + statistics.waiting == len(self.inside)


@pytest.mark.parametrize("is_drafted", [False, True], ids=["plain", "drafted"])
def test_adapters_come_and_go_under_requests(*, is_drafted: bool) -> None:
    """Memory is looked at without drafts: the store of earlier answers fills for longer."""
    crowd = Coming(5, is_drafted=is_drafted)
    crowd.run(REQUESTS // 4)
    if not is_drafted:
        tracemalloc.start()
    crowd.run(REQUESTS - REQUESTS // 4)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert crowd.submitted == REQUESTS
    assert crowd.refused > 20
    assert crowd.swaps > 25
    assert len({tuple(answer) for answer in crowd.answers.values()}) > 30
    assert is_drafted or grown < GROWTH_BYTES
    statistics = crowd.engine.statistics()
    assert statistics.pages_used == 0
    assert crowd.taken > 20
    assert statistics.preemptions >= crowd.taken
    assert crowd.taken_while_leaving > 0
    assert (statistics.accepted_tokens > 0) == is_drafted
    assert crowd.engine._uses._handles == {}
    for digest in crowd.loaded.digests:
        crowd.loaded.unload(digest)
    assert crowd.loaded.size == 0, "what nobody uses takes no memory"
