"""Whom to leave alone and how long to wait: by what came of earlier calls."""

import hashlib

from hivemind.p2p import PeerID

from protocols.adapters.clock import ManualClock
from protocols.adapters.libp2p import responses
from protocols.adapters.libp2p.responses import Responses


def peer(number: int) -> PeerID:
    return PeerID(b"\x00\x20" + hashlib.sha256(str(number).encode()).digest())


def test_one_that_keeps_us_waiting_is_left_alone_for_longer_and_longer() -> None:
    clock = ManualClock()
    known = Responses(clock)
    for ban in (5.0, 30.0, 300.0, 300.0):
        known.succeed(peer(3), 0.1)
        known.fail(peer(1), 2.0)
        clock.advance(ban - 0.1)
        assert peer(1) in known
        assert peer(2) not in known
        clock.advance(0.1)
        assert peer(1) not in known


def test_one_that_fails_at_once_is_left_alone_for_a_short_time() -> None:
    clock = ManualClock()
    known = Responses(clock)
    known.fail(peer(1), 0.01)
    assert peer(1) in known
    clock.advance(1.0)
    assert peer(1) not in known


def test_several_calls_that_were_under_way_together_count_once() -> None:
    clock = ManualClock()
    known = Responses(clock)
    known.succeed(peer(3), 0.1)
    for _ in range(10):
        known.fail(peer(1), 2.0)
    clock.advance(5.0)
    assert peer(1) not in known


def test_an_answer_ends_a_ban_but_the_next_one_is_longer_all_the_same() -> None:
    clock = ManualClock()
    known = Responses(clock)
    known.succeed(peer(3), 0.1)
    known.fail(peer(1), 2.0)
    known.succeed(peer(1), 0.1)
    assert peer(1) not in known
    known.fail(peer(1), 2.0)
    clock.advance(29.9)
    assert peer(1) in known
    clock.advance(responses.FORGET_SECONDS)
    known.fail(peer(1), 2.0)
    clock.advance(5.0)
    assert peer(1) not in known


def test_nobody_is_blamed_when_nobody_answers() -> None:
    clock = ManualClock()
    known = Responses(clock)
    known.succeed(peer(1), 0.1)
    for _ in range(10):
        clock.advance(responses.ALONE_SECONDS + 3.0)
        for number in (1, 2):
            known.fail(peer(number), 2.0)
    clock.advance(5.0)
    assert peer(1) not in known
    assert peer(2) not in known


def test_one_that_failed_at_once_may_soon_show_that_it_is_back() -> None:
    clock = ManualClock()
    known = Responses(clock)
    for _ in range(8):
        clock.advance(30.0)
        known.succeed(peer(3), 0.1)
        known.fail(peer(1), 0.01)
    assert not known.may_probe(peer(1))
    clock.advance(1.0)
    assert known.may_probe(peer(1))
    assert peer(1) in known


def test_only_who_answered_last_is_believed() -> None:
    known = Responses(ManualClock())
    assert not known.has_answered(peer(1))
    known.succeed(peer(1), 0.1)
    assert known.has_answered(peer(1))
    known.fail(peer(1), 2.0)
    assert not known.has_answered(peer(1))


def test_one_that_was_struck_out_may_show_that_it_is_back() -> None:
    clock = ManualClock()
    known = Responses(clock)
    for _ in range(3):
        clock.advance(300.0)
        known.succeed(peer(3), 0.1)
        assert known.may_probe(peer(1))
        known.fail(peer(1), 2.0)
    assert not known.may_probe(peer(1))
    clock.advance(responses.PROBE_SECONDS_MAX)
    assert known.may_probe(peer(1))
    assert peer(1) in known


def test_patience_follows_the_usual_time_within_bounds() -> None:
    known = Responses(ManualClock())
    known.succeed(peer(1), 0.001)
    assert known.patience(peer(1)) == responses.PATIENCE_SECONDS_MIN
    assert known.patience(peer(2)) == 2 * responses.PATIENCE_SECONDS_MIN
    for _ in range(responses.SAMPLES):
        known.succeed(peer(1), 0.1)
    assert known.patience(peer(1)) == responses.PATIENCE_FACTOR * 0.1
    for _ in range(responses.SAMPLES // 3):
        known.succeed(peer(2), 1.9)
    assert known.patience(peer(1)) == responses.PATIENCE_FACTOR * 0.1
    for _ in range(responses.SAMPLES):
        known.succeed(peer(2), 1.9)
    assert known.patience(peer(1)) == responses.PATIENCE_SECONDS_MAX


def test_memory_is_bounded() -> None:
    known = Responses(ManualClock())
    for number in range(responses.PEERS_MAX + 10):
        known.succeed(peer(number), 0.1)
    assert not known.has_answered(peer(9))
    assert known.has_answered(peer(10))
    for number in range(responses.PEERS_MAX + 10):
        known.fail(peer(number), 2.0)
    assert peer(9) not in known
    assert peer(10) in known
    assert f"{responses.PEERS_MAX} failed" in repr(known)
