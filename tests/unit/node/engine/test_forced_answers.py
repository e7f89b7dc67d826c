"""Answers whose ids are given: each comes out with its likelihood, nothing else is disturbed."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from node.engine.adapters.registry import AdapterSet
from node.engine.base import AdapterUse, Ended, Engine, EngineRequest, Generated
from node.engine.batch import CPU
from node.engine.fake import FakeEngine, FakeOptions, fake_token
from node.engine.model import LlamaModel
from node.engine.sequence import FORCED_ROWS_MAX
from node.engine.torch_engine import EngineOptions, TorchEngine
from protocols.errors import ProtocolError, TooLong
from protocols.messages.ask import Sampling
from tests.unit.node.engine.adapters.adapter_referee import hooks, random_adapter
from tests.unit.node.engine.conftest import CONTEXT, TINY, MakeEngine, RandomWeights
from tests.unit.node.engine.test_model import reference

WEIGHTS = RandomWeights(TINY, 11)
ADAPTER = random_adapter(TINY, 5)
RANDOM = random.Random(3)
PROMPT = tuple(RANDOM.choices(range(61), k=40))
GIVEN = tuple(RANDOM.choices(range(61), k=50))


def forced(
    request_id: str = "f", prompt: Sequence[int] = PROMPT, ids: Sequence[int] = GIVEN
) -> EngineRequest:
    return EngineRequest(
        request_id, tuple(prompt), len(ids), Sampling(), frozenset(ids[:3]), forced=tuple(ids)
    )


def asked(request_id: str, prompt: Sequence[int], max_tokens: int = 20) -> EngineRequest:
    return EngineRequest(request_id, tuple(prompt), max_tokens, Sampling(), frozenset())


def torch_engine(*, step_tokens: int = 16, cache_tokens: int = 2048) -> TorchEngine:
    model = LlamaModel(TINY, WEIGHTS, torch.float32, CONTEXT)
    adapters = AdapterSet(TINY, torch.float32, CPU)
    adapters.load(ADAPTER)
    return TorchEngine(model, EngineOptions(CONTEXT, cache_tokens, 8, step_tokens), adapters)


def judged(prompt: Sequence[int], ids: Sequence[int], start: int | None = None) -> list[float]:
    """What transformers says of `ids`, with the adapter from position `start` on."""
    judge = reference(TINY, WEIGHTS)
    with hooks(judge, None if start is None else ADAPTER, start or 0), torch.inference_mode():
        logits = judge(torch.tensor([[*prompt, *ids]]), use_cache=False).logits[0].double()
    rows = logits.log_softmax(-1)[len(prompt) - 1 : -1]
    return [float(row[token]) for row, token in zip(rows, ids, strict=True)]


def told(
    engine: Engine, *requests: EngineRequest, preempts: bool = False
) -> dict[str, list[float]]:
    """The likelihoods of forced answers; checks that each id comes once, in its place."""
    found: dict[str, list[float]] = {one.request_id: [] for one in requests if one.forced}
    ids = {one.request_id: one.forced for one in requests}
    for one in requests:
        engine.submit(one)
    steps = 0
    while engine.has_work:
        for output in engine.step():
            if not ids[output.request_id]:
                continue
            match output:
                case Generated(name, position, token_id, likelihood):
                    assert position == len(found[name])
                    assert token_id == ids[name][position]
                    assert likelihood is not None
                    found[name].append(likelihood.logprob)
                case Ended(name, reason):
                    assert reason == "length"
                    assert len(found[name]) == len(ids[name])
        steps += 1
        if preempts and isinstance(engine, TorchEngine) and steps % 4 == 0:
            for sequence in list(engine._scheduler._running.values())[:1]:
                engine._scheduler._preempt(sequence)
    return found


@pytest.mark.parametrize("count", [1, 2, 50])
@pytest.mark.parametrize("length", [1, 40])
def test_likelihoods_are_those_of_transformers(length: int, count: int) -> None:
    prompt, ids = PROMPT[:length], GIVEN[:count]
    found = told(torch_engine(), forced(prompt=prompt, ids=ids))["f"]
    assert found == pytest.approx(judged(prompt, ids), abs=1e-4)


@pytest.mark.parametrize("start", [0, 35, None])
@pytest.mark.parametrize("preempts", [False, True])
def test_also_beside_other_answers_in_chunks_and_under_an_adapter(
    start: int | None, preempts: bool
) -> None:
    use = None if start is None else AdapterUse(ADAPTER.digest, start)
    one = replace(forced(), adapter=use)
    others = [
        asked("a", PROMPT[:20]),
        replace(asked("b", PROMPT), adapter=AdapterUse(ADAPTER.digest)),
    ]
    engine = torch_engine(step_tokens=9)
    found = told(engine, others[0], one, others[1], preempts=preempts)["f"]
    assert found == pytest.approx(judged(PROMPT, GIVEN, start), abs=1e-4)
    assert engine.statistics().pages_used == 0
    assert (engine.statistics().preemptions > 0) == preempts


def answers(engine: Engine, *requests: EngineRequest) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {one.request_id: [] for one in requests}
    for one in requests:
        engine.submit(one)
    while engine.has_work:
        for output in engine.step():
            if isinstance(output, Generated):
                found[output.request_id].append(output.token_id)
    return found


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0.9, seed=4, logprobs=1)])
def test_other_answers_are_not_disturbed(make_engine: MakeEngine, sampling: Sampling) -> None:
    others = [replace(asked(str(n), PROMPT[: 9 * n + 5]), sampling=sampling) for n in range(4)]
    alone = answers(make_engine(), *others)
    beside = answers(make_engine(step_tokens=7), forced("x"), *others, forced("y", PROMPT[:7]))
    assert {name: beside[name] for name in alone} == alone
    assert tuple(beside["x"]) == GIVEN


def test_the_prompt_comes_from_the_cache_but_no_forced_token_does() -> None:
    """Also if somebody got just this answer before: pages do not say how likely it was."""
    engine = torch_engine()
    wanted = told(engine, forced("a"))["a"]
    assert engine.statistics().prefix_hit_tokens == 0
    again = told(engine, forced("b"))["b"]
    assert again == pytest.approx(wanted, abs=1e-5)
    assert engine.statistics().prefix_hit_tokens == 32, "two of the prompt's pages, none of five"
    answers(engine, asked("c", PROMPT + GIVEN[:30]))
    assert engine.statistics().prefix_hit_tokens == 32 + 64, "it is a prompt like any other now"


def test_an_activated_adapters_prompt_is_the_bases_own() -> None:
    engine = torch_engine()
    answers(engine, replace(asked("a", PROMPT), adapter=AdapterUse(ADAPTER.digest, 35)))
    told(engine, forced())
    assert engine.statistics().prefix_hit_tokens == 32


@pytest.mark.parametrize(("client", "tenant"), [("bob", ""), ("alice", "2"), ("", "")])
def test_nobody_else_finds_what_was_forced(client: str, tenant: str) -> None:
    engine = torch_engine()
    told(engine, replace(forced("a"), client="alice", tenant="1"))
    told(engine, replace(forced("b"), client=client, tenant=tenant))
    told(engine, replace(forced("c", PROMPT + GIVEN[:20], GIVEN[:2]), client=client, tenant=tenant))
    assert engine.statistics().prefix_hit_tokens == 48, "of its own only"


def test_two_at_once_with_the_same_beginning_both_end(make_engine: MakeEngine) -> None:
    found = told(make_engine(), forced("a"), forced("b"), forced("c", ids=GIVEN[:9]))
    assert found["a"] == pytest.approx(found["b"], abs=1e-5)
    assert found["a"][:9] == pytest.approx(found["c"], abs=1e-5)


def test_a_forced_answer_that_is_cancelled_leaves_nothing(make_engine: MakeEngine) -> None:
    for steps in range(6):
        engine = make_engine()
        engine.submit(forced())
        for _ in range(steps):
            engine.step()
        engine.cancel("f")
        assert not engine.has_work
        assert engine.statistics().pages_used == 0


def test_few_rows_of_logits_are_computed_in_a_step() -> None:
    options = FakeOptions(context_length=1_000, step_tokens=512)
    engine = FakeEngine(options)
    engine.submit(forced(ids=[1] * 300))
    counts = []
    while engine.has_work:
        counts.append(sum(isinstance(output, Generated) for output in engine.step()))
    assert max(counts) == FORCED_ROWS_MAX
    assert sum(counts) == 300


def test_all_requests_together_have_so_many_rows_of_logits_in_a_step() -> None:
    engine = FakeEngine(FakeOptions(context_length=1_000, running=16, step_tokens=4_096))
    wanted = {f"{number:02}": 100 + number for number in range(12)}
    for name, length in wanted.items():
        engine.submit(forced(name, [ord(name[-1]), *PROMPT], [1] * length))
    told_of: Counter[str] = Counter()
    while engine.has_work:
        rows = Counter(one.request_id for one in engine.step() if isinstance(one, Generated))
        chunks = rows.total() - sum(told_of[name] + 1 == wanted[name] for name in rows)
        assert chunks <= FORCED_ROWS_MAX
        told_of += rows
    assert told_of == wanted
    assert engine.statistics().preemptions == 0


def test_the_likeliest_others_come_along_if_they_are_wanted() -> None:
    engine = torch_engine()
    engine.submit(replace(forced(ids=[7]), sampling=Sampling(logprobs=3, temperature=1.0)))
    generated = [o for _ in range(9) for o in engine.step() if isinstance(o, Generated)]
    (one,) = generated
    assert one.likelihood is not None
    assert len(one.likelihood.top) == 3


def test_a_fake_engine_finds_unlikely_what_it_would_not_say() -> None:
    right = [fake_token(PROMPT, n, -1, 256) for n in range(3)]
    found = told(FakeEngine(FakeOptions()), forced(ids=[right[0], right[1] ^ 1, right[2]]))["f"]
    assert found == [0.0, -5.0, 0.0]


@pytest.mark.parametrize(
    ("one", "error"),
    [
        (replace(forced(), delivered=(1,)), ProtocolError),
        (replace(forced(), max_tokens=3), ProtocolError),
        (forced(ids=[61]), ProtocolError),
        (forced(ids=[-1]), ProtocolError),
        (forced(ids=[1] * 100), TooLong),
    ],
)
def test_what_makes_no_sense_is_refused(
    make_engine: MakeEngine, one: EngineRequest, error: type[Exception]
) -> None:
    engine = make_engine()
    with pytest.raises(error):
        engine.submit(one)
    assert not engine.has_work
