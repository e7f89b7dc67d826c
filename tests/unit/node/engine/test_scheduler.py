"""What the contract's tests cannot see: who gets pages and turns, and what the cache saves."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from node.engine.base import Ended, EngineRequest, Generated
from node.engine.fake import FakeEngine, FakeOptions
from node.engine.scheduler import Scheduler, SchedulerLimits
from node.engine.shares import Shares
from protocols.messages.ask import Sampling


def request(
    request_id: str, prompt: Sequence[int], max_tokens: int = 8, client: str = ""
) -> EngineRequest:
    return EngineRequest(
        request_id, tuple(prompt), max_tokens, Sampling(), frozenset(), client=client
    )


def numbers(seed: int, count: int) -> list[int]:
    return random.Random(seed).choices(range(200), k=count)


def finish(engine: FakeEngine) -> list[str]:
    """The ids in the order in which they end."""
    order = []
    while engine.has_work:
        order += [o.request_id for o in engine.step() if isinstance(o, Ended)]
    return order


def test_a_second_request_computes_only_what_is_new() -> None:
    engine = FakeEngine(FakeOptions(step_tokens=64))
    prompt = numbers(1, 200)
    engine.submit(request("a", prompt))
    finish(engine)
    assert engine.statistics().prefix_hit_tokens == 0
    engine.submit(request("b", [*prompt, 7, 8]))
    engine.step()
    assert engine.statistics().prefix_hit_tokens == 192
    assert [o.request_id for o in engine.step()] == ["b"], "ten tokens were left: one step"
    finish(engine)
    assert engine.statistics().prompt_tokens == 200 + 202


@pytest.mark.parametrize(
    ("client", "is_shared", "hits"),
    [
        ("alice", False, 192),
        ("bob", False, 0),
        ("", False, 0),
        ("bob", True, 192),
    ],
)
def test_another_clients_prompt_is_not_found_unless_the_cache_is_shared(
    client: str, is_shared: bool, hits: int
) -> None:
    engine = FakeEngine(FakeOptions(is_cache_shared=is_shared))
    prompt = numbers(1, 200)
    for name, who in (("a", "alice"), ("b", client)):
        engine.submit(request(name, prompt, client=who))
        finish(engine)
    assert engine.statistics().prefix_hit_tokens == hits


def test_nor_is_another_tenants_of_the_same_client() -> None:
    engine = FakeEngine(FakeOptions())
    found = []
    for name, tenant in (("a", "1"), ("b", "2"), ("c", ""), ("d", "1")):
        asked = replace(request(name, numbers(1, 200), client="alice"), tenant=tenant)
        engine.submit(asked)
        finish(engine)
        found.append(engine.statistics().prefix_hit_tokens)
    assert found == [0, 0, 0, 192]


@pytest.mark.parametrize("step_tokens", [24, 64, 1000])
@pytest.mark.parametrize(("length", "hits"), [(200, 3 * 192), (193, 3 * 192), (192, 3 * 176)])
def test_samples_of_one_prompt_that_come_at_once_compute_it_once(
    step_tokens: int, length: int, hits: int
) -> None:
    """Only what lies on the last page, which all go on to write, is computed by each."""
    engine = FakeEngine(FakeOptions(step_tokens=step_tokens))
    prompt = numbers(1, length)
    for name in "abcd":
        engine.submit(request(name, prompt))
    pages = 0
    while engine.has_work:
        engine.step()
        pages = max(pages, engine.statistics().pages_used)
    statistics = engine.statistics()
    assert statistics.prefix_hit_tokens == hits
    assert statistics.prompt_tokens == 4 * length
    assert pages < 2 * 13, "the pages are shared, not copied"


def test_who_waits_for_a_page_of_another_goes_on_when_that_one_is_cancelled() -> None:
    engine = FakeEngine(FakeOptions(step_tokens=64))
    prompt = numbers(1, 200)
    for name in "ab":
        engine.submit(request(name, prompt))
    engine.step()
    engine.cancel("a")
    assert finish(engine) == ["b"]
    assert engine.statistics().prefix_hit_tokens == 64


def test_a_conversation_finds_its_own_answers() -> None:
    engine = FakeEngine(FakeOptions())
    tokens = numbers(2, 50)
    engine.submit(request("a", tokens, 40))
    while engine.has_work:
        tokens += [o.token_id for o in engine.step() if isinstance(o, Generated)]
    engine.submit(request("b", [*tokens, 1, 2, 3]))
    finish(engine)
    # The very last token was never computed, but its page is not full either way.
    assert engine.statistics().prefix_hit_tokens == 80


def test_requests_that_come_together_compute_a_common_prompt_once() -> None:
    engine = FakeEngine(FakeOptions(step_tokens=50))
    prompt = numbers(3, 400)
    for number in range(5):
        engine.submit(request(str(number), prompt))
    steps = 0
    while engine.statistics().generated_tokens < 5:
        engine.step()
        steps += 1
    assert steps <= 400 // 50 + 5, "alone the five prompts are 40 steps"
    assert engine.statistics().prefix_hit_tokens >= 4 * 350


def test_requests_are_admitted_by_what_they_need_now_not_at_worst() -> None:
    engine = FakeEngine(FakeOptions(cache_tokens=1024))
    for number in range(8):
        engine.submit(request(str(number), numbers(number, 30), 900))
    engine.step()
    assert engine.statistics().running == 8


def test_who_comes_in_does_not_take_the_page_that_another_needs_next() -> None:
    """Nine pages would do for both; eight would for the prompts alone, and then one must go."""
    for pages, running in ((9, 2), (8, 1)):
        engine = FakeEngine(FakeOptions(cache_tokens=pages * 16))
        engine.submit(request("a", numbers(1, 60), 16))
        engine.submit(request("b", numbers(2, 60), 4))
        engine.step()
        assert engine.statistics().running == running
        finish(engine)
        assert engine.statistics().preemptions == 0


def test_the_newest_gives_its_pages_up_and_goes_on_as_if_nothing_had_been() -> None:
    wanted = {}
    requests = [request(str(n), numbers(n, 60), 200) for n in range(4)]
    for one in requests:
        alone = FakeEngine(FakeOptions())
        alone.submit(one)
        wanted[one.request_id] = [o for _ in range(400) for o in alone.step()]
    engine = FakeEngine(FakeOptions(cache_tokens=512))
    for one in requests:
        engine.submit(one)
    got: dict[str, list[object]] = {one.request_id: [] for one in requests}
    ends = []
    while engine.has_work:
        for output in engine.step():
            got[output.request_id].append(output)
            if isinstance(output, Ended):
                ends.append(output.request_id)
    assert got == wanted
    assert ends == ["0", "1", "2", "3"]
    statistics = engine.statistics()
    assert statistics.preemptions > 0
    assert statistics.prefix_hit_tokens > 0, "what a preempted request left was found again"
    assert statistics.prompt_tokens == 4 * 60, "reading again is not counted again"
    assert statistics.generated_tokens == 4 * 200


def test_cancelling_between_schedule_and_advance_frees_at_once() -> None:
    scheduler = Scheduler(SchedulerLimits(1024, 1024, 4, 100, 256))
    scheduler.submit(request("a", numbers(1, 50)))
    scheduler.submit(request("b", numbers(2, 50)))
    work = scheduler.schedule()
    assert [item.wants_token for item in work] == [True, True]
    scheduler.cancel("a")
    assert scheduler.statistics().pages_used == 4
    assert scheduler.advance(work, [[5], [6]]) == [Generated("b", 0, 6)]
    scheduler.cancel("b")
    assert not scheduler.has_work
    assert scheduler.advance(scheduler.schedule(), []) == []


def test_a_client_with_many_requests_gets_no_more_than_one_with_few() -> None:
    engine = FakeEngine(FakeOptions(running=4, step_tokens=32))
    sent: Counter[str] = Counter()
    made: Counter[str] = Counter()

    def submit(client: str) -> None:
        sent[client] += 1
        name = f"{client}{sent[client]}"
        engine.submit(request(name, numbers(sent[client], 64), 16, client))

    for client in "a" * 20 + "b" * 2:
        submit(client)
    for _ in range(600):
        for output in engine.step():
            client = output.request_id[0]
            if isinstance(output, Generated):
                made[client] += 1
            else:
                submit(client)
    assert abs(made["a"] - made["b"]) < 0.15 * made["a"]


def test_a_newcomer_waits_for_one_step_of_a_long_prompt_not_for_all_of_it() -> None:
    engine = FakeEngine(FakeOptions(step_tokens=32, context_length=4096))
    engine.submit(request("long", numbers(1, 3000), client="a"))
    for _ in range(5):
        engine.step()
    engine.submit(request("short", numbers(2, 30), client="b"))
    first = next(step for step in range(100) if engine.step())
    assert first <= 2


def test_a_large_request_is_not_starved_by_a_stream_of_small_ones() -> None:
    engine = FakeEngine(FakeOptions(running=8, cache_tokens=512))
    made = {"steps": 0}

    def small(step: int) -> None:
        for client in ("x", "y"):
            engine.submit(request(f"{client}{step}", numbers(step, 40), 6, client))

    for step in range(5):
        small(step)
    engine.submit(request("large", numbers(9, 450), 40, "z"))
    ended = False
    for step in range(5, 400):
        small(step)
        ended |= any(o == Ended("large", "length") for o in engine.step())
        made["steps"] = step
        if ended:
            break
    assert ended
    assert made["steps"] < 200


def test_nobody_is_starved_by_ever_new_names() -> None:
    engine = FakeEngine(FakeOptions(running=2, step_tokens=32))
    for name in ("b1", "b2", "b3"):
        engine.submit(request(name, numbers(1, 60), client="b"))
    ended: set[str] = set()
    for step in range(300):
        for copy in range(9 - engine.statistics().running - engine.statistics().waiting):
            name = f"n{step}-{copy}"
            engine.submit(request(name, numbers(step, 40), client=name))
        ended |= {o.request_id for o in engine.step() if isinstance(o, Ended)}
    assert len(ended) > 50
    assert {"b1", "b2", "b3"} <= ended


def test_full_contexts_in_all_slots_run_at_once_where_the_pool_was_made_for_them() -> None:
    engine = FakeEngine(FakeOptions(256, 100, cache_tokens=4 * 112, running=4, step_tokens=64))
    for number in range(9):
        engine.submit(request(str(number), numbers(number, 99 - number), 1 + number))
    engine.step()
    assert engine.statistics().running == 4
    assert len(finish(engine)) == 9
    assert engine.statistics().preemptions == 0


def test_having_been_away_earns_nothing_and_leaving_forgives_nothing() -> None:
    shares = Shares()
    shares.enter("a")
    shares.charge("a", 100)
    shares.enter("late")
    assert shares.served("late") == 100
    shares.charge("late", 50)
    shares.leave("late")
    shares.enter("late")
    assert shares.served("late") == 150
    shares.leave("late")
    shares.charge("a", 500)
    shares.enter("late")
    assert shares.served("late") == 625, "more than the 600 of the one that stayed"


def test_clients_that_left_are_forgotten_when_it_no_longer_matters() -> None:
    shares = Shares()
    shares.enter("stays")
    for number in range(5_000):
        shares.enter(str(number))
        shares.charge(str(number), 1)
        shares.leave(str(number))
    assert len(shares._served) <= 1025
    shares.leave("stays")
    assert shares._served == {}


def test_prompts_have_a_larger_budget_while_no_answer_waits_for_them() -> None:
    limits = SchedulerLimits(1024, 2048, 4, 32, 256, prompt_tokens=128)
    scheduler = Scheduler(limits)
    scheduler.submit(request("a", numbers(1, 200)))
    counts = []
    for chosen in ([], [[5]]):
        work = scheduler.schedule()
        counts.append([item.count for item in work])
        scheduler.advance(work, chosen)
    scheduler.submit(request("b", numbers(2, 200)))
    counts.append([item.count for item in scheduler.schedule()])
    assert counts == [[128], [72], [1, 31]]
