"""Measurements: averages, back-off, and whom to ask first."""

import random

import pytest

from coordinator.measure import BACK_OFF_MAX, PeerMeasurements
from protocols.ids import PeerId

ME, FAST, SLOW, NEW, BAD = (PeerId(name) for name in ("me", "fast", "slow", "new", "bad"))


def measured() -> PeerMeasurements:
    measurements = PeerMeasurements(ME)
    for peer, first, gap in ((FAST, 0.2, 0.02), (SLOW, 2.0, 0.2)):
        measurements.first_token(peer, first)
        measurements.tokens(peer, 1, gap)
    return measurements


def first_choices(
    measurements: PeerMeasurements, peers: list[PeerId], rounds: int = 400
) -> list[PeerId]:
    rng = random.Random(1)
    return [measurements.rank(peers, 0.0, rng)[0] for _ in range(rounds)]


def test_the_moving_average_weighs_the_newest_by_a_fifth() -> None:
    measurements = PeerMeasurements(ME)
    measurements.tokens(FAST, 2, 1.0)
    measurements.tokens(FAST, 1, 2.0)
    assert measurements.snapshot(FAST, 0.0).token_interval == pytest.approx(0.5 + 0.2 * 1.5)
    assert measurements.expected_gap(FAST) == pytest.approx(1.0 + 0.2 * 1.0)


def test_back_off_doubles_is_capped_and_is_forgiven() -> None:
    measurements = PeerMeasurements(ME)
    pauses = []
    for _ in range(10):
        measurements.failed(BAD, 1_000.0, "lost")
        pauses.append(measurements.snapshot(BAD, 1_000.0).failing_for)
    assert pauses[:4] == [5.0, 10.0, 20.0, 40.0]
    assert pauses[-1] == BACK_OFF_MAX
    assert measurements.snapshot(BAD, 0.0).state == "failing"
    assert measurements.snapshot(BAD, 0.0).last_error == "lost"
    measurements.succeeded(BAD)
    assert measurements.snapshot(BAD, 1_000.0).failing_for == 0.0
    measurements.failed(BAD, 1_000.0, "lost")
    assert measurements.snapshot(BAD, 1_000.0).failing_for == 5.0


def test_our_own_peer_comes_first_while_it_is_free() -> None:
    measurements = measured()
    peers = [SLOW, ME, FAST]
    assert set(first_choices(measurements, peers, 20)) == {ME}
    measurements.started(ME)
    measurements.started(ME)
    assert first_choices(measurements, peers, 400).count(FAST) > 300
    measurements.ended(ME)
    assert set(first_choices(measurements, peers, 20)) == {ME}


def test_the_faster_one_is_asked_and_a_slow_one_never_first() -> None:
    assert set(first_choices(measured(), [SLOW, FAST])) == {FAST}


def test_equally_fast_ones_share_the_work_by_what_they_have_to_do() -> None:
    measurements = PeerMeasurements(ME)
    for peer in (FAST, SLOW):
        measurements.first_token(peer, 0.2)
    choices = first_choices(measurements, [FAST, SLOW])
    assert 120 < choices.count(FAST) < 280
    measurements.started(SLOW)
    assert set(first_choices(measurements, [FAST, SLOW])) == {FAST}


def test_unmeasured_ones_are_tried_now_and_then() -> None:
    choices = first_choices(measured(), [FAST, SLOW, NEW], 1_000)
    assert 50 < choices.count(NEW) < 150
    assert SLOW not in choices


def test_failing_and_full_ones_come_last_and_soonest_first() -> None:
    measurements = measured()
    measurements.failed(FAST, 0.0, "lost")
    measurements.busy(BAD, 2.0)
    order = measurements.rank([FAST, BAD, SLOW, NEW], 0.0, random.Random(3))
    assert set(order[:2]) == {SLOW, NEW}
    assert order[2:] == [BAD, FAST]
    assert measurements.rank([FAST, SLOW], 6.0, random.Random(3))[0] == FAST


def test_the_gone_are_forgotten_unless_they_work_for_us() -> None:
    measurements = measured()
    measurements.started(SLOW)
    measurements.keep_only([])
    assert measurements.size == 1
    assert measurements.snapshot(SLOW, 0.0).in_flight == 1
    assert measurements.snapshot(FAST, 0.0).state == "unmeasured"
