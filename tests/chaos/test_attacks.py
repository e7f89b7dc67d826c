"""Attacks that go on and on, while honest peers work: everything is answered, and nearly as fast.

The figures of speed are compared with those of the same peers between the attacks. Something else
that the machine does can only make an attack look worse than it is, so a missed figure is measured
again, and counts when it is missed every time.
"""

import pytest

from tests.attacks.attacks import FLOODS, OTHERS, ROWS
from tests.attacks.trials import Plan, missed, try_alone

pytestmark = pytest.mark.chaos

PLAN = Plan(pairs=3, seconds=10.0)
ATTEMPTS = 3
NAMES = list(dict.fromkeys(attack.__name__ for attack in (*ROWS, *FLOODS, *OTHERS)))


@pytest.mark.parametrize("name", NAMES)
def test_honest_peers_hardly_notice(name: str) -> None:
    complaints = []
    for _ in range(ATTEMPTS):
        outcome = try_alone(name, PLAN)
        if not (found := missed(outcome)):
            return
        complaints.append(found)
        if outcome.failures or outcome.fate.harms:
            break  # no other program's fault
    pytest.fail(f"{name}: {complaints}")
