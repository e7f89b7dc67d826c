"""Buckets: what they let through, whatever the order and the pauses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.ids import PeerId
from protocols.metering import Meter, Rate, TokenBucket

RATE = Rate(per_second=2.0, burst=10.0)
WIDE = Rate(per_second=1e6, burst=1e6)
ALICE, BOB = PeerId("alice"), PeerId("bob")


def takes(meter: Meter, peer: PeerId, now: float, rate: Rate = RATE, tries: int = 1_000) -> int:
    """How many single takes are allowed out of many tries at one moment."""
    return sum(meter.take(peer, rate, now) for _ in range(tries))


def test_a_burst_then_the_rate() -> None:
    bucket = TokenBucket(0.0)
    assert sum(bucket.take(RATE, 0.0) for _ in range(100)) == 10
    assert not bucket.take(RATE, 0.49)
    assert bucket.take(RATE, 0.5)
    assert not bucket.take(RATE, 0.5)
    assert sum(bucket.take(RATE, 1_000.0) for _ in range(100)) == 10


def test_a_rate_of_nothing_lets_nothing_through() -> None:
    meter = Meter(WIDE)
    assert takes(meter, ALICE, 0.0, Rate(0.0, 0.0)) == 0
    assert not meter.count(ALICE, Rate(0.0, 0.0), 0.0, 1)


def test_a_better_allowance_counts_at_once() -> None:
    meter = Meter(WIDE)
    assert takes(meter, ALICE, 0.0, Rate(1.0, 4.0)) == 4
    assert takes(meter, ALICE, 0.0, Rate(1.0, 10.0)) == 6


@given(
    st.lists(
        st.tuples(st.floats(0, 3), st.floats(0, 4)),
        max_size=60,
    )
)
def test_never_more_than_the_burst_and_the_rate_in_any_window(
    steps: list[tuple[float, float]],
) -> None:
    bucket, now = TokenBucket(0.0), 0.0
    taken: list[tuple[float, float]] = []
    for pause, amount in steps:
        now += pause
        if bucket.take(RATE, now, amount):
            taken.append((now, amount))
    for index, (start, _) in enumerate(taken):
        for end in range(index, len(taken)):
            total = sum(amount for _, amount in taken[index : end + 1])
            assert total <= RATE.burst + RATE.per_second * (taken[end][0] - start) + 1e-6


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30))
def test_a_clock_that_goes_back_gives_nothing_away(moments: list[float]) -> None:
    bucket = TokenBucket(0.0)
    allowed = sum(bucket.take(RATE, now) for now in moments for _ in range(20))
    assert allowed <= RATE.burst + RATE.per_second * max(moments) + 1e-6


def test_greedy_peers_leave_a_share_of_the_total_to_the_others() -> None:
    meter = Meter(Rate(per_second=10.0, burst=100.0))
    greedy = [PeerId(f"greedy-{number}") for number in range(20)]
    allowed = sum(takes(meter, peer, 0.0) for peer in greedy)
    assert allowed <= 100
    refilled = 0.4
    assert sum(takes(meter, peer, refilled) for peer in greedy[:10]) == 0
    assert meter.take(ALICE, RATE, refilled)


def test_greedy_peers_do_not_lock_out_a_quiet_one_for_a_minute() -> None:
    meter = Meter(Rate(per_second=100.0, burst=200.0))
    greedy = [PeerId(f"greedy-{number}") for number in range(100)]
    refused = 0
    for tick in range(600):
        now = tick / 10
        for peer in greedy:
            takes(meter, peer, now, tries=5)
        if tick % 10 == 9:
            refused += not meter.take(ALICE, RATE, now)
    assert refused == 0


def test_counting_what_was_had_already_goes_into_debt() -> None:
    meter = Meter(WIDE)
    assert meter.count(ALICE, RATE, 0.0, 10)
    assert not meter.count(ALICE, RATE, 0.0, 20)
    assert not meter.count(ALICE, RATE, 9.0, 5)
    assert meter.count(ALICE, RATE, 20.0, 5)
    assert meter.count(BOB, RATE, 0.0, 5)


def test_the_peers_remembered_are_bounded() -> None:
    meter = Meter(Rate(per_second=1.0, burst=50.0), peers_max=20)
    for number in range(1_000):
        meter.take(PeerId(f"sybil-{number}"), RATE, 0.0)
    assert len(meter) == 20


@pytest.mark.parametrize("peers", [2_000])
def test_forgetting_the_longest_idle_gives_nothing_away(peers: int) -> None:
    """Identities that take turns get no more than the total, whatever is forgotten."""
    meter = Meter(Rate(per_second=50.0, burst=100.0), peers_max=600)
    allowed = 0
    for tick in range(100):
        for number in range(0, peers, 10):
            allowed += meter.take(PeerId(f"p{(number + tick) % peers}"), RATE, tick / 10)
    assert allowed <= 100 + 50 * 10


def test_a_rate_is_kept_whatever_the_clock_does() -> None:
    rate, bucket = Rate(per_second=2.0, burst=3.0), TokenBucket(100.0)
    assert [bucket.take(rate, 100.0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(rate, 50.0)
    assert not bucket.take(rate, 100.4)
    assert bucket.take(rate, 100.5)
    assert not bucket.take(rate, 101.0, 2)
    assert bucket.take(rate, 1e9, 3)
    assert not bucket.take(rate, 1e9)
