"""Laws of a whole engine, its random numbers and the decoders, against naive models of them."""

import random
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from node.engine.base import Ended, EngineRequest, Generated
from node.engine.fake import FakeEngine, FakeOptions, fake_token
from node.engine.sampling import uniform
from node.hosting.decoding import make_decoder
from protocols.messages.ask import Sampling
from tests.effort import examples

VOCABULARY = 50


requests = st.builds(
    lambda prompt, answer, delivered: (tuple(prompt), answer, delivered),
    st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=30),
    st.integers(1, 20),
    st.integers(0, 8),
)


@settings(max_examples=examples(150), deadline=None)
@given(
    st.lists(requests, min_size=1, max_size=12),
    st.integers(1, 4),
    st.integers(1, 40),
    st.integers(50, 120),
    st.randoms(),
)
def test_every_request_ends_once_with_the_tokens_it_would_get_alone(
    wanted: list[tuple[tuple[int, ...], int, int]],
    running: int,
    step_tokens: int,
    cache_tokens: int,
    rng: random.Random,
) -> None:
    """Arrivals and cancellations at random between steps, under random limits."""
    engine = FakeEngine(FakeOptions(VOCABULARY, 50, cache_tokens, running, step_tokens))
    coming = [_request(number, *one) for number, one in enumerate(wanted)]
    answers = {one.request_id: list(one.delivered) for one in coming}
    ended: set[str] = set()
    cancelled: set[str] = set()
    for _ in range(5_000):
        if coming and (not engine.has_work or rng.random() < 0.5):
            engine.submit(coming.pop(0))
        if rng.random() < 0.05:
            victim = rng.choice(sorted(answers))
            if victim not in ended and all(one.request_id != victim for one in coming):
                engine.cancel(victim)
                cancelled.add(victim)
        for output in engine.step():
            assert output.request_id not in ended | cancelled
            match output:
                case Generated(request_id, position, token_id):
                    assert position == len(answers[request_id])
                    answers[request_id].append(token_id)
                case Ended(request_id):
                    ended.add(request_id)
        statistics = engine.statistics()
        assert statistics.running <= running
        assert statistics.cache_tokens_used <= statistics.cache_tokens_total < cache_tokens + 16
        if not coming and not engine.has_work:
            break
    assert ended | cancelled == answers.keys()
    assert engine.statistics().cache_tokens_used == 0
    for request_id in ended:
        prompt, length, _ = wanted[int(request_id)]
        alone = [fake_token(prompt, p, -1, VOCABULARY) for p in range(length)]
        assert answers[request_id] == alone


def _request(number: int, prompt: tuple[int, ...], length: int, delivered: int) -> EngineRequest:
    known = tuple(fake_token(prompt, p, -1, VOCABULARY) for p in range(min(delivered, length)))
    return EngineRequest(str(number), prompt, length, Sampling(), frozenset(), known)


@given(st.integers(0, 2**63 - 1), st.integers(0, 65_535))
def test_random_numbers_are_in_range_and_belong_to_seed_and_position(
    seed: int, position: int
) -> None:
    number = uniform(seed, position)
    assert 0 <= number < 1
    assert number == uniform(seed, position)
    assert number != uniform(seed ^ 1, position)


@pytest.fixture(scope="module")
def byte_tokenizer() -> Tokenizer:
    """Every byte and a few pairs that cut characters in two, and two control tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, "æĹ", "Ŀ¥", "ðŁ", "Ġa", "<end>", "<pad>"]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, []))
    tokenizer.add_special_tokens(["<end>", "<pad>"])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@settings(max_examples=examples(1000), deadline=None)
@given(st.lists(st.integers(0, 270), max_size=40), st.data())
def test_any_ids_are_told_exactly_and_can_be_taken_over_anywhere(
    byte_tokenizer: Tokenizer, ids: list[int], data: Any
) -> None:
    """Most lists of ids are no valid UTF-8 at all: those are told as the tokenizer tells them."""
    decoder = make_decoder(byte_tokenizer)
    whole = [*(decoder.push(token_id) for token_id in ids), decoder.flush()]
    assert "".join(whole) == byte_tokenizer.decode(ids, skip_special_tokens=True)
    cut = data.draw(st.integers(0, len(ids)))
    resumed = make_decoder(byte_tokenizer, ids[:cut])
    assert [*(resumed.push(token_id) for token_id in ids[cut:]), resumed.flush()] == whole[cut:]
