import threading
from dataclasses import replace

import pytest
import torch

from node.engine.adapters.frozen import frozen_a
from node.engine.adapters.registry import BASE, AdapterSet
from node.engine.adapters.weights import Adapter, LowRank, complaints, start_of
from node.engine.base import AdapterUse, Ended, EngineRequest
from node.engine.errors import UnknownAdapter
from node.engine.model import LlamaModel
from node.engine.torch_engine import EngineOptions, TorchEngine
from node.engine.weights.quantise import quantise_int8
from protocols.errors import NotHere, ProtocolError, TooLong
from protocols.messages.ask import Sampling
from tests.unit.node.engine.adapters.adapter_referee import random_adapter
from tests.unit.node.engine.conftest import TINY, RandomWeights

ONE, TWO = (random_adapter(TINY, seed) for seed in (1, 2))


def make_set(*loaded: Adapter) -> AdapterSet:
    adapters = AdapterSet(TINY, torch.float32)
    for adapter in loaded:
        adapters.load(adapter)
    return adapters


def make_engine(adapters: AdapterSet) -> TorchEngine:
    model = LlamaModel(TINY, RandomWeights(TINY, 7), torch.float32, 128)
    return TorchEngine(model, EngineOptions(128, 512), adapters)


def request(
    name: str, digest: str, *, start: int = 0, length: int = 3, given: tuple[int, ...] = ()
) -> EngineRequest:
    prompt = tuple(range(1, 1 + length))
    use = AdapterUse(digest, start)
    return EngineRequest(name, prompt, 4, Sampling(), frozenset(), given, adapter=use)


def test_an_unloaded_adapter_stays_for_those_who_have_it() -> None:
    adapters = make_set(ONE)
    first, second = adapters.acquire(ONE.digest), adapters.acquire(ONE.digest)
    size = adapters.size
    adapters.unload(ONE.digest)
    with pytest.raises(UnknownAdapter):
        adapters.acquire(ONE.digest)
    assert adapters.digests == frozenset()
    adapters.release(first)
    assert adapters.size == size
    assert adapters.plan([second]) is not None
    adapters.release(second)
    assert adapters.size == 0


def test_an_adapter_that_comes_back_while_it_is_leaving_is_another_one() -> None:
    adapters = make_set(ONE)
    old = adapters.acquire(ONE.digest)
    adapters.unload(ONE.digest)
    adapters.load(ONE)
    new = adapters.acquire(ONE.digest)
    assert new != old
    adapters.release(old)
    assert adapters.plan([new]) is not None
    adapters.unload(ONE.digest)
    adapters.release(new)
    assert adapters.size == 0


def test_loading_twice_and_unloading_what_is_not_there_are_harmless() -> None:
    adapters = make_set(ONE)
    size = adapters.size
    adapters.load(ONE)
    adapters.unload("nobody")
    assert adapters.size == size
    adapters.unload(ONE.digest)
    adapters.unload(ONE.digest)
    assert adapters.size == 0


def test_slots_are_used_again_and_given_back() -> None:
    many = [random_adapter(TINY, seed, shared_a=5) for seed in range(6)]
    adapters = make_set(*many)
    full = adapters.size
    for one in many[1:5]:
        adapters.unload(one.digest)
    assert adapters.size == full, "the last slot is in use, so the holes stay"
    adapters.load(many[1])
    adapters.load(ONE)
    adapters.unload(many[5].digest)
    adapters.unload(ONE.digest)
    small = make_set(many[0], many[1]).size
    assert adapters.size == small


def test_the_engine_refuses_what_is_not_loaded() -> None:
    engine = make_engine(make_set(ONE))
    with pytest.raises(UnknownAdapter, match="not loaded"):
        engine.submit(request("a", TWO.digest))
    assert issubclass(UnknownAdapter, NotHere)
    assert not engine.has_work
    engine.submit(request("a", ONE.digest))


def test_an_adapter_cannot_begin_before_the_prompt() -> None:
    engine = make_engine(make_set(ONE))
    with pytest.raises(ProtocolError):
        engine.submit(request("a", ONE.digest, start=-1))


@pytest.mark.parametrize("way", ["end", "cancel", "arrival", "refused"])
def test_whatever_becomes_of_a_request_its_adapter_is_released(way: str) -> None:
    adapters = make_set(ONE)
    engine = make_engine(adapters)
    if way == "refused":
        with pytest.raises(TooLong):
            engine.submit(request("a", ONE.digest, length=500))
    else:
        engine.submit(request("a", ONE.digest, given=(1, 2, 3, 4) if way == "arrival" else ()))
        engine.step()
    adapters.unload(ONE.digest)
    if way == "end":
        assert adapters.size > 0
        while engine.has_work:
            engine.step()
    if way == "cancel":
        engine.cancel("a")
    assert adapters.size == 0


def test_two_requests_of_one_id_do_not_confuse_the_count() -> None:
    adapters = make_set(ONE)
    engine = make_engine(adapters)
    engine.submit(request("a", ONE.digest))
    with pytest.raises(ProtocolError):
        engine.submit(request("a", ONE.digest))
    engine.cancel("a")
    engine.cancel("a")
    adapters.unload(ONE.digest)
    assert adapters.size == 0


def test_an_answer_goes_on_while_its_adapter_is_unloaded_and_others_come() -> None:
    adapters = make_set(ONE)
    engine = make_engine(adapters)
    engine.submit(request("undisturbed", ONE.digest))
    wanted = _tokens(engine)
    engine.submit(request("a", ONE.digest))
    engine.step()
    adapters.unload(ONE.digest)
    adapters.load(TWO)
    adapters.load(random_adapter(TINY, 3, shared_a=1))
    engine.submit(request("b", TWO.digest))
    assert _tokens(engine, "a") == wanted[1:]
    assert adapters.digests == {TWO.digest, random_adapter(TINY, 3, shared_a=1).digest}


def test_another_thread_may_load_and_unload_while_batches_are_computed() -> None:
    adapters = make_set(random_adapter(TINY, 50), ONE, random_adapter(TINY, 51))
    engine = make_engine(adapters)
    engine.submit(request("undisturbed", ONE.digest))
    wanted = _tokens(engine)
    others = [random_adapter(TINY, seed) for seed in range(50, 56)]
    over = threading.Event()

    def churn() -> None:
        while not over.is_set():
            for one in others:
                adapters.unload(one.digest)
            for one in others:
                adapters.load(one)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for turn in range(40):
            engine.submit(request(str(turn), ONE.digest))
            assert _tokens(engine, str(turn)) == wanted
    finally:
        over.set()
        thread.join()


def _tokens(engine: TorchEngine, name: str = "undisturbed") -> list[int]:
    tokens: list[int] = []
    while engine.has_work:
        for output in engine.step():
            if not isinstance(output, Ended) and output.request_id == name:
                tokens.append(output.token_id)
    return tokens


def _changed(part: LowRank) -> Adapter:
    return replace(ONE, parts={**ONE.parts, (0, "query"): part})


A, B = torch.ones(4, 32), torch.ones(32, 4)


@pytest.mark.parametrize(
    ("adapter", "about"),
    [
        (Adapter("x", {}), "no weight"),
        (Adapter("x", {(2, "query"): LowRank(A, B, 1.0)}), "layers.2.query"),
        (_changed(LowRank(A[:, :31], B, 1.0)), "does not fit"),
        (_changed(LowRank(A, B[:31], 1.0)), "does not fit"),
        (_changed(LowRank(A, B[:, :3], 1.0)), "rank 4"),
        (_changed(LowRank(A, quantise_int8(B[:, :3]), 1.0)), "rank 4"),
        (_changed(LowRank(A * torch.nan, B, 1.0)), "not made of numbers"),
        (_changed(LowRank(A, B, float("inf"))), "not made of numbers"),
    ],
)
def test_what_does_not_fit_the_model_is_not_loaded(adapter: Adapter, about: str) -> None:
    assert about in next(complaints(adapter, TINY))
    adapters = make_set()
    with pytest.raises(ValueError, match=about):
        adapters.load(adapter)
    assert adapters.size == 0


def test_base_rows_come_first() -> None:
    adapters = make_set(ONE, TWO)
    handles = [adapters.acquire(one.digest) for one in (TWO, ONE)]
    assert sorted([*handles, BASE], key=adapters.order) == [BASE, handles[1], handles[0]]


@pytest.mark.parametrize(
    ("invocation", "prompt", "start"),
    [
        ((), (1, 2, 3), 0),
        ((2, 3), (1, 2, 3), 1),
        ((2, 3), (2, 3, 1, 2, 3, 9), 3),
        ((2, 3), (1, 3, 2), None),
        ((1, 1), (1, 1, 1), 1),
        ((1, 2, 3, 4), (1, 2, 3), None),
    ],
)
def test_the_last_invocation_counts(
    invocation: tuple[int, ...], prompt: tuple[int, ...], start: int | None
) -> None:
    assert start_of(invocation, prompt) == start


def test_a_frozen_a_is_the_same_everywhere() -> None:
    """Numbers written down once, so that no library and no machine may change them unnoticed."""
    a = frozen_a(1234, "layers.0.query_key_value", 4, 32)
    assert a[0, :4].tolist() == [-0.318359375, -0.134765625, 0.12060546875, 0.0238037109375]
    assert torch.equal(a, a.bfloat16().float())
    torch.testing.assert_close(a @ a.t(), torch.eye(4), rtol=0, atol=0.01)
    assert not torch.equal(a, frozen_a(1235, "layers.0.query_key_value", 4, 32))
    assert not torch.equal(a, frozen_a(1234, "layers.1.query_key_value", 4, 32))
    with pytest.raises(ValueError, match="orthogonal"):
        frozen_a(1, "x", 33, 32)
