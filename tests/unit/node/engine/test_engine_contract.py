"""What every engine guarantees; runs over the fake one and the one that computes."""

import random
from collections.abc import Sequence
from typing import Any

import pytest

from node.engine.base import Ended, Engine, EngineRequest, Generated
from protocols.errors import ProtocolError, TooLong, Unsupported
from protocols.messages.ask import Sampling

GREEDY = Sampling()
SAMPLED = Sampling(temperature=0.9, top_k=40, top_p=0.95, seed=11)


def request(
    request_id: str = "a",
    prompt: Sequence[int] = (3, 1, 4, 1, 5),
    max_tokens: int = 12,
    sampling: Sampling = GREEDY,
    stop_ids: Sequence[int] = (),
    delivered: Sequence[int] = (),
) -> EngineRequest:
    return EngineRequest(
        request_id, tuple(prompt), max_tokens, sampling, frozenset(stop_ids), tuple(delivered)
    )


def run(engine: Engine, *requests: EngineRequest) -> dict[str, list[int]]:
    """Answers by request id; checks positions, and that each request ends exactly once."""
    answers = {r.request_id: list(r.delivered) for r in requests}
    ended: set[str] = set()
    for one in requests:
        engine.submit(one)
    for _ in range(10_000):
        if not engine.has_work:
            break
        for output in engine.step():
            assert output.request_id not in ended
            match output:
                case Generated(request_id, position, token_id):
                    assert position == len(answers[request_id])
                    answers[request_id].append(token_id)
                case Ended(request_id):
                    ended.add(request_id)
    assert ended == answers.keys()
    assert list(engine.step()) == []
    return answers


def mixed_prompts(count: int) -> list[tuple[int, ...]]:
    rng = random.Random(5)
    return [tuple(rng.randrange(61) for _ in range(rng.randrange(1, 70))) for _ in range(count)]


def test_an_answer_has_max_tokens_and_ends_with_length(make_engine: Any) -> None:
    engine = make_engine()
    assert engine.context_length == 128
    engine.submit(request(max_tokens=5))
    outputs = [output for _ in range(20) for output in engine.step()]
    assert [o.position for o in outputs[:-1]] == [0, 1, 2, 3, 4]
    assert outputs[-1] == Ended("a", "length")
    assert not engine.has_work


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_an_answer_does_not_depend_on_the_batch(make_engine: Any, sampling: Sampling) -> None:
    prompts = mixed_prompts(8)
    requests = [request(str(i), p, 20, sampling) for i, p in enumerate(prompts)]
    together = run(make_engine(), *requests)
    for one in requests:
        assert run(make_engine(), one)[one.request_id] == together[one.request_id]
    assert len({tuple(answer) for answer in together.values()}) == 8


@pytest.mark.parametrize("step_tokens", [1, 3, 64, 1000])
def test_an_answer_does_not_depend_on_how_its_prompt_is_cut(
    make_engine: Any, step_tokens: int
) -> None:
    one = request(prompt=mixed_prompts(3)[1] + (7,) * 40)
    assert run(make_engine(step_tokens=step_tokens), one) == run(make_engine(), one)


def test_a_later_request_joins_between_steps(make_engine: Any) -> None:
    alone = run(make_engine(), request("b", (9, 8, 7)))["b"]
    engine = make_engine()
    engine.submit(request("a", max_tokens=30))
    for _ in range(4):
        engine.step()
    engine.submit(request("b", (9, 8, 7)))
    tokens = [o for _ in range(40) for o in engine.step() if isinstance(o, Generated)]
    assert [o.token_id for o in tokens if o.request_id == "b"] == alone


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("cut", [0, 1, 5, 11])
def test_another_engine_carries_an_answer_on(
    make_engine: Any, sampling: Sampling, cut: int
) -> None:
    whole = run(make_engine(), request(sampling=sampling))["a"]
    resumed = request(sampling=sampling, delivered=whole[:cut])
    assert run(make_engine(), resumed)["a"] == whole


def test_an_answer_that_was_delivered_whole_ends_at_once(make_engine: Any) -> None:
    engine = make_engine()
    engine.submit(request(max_tokens=3, delivered=(1, 2, 3)))
    assert engine.has_work
    assert list(engine.step()) == [Ended("a", "length")]
    assert not engine.has_work


def test_seeds_make_different_answers_and_the_same_seed_the_same(make_engine: Any) -> None:
    seeds = [Sampling(temperature=1.5, seed=seed) for seed in (1, 2, 1)]
    first, second, third = (run(make_engine(), request(sampling=s))["a"] for s in seeds)
    assert first == third
    assert first != second


def test_generation_ends_before_a_stop_id_which_is_not_emitted(make_engine: Any) -> None:
    whole = run(make_engine(), request())["a"]
    stop = whole[6]
    engine = make_engine()
    engine.submit(request(stop_ids=[stop]))
    outputs = [output for _ in range(30) for output in engine.step()]
    assert [o.token_id for o in outputs[:-1]] == whole[: whole.index(stop)]
    assert outputs[-1] == Ended("a", "stop")
    assert engine.statistics().cache_tokens_used == 0


@pytest.mark.parametrize(("prompt_length", "max_tokens"), [(129, 1), (100, 29), (1, 128)])
def test_what_cannot_fit_the_context_is_refused_with_the_figures(
    make_engine: Any, prompt_length: int, max_tokens: int
) -> None:
    engine = make_engine()
    with pytest.raises(TooLong) as caught:
        engine.submit(request(prompt=(1,) * prompt_length, max_tokens=max_tokens))
    assert (caught.value.limit, caught.value.requested) == (128, prompt_length + max_tokens)
    assert not engine.has_work


def test_what_exactly_fits_the_context_is_answered(make_engine: Any) -> None:
    assert len(run(make_engine(), request(prompt=(1,) * 100, max_tokens=28))["a"]) == 28


def test_a_cache_smaller_than_the_context_bounds_requests(make_engine: Any) -> None:
    engine = make_engine(cache_tokens=50)
    assert engine.context_length == 50
    with pytest.raises(TooLong):
        engine.submit(request(prompt=(1,) * 40, max_tokens=11))


def test_an_empty_prompt_is_refused(make_engine: Any) -> None:
    with pytest.raises(Unsupported):
        make_engine().submit(request(prompt=()))


@pytest.mark.parametrize("bad", [61, 2**31 - 1, -1])
def test_ids_outside_the_vocabulary_are_refused(make_engine: Any, bad: int) -> None:
    engine = make_engine()
    with pytest.raises(ProtocolError):
        engine.submit(request(delivered=(1, bad)))
    with pytest.raises(ProtocolError):
        engine.submit(request(prompt=(bad,)))
    assert not engine.has_work


def test_a_request_id_is_used_once_at_a_time(make_engine: Any) -> None:
    engine = make_engine(running=1)
    engine.submit(request("a"))
    engine.submit(request("b"))
    engine.step()
    for used in ("a", "b"):
        with pytest.raises(ProtocolError):
            engine.submit(request(used))


def test_cancelling_frees_everything_and_leaves_the_others_alone(make_engine: Any) -> None:
    expected = run(make_engine(), request("b", (2, 7)))["b"]
    engine = make_engine(running=2)
    for one in (request("a"), request("b", (2, 7)), request("waiting")):
        engine.submit(one)
    got = [o for _ in range(3) for o in engine.step() if o.request_id == "b"]
    engine.cancel("a")
    engine.cancel("waiting")
    engine.cancel("never there")
    statistics = engine.statistics()
    assert (statistics.running, statistics.waiting) == (1, 0)
    assert (statistics.pages_used, statistics.cache_tokens_used) == (1, 16)
    rest = [o for _ in range(30) for o in engine.step()]
    assert {o.request_id for o in rest} == {"b"}
    assert [o.token_id for o in [*got, *rest] if isinstance(o, Generated)] == expected
    assert engine.statistics().cache_tokens_used == 0


def test_a_cancelled_id_can_be_used_again(make_engine: Any) -> None:
    engine = make_engine()
    expected = run(make_engine(), request("a", (4, 4, 4)))
    engine.submit(request("a"))
    engine.step()
    engine.cancel("a")
    assert run(engine, request("a", (4, 4, 4))) == expected


def test_nobody_overtakes_a_request_that_waits_for_room(make_engine: Any) -> None:
    engine = make_engine(cache_tokens=100)
    engine.submit(request("first", (1,) * 50, 20))
    engine.submit(request("large", (2,) * 50, 20))
    engine.submit(request("small", (3,), 4))
    engine.step()
    statistics = engine.statistics()
    assert (statistics.running, statistics.waiting) == (1, 2)
    order = [o.request_id for _ in range(200) for o in engine.step() if isinstance(o, Ended)]
    assert order.index("first") < order.index("large")
    assert set(order) == {"first", "large", "small"}


def test_no_more_than_the_agreed_number_run_at_once(make_engine: Any) -> None:
    engine = make_engine(running=3)
    for number in range(8):
        engine.submit(request(str(number)))
    engine.step()
    assert (engine.statistics().running, engine.statistics().waiting) == (3, 5)


def test_a_long_prompt_does_not_stall_answers_under_way(make_engine: Any) -> None:
    engine = make_engine(step_tokens=8)
    engine.submit(request("short", (1, 2), 40))
    engine.step()
    engine.submit(request("long", (5,) * 100, 4))
    for _ in range(13):
        assert [o.request_id for o in engine.step()] == ["short"]
    later = [o.request_id for _ in range(4) for o in engine.step()]
    assert "long" in later


def test_statistics_count_tokens(make_engine: Any) -> None:
    engine = make_engine()
    run(engine, request("a", (1, 2, 3), 5), request("b", (1,), 4, delivered=(9,)))
    statistics = engine.statistics()
    assert statistics.prompt_tokens == 3 + 1 + 1
    assert statistics.generated_tokens == 5 + 3
    assert statistics.cache_tokens_total == 2048
