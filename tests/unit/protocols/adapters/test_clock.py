"""The two clocks."""

import time

import pytest

from protocols.adapters.clock import ManualClock, SystemClock


def test_a_manual_clock_stands_still_until_told() -> None:
    clock = ManualClock(100.0)
    assert (clock.now(), clock.now(), clock.monotonic()) == (100.0, 100.0, 0.0)
    clock.advance(2.5)
    assert (clock.now(), clock.monotonic()) == (102.5, 2.5)


def test_a_jump_moves_the_wall_clock_only() -> None:
    clock = ManualClock(100.0)
    clock.jump(-60.0)
    assert (clock.now(), clock.monotonic()) == (40.0, 0.0)


def test_time_does_not_run_backwards() -> None:
    with pytest.raises(ValueError, match="forwards"):
        ManualClock().advance(-1)


def test_the_system_clock_is_the_machine_s() -> None:
    clock = SystemClock()
    before, began = time.time(), time.monotonic()
    assert before <= clock.now() <= time.time()
    assert began <= clock.monotonic() <= time.monotonic()
