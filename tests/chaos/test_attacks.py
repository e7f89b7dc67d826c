"""Attacks that go on for a while, while honest peers work: everything is answered, nothing grows.

How fast it is answered is `scripts/bench attacks`' to measure: it needs a quiet machine.
"""

import pytest

from tests.attacks.attacks import FLOODS, OTHERS, ROWS
from tests.attacks.harness import MEBIBYTE
from tests.attacks.trials import MEMORY_MAX, Plan, try_alone

pytestmark = pytest.mark.chaos

PLAN = Plan(pairs=1, seconds=6.0, has_idle_windows=False)
NAMES = list(dict.fromkeys(attack.__name__ for attack in (*ROWS, *FLOODS, *OTHERS)))


@pytest.mark.parametrize("name", NAMES)
def test_honest_peers_are_answered_all_the_same(name: str) -> None:
    outcome = try_alone(name, PLAN)
    assert outcome.sent > 0
    assert outcome.requests > 0
    assert str(outcome.fate) == "unharmed"
    assert outcome.failures == []
    assert outcome.memory < MEMORY_MAX, f"{outcome.memory // MEBIBYTE} MiB"
