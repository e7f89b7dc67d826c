"""A third of all cards lie, are stale or dead: traffic finds the others all the same."""

from dataclasses import replace

import pytest

from tests.effort import few
from tests.simulation.card_world import Setting, Tally, run_trial

LOST_MAX = 0.02
SMALL = Setting(specialists=12, requests=60, warm_up=40)


def summed(setting: Setting, seeds: list[int]) -> Tally:
    total = Tally()
    for seed in seeds:
        found = run_trial(seed, setting)
        total.requests += found.requests
        total.lost += found.lost
        total.first_lost += found.first_lost
        total.honest_asked += found.honest_asked
    return total


def test_a_small_swarm_with_and_without_distrust() -> None:
    """One seed, so that it is quick: what is left of the first choices that were wrong."""
    tally = run_trial(3, SMALL)
    trusting = run_trial(3, replace(SMALL, has_inspection=False, has_outcomes=False))
    assert tally.requests == trusting.requests == 20
    assert tally.lost == 0
    assert tally.first_lost <= 2
    assert trusting.first_lost >= 4


@pytest.mark.slow
def test_at_most_two_in_a_hundred_are_lost_after_fifty_requests() -> None:
    seeds = few(range(20), 2)
    setting = Setting(requests=200)
    tally = summed(setting, seeds)
    assert tally.lost <= LOST_MAX * tally.requests
    # Caution does not shut newcomers out: nearly all of the 28 honest ones had their turn.
    assert tally.honest_asked >= 20 * len(seeds)


@pytest.mark.slow
def test_whoever_trusts_every_card_loses_too_much() -> None:
    """The same swarms do harm: the test above could fail."""
    seeds = few(range(20), 2)
    tally = summed(Setting(requests=100, has_inspection=False, has_outcomes=False), seeds)
    assert tally.lost > LOST_MAX * tally.requests
    assert tally.first_lost > 5 * LOST_MAX * tally.requests
