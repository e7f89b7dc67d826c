"""Ten thousand random requests with random cancels: memory stays flat and the counters agree.

With and without drafts, which are right four times of five.
"""

import gc
import random
import tracemalloc

import pytest

from node.engine.base import Ended, EngineRequest, Generated
from node.engine.fake import FakeEngine, FakeOptions, fake_token
from node.engine.speculation.costs import StepCosts
from node.engine.speculation.drafts import Draft, Text
from node.engine.speculation.lookup import PromptLookup
from node.engine.speculation.speculator import Speculator
from node.engine.speculation.store import SuffixStore
from protocols.messages.ask import Sampling

REQUESTS = 10_000
VOCABULARY = 256
CANCELLED = 0.03
OPTIONS = FakeOptions(VOCABULARY, 512, cache_tokens=1024, running=16, step_tokens=96)


class Knowing:
    """A drafter that knows what comes, and errs."""

    is_free = True

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def propose(self, text: Text, most: int) -> Draft | None:
        prompt, known = text.request.prompt, len(text.tokens)
        guesses = [
            fake_token(prompt, known - len(prompt) + n, -1, VOCABULARY)
            for n in range(self.rng.randrange(most))
        ]
        if guesses and self.rng.random() < 0.6:
            guesses[-1] = (guesses[-1] + 1) % VOCABULARY
        return Draft(guesses, "knowing", 0.9) if guesses else None

    def leave(self, text: Text) -> None:
        pass


def speculator(seed: int) -> Speculator:
    """With the drafters of a real engine too: what they keep must stay bounded."""
    costs = StepCosts()
    costs.learn(1, 1.0)
    drafters = (Knowing(seed), PromptLookup(), SuffixStore(512, 2048))
    return Speculator(drafters, costs, lambda: 0.0)


class Crowd:
    """Submits, cancels and checks; draws from one seed."""

    def __init__(self, seed: int, *, is_drafted: bool) -> None:
        self.rng = random.Random(seed)
        self.engine = FakeEngine(OPTIONS, speculator(seed) if is_drafted else None)
        self.stems = [self.rng.choices(range(VOCABULARY), k=300) for _ in range(3)]
        self.inside: dict[str, tuple[EngineRequest, list[int]]] = {}
        self.submitted = 0
        self.ended = 0
        self.cancelled = 0
        self.generated = 0

    def submit(self) -> None:
        rng = self.rng
        stem = rng.choice(self.stems)[: rng.choice([0, 20, 50, 300])]
        prompt = (*stem, *rng.choices(range(VOCABULARY), k=rng.randrange(1, 30)))
        length = rng.choice([5, 20, 20, 140])
        delivered = rng.choice([0, 0, 0, rng.randrange(length)])
        given = tuple(fake_token(prompt, p, -1, VOCABULARY) for p in range(delivered))
        one = EngineRequest(
            str(self.submitted),
            prompt,
            length,
            Sampling(),
            frozenset({rng.randrange(VOCABULARY)} if rng.random() < 0.2 else ()),
            given,
            client=f"client {int(rng.expovariate(0.7))}",
        )
        self.engine.submit(one)
        self.inside[one.request_id] = one, list(given)
        self.submitted += 1

    def cancel(self) -> None:
        victim = self.rng.choice(list(self.inside))
        self.engine.cancel(victim)
        del self.inside[victim]
        self.cancelled += 1

    def step(self) -> None:
        for output in self.engine.step():
            one, answer = self.inside[output.request_id]
            match output:
                case Generated(position=position, token_id=token_id):
                    assert position == len(answer)
                    assert token_id == fake_token(one.prompt, position, -1, VOCABULARY)
                    answer.append(token_id)
                    self.generated += 1
                case Ended(reason=reason):
                    if reason == "length":
                        assert len(answer) == one.max_tokens
                    else:
                        following = fake_token(one.prompt, len(answer), -1, VOCABULARY)
                        assert following in one.stop_ids
                    del self.inside[output.request_id]
                    self.ended += 1

    def check(self) -> None:
        statistics = self.engine.statistics()
        assert statistics.running + statistics.waiting == len(self.inside)
        assert statistics.generated_tokens == self.generated
        assert statistics.accepted_tokens <= statistics.drafted_tokens
        assert statistics.accepted_tokens < max(1, statistics.generated_tokens)
        assert statistics.pages_used + statistics.pages_cached <= statistics.pages_total == 64
        assert self.submitted == self.ended + self.cancelled + len(self.inside)
        if not self.inside:
            assert statistics.pages_used == 0

    def until(self, requests: int) -> None:
        """Submit up to so many in all, in bursts, and let all of them end."""
        rng = self.rng
        while self.submitted < requests or self.engine.has_work:
            for _ in range(rng.choice([0, 0, 1, 1, 8]) if len(self.inside) < 60 else 0):
                if self.submitted < requests:
                    self.submit()
            if self.inside and rng.random() < CANCELLED:
                self.cancel()
            self.step()
            self.check()


def _memory() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


@pytest.mark.slow
@pytest.mark.parametrize("is_drafted", [False, True], ids=["plain", "drafted"])
def test_ten_thousand_requests_leave_nothing_behind(*, is_drafted: bool) -> None:
    crowd = Crowd(seed=20, is_drafted=is_drafted)
    tracemalloc.start()
    try:
        crowd.until(REQUESTS // 10)
        before = _memory()
        crowd.until(REQUESTS)
        grown = _memory() - before
    finally:
        tracemalloc.stop()
    statistics = crowd.engine.statistics()
    assert (crowd.submitted, len(crowd.inside)) == (REQUESTS, 0)
    assert crowd.cancelled > REQUESTS / 20
    assert statistics.preemptions > 100
    assert statistics.prefix_hit_tokens > 100_000
    assert (statistics.accepted_tokens > 50_000) == is_drafted
    assert abs(grown) < 64 * 1024, f"{grown} bytes more after nine times as many requests"


@pytest.mark.parametrize("is_drafted", [False, True], ids=["plain", "drafted"])
def test_some_hundred_requests_leave_nothing_behind(*, is_drafted: bool) -> None:
    crowd = Crowd(seed=21, is_drafted=is_drafted)
    crowd.until(150 if is_drafted else 300)
    assert crowd.engine.statistics().preemptions > 0
