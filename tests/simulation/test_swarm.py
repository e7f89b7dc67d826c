"""Many peers in virtual time: joins, deaths, freezes, cuts; every request ends once, and rightly.

60 peers by default; 200 with `DSLM_THOROUGH=1`.

A failure prints its seed; `DSLM_SIMULATION_SEED=<seed>` repeats that very history.
"""

import os
from collections import Counter

import pytest

from protocols.adapters.virtual import run_virtual
from protocols.messages.ask import Text
from tests.effort import THOROUGH
from tests.simulation.fake_node import reference, text_of
from tests.simulation.world import ASKER_DIED, BUDGET, Outcome, Plan, World

SEED = int(os.environ.get("DSLM_SIMULATION_SEED", "1"))


async def _live(seed: int, plan: Plan) -> World:
    world = World(seed, plan)
    await world.live()
    return world


def _check(outcome: Outcome, seed: int) -> None:
    request = outcome.request
    told = f"seed {seed}: {request.request_id} {outcome.error}"
    assert outcome.ends == 1, told
    assert outcome.took <= BUDGET + 1e-6, told
    assert isinstance(request.prompt, Text), told
    right = reference(request.prompt.text, request.sampling.seed, request.max_tokens)
    assert outcome.ids == right[: len(outcome.ids)], told
    if outcome.completed:
        assert outcome.ids == right, told
        assert outcome.text == text_of(right), told
        assert sum(share.tokens for share in outcome.completed.shares) == len(right), told


def test_every_request_of_a_troubled_swarm_ends_once_and_rightly() -> None:
    plan = Plan() if THOROUGH else Plan(peers=60, requests=80, deaths=14, frozen=2)
    world = run_virtual(_live(SEED, plan))
    for outcome in world.outcomes:
        _check(outcome, SEED)
    assert world.network.defects == [], f"seed {SEED}"
    assert len(world.outcomes) == plan.requests
    answered = sum(1 for outcome in world.outcomes if outcome.completed)
    lived = [outcome for outcome in world.outcomes if outcome.error != ASKER_DIED]
    failed = Counter(outcome.error for outcome in lived if not outcome.completed)
    assert answered >= 0.99 * len(lived), f"seed {SEED}: {failed}"
    assert sum(outcome.resumed for outcome in world.outcomes) >= plan.deaths // 5, (
        f"seed {SEED}: no failover"
    )
    assert len(world.survivors) == plan.peers - (plan.deaths - plan.frozen), f"seed {SEED}"
    for known in world.known.values():
        assert known >= world.survivors, f"seed {SEED}: not found again after healing"


@pytest.mark.parametrize("seed", [SEED + 1])
def test_a_seed_gives_the_same_history_twice(seed: int) -> None:
    plan = Plan(
        peers=20, specialists=3, requests=30, deaths=6, frozen=2, afterwards=60.0, lifetime=40.0
    )
    first = run_virtual(_live(seed, plan))
    second = run_virtual(_live(seed, plan))
    assert first.trace() == second.trace(), f"seed {seed}"
    for outcome in first.outcomes:
        _check(outcome, seed)
    for known in first.known.values():
        assert known == first.survivors, f"seed {seed}: the dead are not forgotten"


def test_another_seed_gives_another_history() -> None:
    plan = Plan(peers=10, specialists=2, requests=5, deaths=1, frozen=0)
    assert run_virtual(_live(SEED, plan)).trace() != run_virtual(_live(SEED + 1, plan)).trace()
