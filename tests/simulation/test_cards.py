"""A third of all cards lie, are stale or dead: traffic finds the others all the same."""

import pytest

from tests.effort import few
from tests.simulation.card_world import Setting, Tally, run_trial

LOST_MAX = 0.02
SMALL = Setting(specialists=16, requests=80, warm_up=50)


def summed(setting: Setting, seeds: list[int]) -> Tally:
    total = Tally()
    for seed in seeds:
        found = run_trial(seed, setting)
        total.requests += found.requests
        total.lost += found.lost
        total.first_lost += found.first_lost
        total.honest_asked += found.honest_asked
    return total


def test_one_small_swarm() -> None:
    tally = run_trial(1, SMALL)
    assert tally.requests == 30
    assert tally.lost <= 1


@pytest.mark.slow
def test_at_most_two_in_a_hundred_are_lost_after_fifty_requests() -> None:
    seeds = few(range(20), 4)
    setting = Setting(requests=250)
    tally = summed(setting, seeds)
    assert tally.lost <= LOST_MAX * tally.requests
    # Caution does not shut newcomers out: nearly all of the 28 honest ones had their turn.
    assert tally.honest_asked >= 22 * len(seeds)


@pytest.mark.slow
def test_without_a_memory_of_outcomes_ten_times_as_much_is_lost() -> None:
    """The same swarm does harm: the test above could fail."""
    seeds = few(range(20), 2)
    tally = summed(Setting(requests=150, has_inspection=False, has_outcomes=False), seeds)
    assert tally.lost > 10 * LOST_MAX * tally.requests / 2
