"""The scheduler over a cache that remembers what was written where, with cancels at any moment.

Some answers are drafted ahead, rightly and wrongly; some come from adapters, from anywhere on;
some are given.
"""

import random
from collections.abc import Sequence

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from node.engine.base import AdapterUse, Ended, EngineRequest, Generated
from node.engine.fake import fake_token
from node.engine.pages import PAGE_SIZE
from node.engine.scheduler import Scheduler, SchedulerLimits
from node.engine.sequence import FORCED_ROWS_MAX, Work
from node.engine.speculation.drafts import Text, Wish
from protocols.messages.ask import Sampling
from tests.effort import examples

VOCABULARY = 20
CONTEXT = 100
STEMS = ([1] * 70, [1] * 20 + [2] * 50, [3] * 70)
STEPS_MAX = 5_000
ADAPTERS = st.none() | st.builds(
    AdapterUse, st.sampled_from(["one", "two"]), st.sampled_from([0, 1, 15, 16, 17, 32, 60, 99])
)
"""In the middle of pages, at their borders, in the prompt, in the answer and behind it."""


class Guesses:
    """Drafts what will come, up to a first mistake at random; checks that it is told everything."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.texts: dict[int, int] = {}

    def plan(self, wishes: Sequence[Wish], spare: int) -> list[list[int]]:
        return [self.draft(wish, spare // len(wishes)) for wish in wishes]

    def draft(self, wish: Wish, most: int) -> list[int]:
        text, rng = wish.text, self.rng
        known = len(text.tokens)
        assert self.texts.setdefault(text.ticket, known) == known
        start, prompt = known - len(text.request.prompt), text.request.prompt
        right = [_token(prompt, start + n) for n in range(rng.randrange(most + 1))]
        cut = rng.randrange(len(right) + 1)
        # Also ids that are none, and more than was wished for: both must do no harm.
        wrong = rng.choices([-1, 5, VOCABULARY, *range(VOCABULARY)], k=rng.randrange(4))
        return (right[:cut] + wrong)[:most] if rng.random() < 0.5 else right

    def settle(self, text: Text, came: int) -> None:
        if text.ticket in self.texts:
            self.texts[text.ticket] += came
            assert self.texts[text.ticket] == len(text.tokens)
        self.texts[text.ticket] = len(text.tokens)

    def leave(self, text: Text) -> None:
        self.texts.pop(text.ticket, None)


class Requests(RuleBasedStateMachine):
    """Every answer is the one that its request gets alone, whatever else happens.

    `memory[slot]` is (salt, all tokens up to that one, each with the adapter that it was computed
    under): what attention over it would depend on.
    """

    @initialize(
        running=st.integers(1, 5),
        step_tokens=st.integers(1, 50),
        cache_tokens=st.integers(20, 200),
        is_shared=st.booleans(),
        seed=st.integers(0, 99),
    )
    def build(
        self, running: int, step_tokens: int, cache_tokens: int, *, is_shared: bool, seed: int
    ) -> None:
        self.limits = SchedulerLimits(
            CONTEXT, cache_tokens, running, step_tokens, VOCABULARY, "m", is_shared
        )
        self.guesses = Guesses(seed)
        self.scheduler = Scheduler(self.limits, self.guesses if seed % 3 else None)
        self.memory: dict[int, tuple[str, tuple[tuple[int, str], ...]]] = {}
        self.inside: dict[str, EngineRequest] = {}
        self.answers: dict[str, list[int]] = {}
        self.count = 0
        self.generated = 0

    @precondition(lambda self: len(self.inside) < 12)
    @rule(
        client=st.sampled_from(["", "alice", "bob"]),
        stem=st.sampled_from(STEMS),
        length=st.integers(1, 70),
        max_tokens=st.integers(1, 40),
        delivered=st.integers(0, 6),
        adapter=ADAPTERS,
    )
    def submit(
        self,
        client: str,
        stem: list[int],
        length: int,
        max_tokens: int,
        delivered: int,
        adapter: AdapterUse | None,
    ) -> None:
        self.count += 1
        prompt = tuple(stem[: min(length, self.limits.longest - 1)])
        most = min(max_tokens, self.limits.longest - len(prompt))
        given = tuple(_token(prompt, p) for p in range(min(delivered, most)))
        one = EngineRequest(
            str(self.count),
            prompt,
            most,
            Sampling(),
            frozenset(),
            given,
            client=client,
            adapter=adapter,
        )
        self.scheduler.submit(one)
        self.inside[one.request_id] = one
        self.answers[one.request_id] = list(given)

    @precondition(lambda self: len(self.inside) < 12)
    @rule(
        client=st.sampled_from(["", "alice", "bob"]),
        stem=st.sampled_from(STEMS),
        length=st.integers(1, 70),
        given=st.lists(st.integers(0, 3), min_size=1, max_size=80),
        adapter=ADAPTERS,
    )
    def force(
        self,
        client: str,
        stem: list[int],
        length: int,
        given: list[int],
        adapter: AdapterUse | None,
    ) -> None:
        """Its ids may be those that a stem goes on with, so that their pages can be found."""
        self.count += 1
        prompt = tuple(stem[: min(length, self.limits.longest - 1)])
        ids = tuple(
            (stem[len(prompt) :] + given)[: self.limits.longest - len(prompt)][: len(given)]
        )
        name = str(self.count)
        one = EngineRequest(
            name,
            prompt,
            len(ids),
            Sampling(),
            frozenset({1}),
            client=client,
            adapter=adapter,
            forced=ids,
        )
        self.scheduler.submit(one)
        self.inside[name], self.answers[name] = one, []

    @precondition(lambda self: self.inside)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.forget(data.draw(st.sampled_from(sorted(self.inside))))

    @rule()
    def step(self) -> None:
        self.run(None)

    @precondition(lambda self: self.inside)
    @rule(data=st.data())
    def step_with_a_cancel_while_it_runs(self, data: st.DataObject) -> None:
        self.run(data.draw(st.sampled_from(sorted(self.inside))))

    @rule(count=st.integers(2, 30))
    def steps(self, count: int) -> None:
        for _ in range(count):
            self.run(None)

    def forget(self, request_id: str) -> None:
        used = self.scheduler.statistics().pages_used
        self.scheduler.cancel(request_id)
        assert self.scheduler.statistics().pages_used <= used
        del self.inside[request_id]

    def run(self, cancelled: str | None) -> None:
        """One step as an engine takes it, with at most one cancel before its outcome is told."""
        outputs: list[Generated | Ended] = [*self.scheduler.ended_on_arrival()]
        work = self.scheduler.schedule()
        self.check_budget(work)
        tokens = [self.compute(item) for item in work]
        if cancelled is not None:
            outputs = [one for one in outputs if one.request_id != cancelled]
            self.forget(cancelled)
        outputs += self.scheduler.advance(work, [t for t in tokens if t])
        for output in outputs:
            assert output.request_id in self.inside, "an output after the end, or a cancel"
            match output:
                case Generated(request_id, position, token_id):
                    assert position == len(self.answers[request_id])
                    self.answers[request_id].append(token_id)
                    self.generated += not self.inside[request_id].forced
                case Ended(request_id):
                    one = self.inside.pop(request_id)
                    wanted = [_token(one.prompt, p) for p in range(one.max_tokens)]
                    wanted = list(one.forced) or wanted
                    assert self.answers[request_id] == wanted

    def check_budget(self, work: list[Work]) -> None:
        assert len({id(item.sequence) for item in work}) == len(work)
        chunks = [item.count for item in work if item.count > 1]
        budget = self.limits.step_tokens
        forced = sum(i.logits for i in work if i.count > 1 and i.sequence.request.forced)
        assert forced <= FORCED_ROWS_MAX
        assert sum(chunks) <= max(budget, budget // 4, 1)
        assert sum(item.count for item in work) <= budget + self.limits.running
        if any(item.drafts for item in work):
            assert sum(item.count + len(item.drafts) for item in work) <= budget
            assert not chunks
        if self.inside and not work:
            # Only requests that ended on arrival need no work.
            assert not self.scheduler.statistics().running

    def compute(self, item: Work) -> list[int]:
        """Read all that attention would read, write what the model would, choose the tokens."""
        sequence = item.sequence
        salt = "" if self.limits.is_cache_shared else sequence.request.client
        tokens = [*sequence.tokens[: sequence.computed + item.count], *item.drafts]
        computed = _computed(sequence.request.adapter, tokens)
        book = self.scheduler._book
        for position in range(len(tokens)):
            page = sequence.table.pages[position // PAGE_SIZE]
            slot = page * PAGE_SIZE + position % PAGE_SIZE
            content = salt, computed[: position + 1]
            if position < sequence.computed:
                assert self.memory[slot] == content
            else:
                assert book.references(page) == 1
                assert book._digests[page] is None, "a page that others may find was written"
                self.memory[slot] = content
        if sequence.request.forced:
            assert item.logits <= FORCED_ROWS_MAX
            assert item.position + item.logits <= len(sequence.request.forced)
            return []
        chosen: list[int] = []
        for guess in (*item.drafts, None)[: item.logits]:
            position = sequence.answer_length + len(chosen)
            chosen.append(_token(sequence.request.prompt, position))
            if chosen[-1] != guess:
                break
        return chosen

    @invariant()
    def books_agree(self) -> None:
        scheduler = self.scheduler
        statistics = scheduler.statistics()
        assert statistics.running <= self.limits.running
        assert statistics.running + statistics.waiting <= len(self.inside)
        tables = [one.table for one in scheduler._running.values()]
        for one in scheduler._waiting.values():
            assert (one.table.pages, one.computed) == ([], 0)
        pages = [page for table in tables for page in table.pages]
        book = scheduler._book
        assert [book.references(p) for p in range(book.total)] == [
            pages.count(p) for p in range(book.total)
        ]
        assert statistics.pages_used == len(set(pages)) == statistics.cache_tokens_used // 16
        assert statistics.pages_used + statistics.pages_cached <= statistics.pages_total
        assert statistics.generated_tokens >= self.generated
        assert 0 <= statistics.accepted_tokens <= statistics.drafted_tokens
        for table, one in ((one.table, one) for one in scheduler._running.values()):
            assert len(table.pages) <= -(-len(one.tokens) // PAGE_SIZE), "pages kept for drafts"

    @invariant()
    def what_can_be_found_is_what_was_written(self) -> None:
        book = self.scheduler._book
        for page in book._published.values():
            written = [self.memory[page * PAGE_SIZE + n] for n in range(PAGE_SIZE)]
            assert tuple(content[1][-1][0] for content in written) == book._tokens[page]
            assert len({content[0] for content in written}) == 1

    @invariant()
    def nobody_is_drafted_for_who_is_gone(self) -> None:
        scheduler = self.scheduler
        inside = {*scheduler._running.values(), *scheduler._waiting.values()}
        assert self.guesses.texts.keys() <= {one.ticket for one in inside}
        assert len(scheduler._shares._inside) == len(
            {self.inside[r].client for r in (*scheduler._running, *scheduler._waiting)}
        )

    def teardown(self) -> None:
        """Nobody starves: what is inside ends, and nothing is left behind."""
        if not hasattr(self, "scheduler"):
            return
        for _ in range(STEPS_MAX):
            if not self.scheduler.has_work:
                break
            self.run(None)
        assert self.inside == {}
        assert not self.scheduler.has_work
        assert self.scheduler.statistics().pages_used == 0
        assert self.scheduler._shares._served == {}


def _computed(adapter: AdapterUse | None, tokens: Sequence[int]) -> tuple[tuple[int, str], ...]:
    """Each token with the adapter under which its keys and values are computed."""
    start, digest = (adapter.start, adapter.digest) if adapter else (len(tokens), "")
    return tuple((one, digest if at >= start else "") for at, one in enumerate(tokens))


def _token(prompt: tuple[int, ...], position: int) -> int:
    return fake_token(prompt, position, -1, VOCABULARY)


TestRequests = Requests.TestCase
TestRequests.settings = settings(max_examples=examples(300), stateful_step_count=40, deadline=None)
