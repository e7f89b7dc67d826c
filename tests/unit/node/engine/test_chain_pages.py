"""Steps of a task on one base: what they share, on one engine and from one engine to another."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from node.engine.base import AdapterUse, Ended, EngineRequest, Generated, PageOwner
from node.engine.model import LlamaModel
from node.engine.page_block import PageBlock, decode_block, encode_block
from node.engine.pages import PAGE_SIZE
from node.engine.torch_engine import EngineOptions, TorchEngine
from protocols.messages.ask import Sampling
from protocols.messages.memory import Encoding
from tests.unit.node.engine.adapters.adapter_referee import random_adapter
from tests.unit.node.engine.conftest import TINY, RandomWeights

PROMPT = tuple((7 * at * at + 3 * at) % 50 for at in range(70))
CHAIN = "ticket"


def make_engine(
    cache_tokens: int = 512, *, is_cache_quantised: bool = False, is_cache_shared: bool = False
) -> TorchEngine:
    model = LlamaModel(TINY, RandomWeights(TINY, seed=7), torch.float32, 128)
    options = EngineOptions(
        128,
        cache_tokens,
        8,
        32,
        is_cache_quantised=is_cache_quantised,
        is_cache_shared=is_cache_shared,
    )
    engine = TorchEngine(model, options)
    for seed in (1, 2):
        engine._adapters.load(replace(random_adapter(TINY, seed), digest=f"adapter {seed}"))
    return engine


def request(
    name: str, prompt: Sequence[int], adapter: int = 0, start: int = 0, chain: str = CHAIN
) -> EngineRequest:
    use = AdapterUse(f"adapter {adapter}", start) if adapter else None
    return EngineRequest(
        name, tuple(prompt), 12, Sampling(), frozenset(), adapter=use, chain=chain, client="c"
    )


def answer(engine: TorchEngine, asked: EngineRequest) -> tuple[list[int], int]:
    """The tokens, and how many of the prompt were reused."""
    engine.submit(asked)
    tokens: list[int] = []
    while True:
        for output in engine.step():
            if isinstance(output, Generated):
                tokens.append(output.token_id)
            else:
                return tokens, output.reused_tokens


def owner(chain: str = CHAIN) -> PageOwner:
    return PageOwner("c", "", chain)


def carry(one: TorchEngine, other: TorchEngine, encoding: Encoding, first: int, count: int) -> int:
    block = one.exchange(owner(), PROMPT).read(first, count)
    assert block is not None
    shape = tuple(block.keys.shape)
    assert len(shape) == 4
    moved = decode_block(encode_block(block, encoding), shape, encoding)
    return other.exchange(owner(), PROMPT).write(first, moved)


@pytest.mark.parametrize("start", [64, 69, 70])
def test_a_step_computes_the_answer_before_it_anew_and_the_prompt_not(start: int) -> None:
    engine = make_engine()
    first, reused = answer(engine, request("1", PROMPT, 1, start))
    assert reused == 0
    transcript = [*PROMPT, *first, 5, 6, 7]
    for name, adapter in (("2", 2), ("3", 0), ("4", 1)):
        asked = request(name, transcript, adapter, len(transcript) - 1)
        tokens, reused = answer(engine, asked)
        # Step 1's own pages end where its adapter begins; steps after the second find all.
        assert reused == (start if name == "2" else len(transcript) - 1) // PAGE_SIZE * PAGE_SIZE
        assert tokens == answer(make_engine(), asked)[0]


def test_pages_are_there_before_the_answer_ends() -> None:
    engine = make_engine()
    engine.submit(request("1", PROMPT, 1, len(PROMPT)))
    while not any(isinstance(output, Generated) for output in engine.step()):
        pass
    assert engine.exchange(owner(), PROMPT).missing(5).start == 4


@pytest.mark.parametrize("adapter", [0, 1])
def test_exact_pages_of_another_engine_give_the_same_answer(adapter: int) -> None:
    source, target = make_engine(), make_engine()
    answer(source, request("1", PROMPT))
    assert carry(source, target, "f32", 0, 4) == 4
    asked = request("2", PROMPT, adapter, 66)
    tokens, reused = answer(target, asked)
    assert reused == 64
    assert tokens == answer(make_engine(), asked)[0]


def test_pages_from_the_end_are_met_by_what_is_computed_from_the_beginning() -> None:
    source, target = make_engine(), make_engine()
    answer(source, request("1", PROMPT))
    asked = request("2", PROMPT, 2, 66)
    target.submit(asked)
    target.step()
    target.step()
    assert carry(source, target, "f32", 2, 2) == 0, "it had come so far"
    other = make_engine()
    assert carry(source, other, "f32", 2, 2) == 2
    tokens, reused = answer(other, asked)
    assert reused == 32
    assert tokens == answer(make_engine(), asked)[0]


def test_a_chunk_ends_where_known_pages_begin() -> None:
    source, target = make_engine(), make_engine()
    answer(source, request("1", PROMPT))
    carry(source, target, "f32", 1, 3)
    target.submit(request("2", PROMPT))
    (work,) = target._scheduler.schedule()
    assert work.count == PAGE_SIZE


@pytest.mark.parametrize("is_cache_shared", [False, True])
def test_only_its_chain_finds_what_came_from_elsewhere(is_cache_shared: bool) -> None:
    target = make_engine(is_cache_shared=is_cache_shared)
    generator = torch.Generator().manual_seed(3)
    junk = PageBlock(*(torch.randn((2, 2, 64, 8), generator=generator) for _ in range(2)))
    assert target.exchange(owner(), PROMPT).write(0, junk) == 4
    right, _ = answer(make_engine(), request("x", PROMPT))
    wrong, reused = answer(target, request("1", PROMPT))
    assert reused == 64
    assert wrong != right, "junk makes a difference, or this test could not fail"
    for name, chain in (("2", ""), ("3", "another ticket")):
        tokens, reused = answer(
            target, request(name, [*PROMPT, *wrong][: len(PROMPT)], chain=chain)
        )
        assert (tokens, reused) == (right, 0 if name == "2" else 64)


def test_what_is_computed_after_such_pages_stays_in_the_chain_too() -> None:
    target = make_engine()
    generator = torch.Generator().manual_seed(3)
    junk = PageBlock(*(torch.randn((2, 2, 16, 8), generator=generator) for _ in range(2)))
    target.exchange(owner(), PROMPT).write(0, junk)
    answer(target, request("1", PROMPT))
    assert target.exchange(owner(), PROMPT).missing(4).start == 4
    assert target.exchange(owner(""), PROMPT).missing(4).start == 0
    right, _ = answer(make_engine(), request("x", PROMPT))
    assert answer(target, request("2", PROMPT, chain="")) == (right, 0)
    # Now that there are exact ones, the chain finds those.
    assert answer(target, request("3", PROMPT)) == (right, 64)


def test_without_room_pages_are_left_out() -> None:
    source, target = make_engine(), make_engine(cache_tokens=96)
    answer(source, request("1", PROMPT))
    other = tuple(reversed(PROMPT))
    target.submit(request("busy", other))
    target.step()
    target.step()
    target.step()
    assert target.statistics().pages_used == 5
    assert carry(source, target, "f32", 0, 4) == 1
    target.cancel("busy")
    asked = request("2", PROMPT)
    assert answer(target, asked)[0] == answer(make_engine(), asked)[0]
    statistics = target.statistics()
    assert statistics.pages_used == 0
    assert statistics.pages_total == 6


def test_a_request_that_is_cancelled_while_pages_come_leaves_nothing_in_use() -> None:
    source, target = make_engine(), make_engine()
    answer(source, request("1", PROMPT))
    target.submit(request("2", PROMPT))
    target.step()
    target.cancel("2")
    carry(source, target, "i8", 2, 2)
    assert target.statistics().pages_used == 0
    assert not target.has_work


def test_an_exchange_finds_nothing_for_strangers() -> None:
    engine = make_engine()
    answer(engine, request("1", PROMPT))
    for stranger in (PageOwner("other", "", CHAIN), PageOwner("c", "tenant", CHAIN)):
        assert engine.exchange(stranger, PROMPT).missing(4).start == 0
        assert engine.exchange(stranger, PROMPT).read(0, 1) is None
    assert engine.exchange(owner("any other ticket"), PROMPT).missing(4).start == 4, (
        "the client's own"
    )


def test_keys_in_int8_can_be_carried_too() -> None:
    source, target = make_engine(is_cache_quantised=True), make_engine(is_cache_quantised=True)
    wanted, _ = answer(source, request("1", PROMPT))
    assert carry(source, target, "f32", 0, 4) == 4
    tokens, reused = answer(target, request("2", PROMPT))
    assert reused == 64
    assert len(tokens) == len(wanted)
    one = source.exchange(owner(), PROMPT).read(0, 4)
    other = target.exchange(owner(), PROMPT).read(0, 4)
    assert one is not None
    assert other is not None
    assert torch.allclose(one.keys, other.keys, rtol=2e-2, atol=1e-3)


def test_ended_tells_what_was_reused() -> None:
    engine = make_engine()
    answer(engine, request("1", PROMPT, chain=""))
    engine.submit(request("2", PROMPT, chain=""))
    outputs = [output for _ in range(40) for output in engine.step()]
    (ended,) = [output for output in outputs if isinstance(output, Ended)]
    assert ended.reused_tokens == 64
