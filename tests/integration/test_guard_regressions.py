"""Single messages and streams that end, hang or fill plain hivemind; our node must not notice.

Both victims, the attackers and honest peers are processes on loopback (`tests/attacks`). Here each
attack comes once, or for a second; `tests/chaos/test_attacks.py` goes on for long and measures
how fast honest requests are answered meanwhile.
"""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.attacks.attacks import OTHERS, ROWS
from tests.attacks.fates import PLAIN_FATE, Fate, shut_out, suffer
from tests.attacks.harness import MEBIBYTE, TABLE_BYTES, Worker
from tests.attacks.trials import MEMORY_MAX, Plan, Trial

pytestmark = [pytest.mark.integration, pytest.mark.slow]

NAMES = [attack.__name__ for attack in (*ROWS, *OTHERS)]
ATTEMPTS = 3
SHORT = Plan(pairs=1, seconds=1.0, has_idle_windows=False)


@pytest.fixture(scope="module")
def plain_fates() -> dict[str, Fate]:
    """What each attack does to plain hivemind: one process takes them all, the deadly one last."""
    fates: dict[str, Fate] = {}
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="a-"))
        victim = stack.enter_context(Worker("victims", "plain", folder, str(TABLE_BYTES)))
        workers = [Worker("attackers", victim.ready.address) for _ in range(2)]
        attacker, stranger = [stack.enter_context(worker) for worker in workers]
        for name in sorted(PLAIN_FATE, key="nested_extensions".__eq__):
            for _ in range(ATTEMPTS):  # the attacker itself may come too late on a busy machine
                if name == "idle_streams":
                    fates[name] = shut_out(victim, attacker, stranger, name)
                else:
                    fates[name] = suffer(victim, attacker, name)
                if PLAIN_FATE[name] in fates[name].harms:
                    break
    return fates


@pytest.mark.parametrize("name", PLAIN_FATE)
def test_plain_hivemind_is_harmed(plain_fates: dict[str, Fate], name: str) -> None:
    """The attacks are real: where one of these fails, its like below proves nothing."""
    assert PLAIN_FATE[name] in plain_fates[name].harms, str(plain_fates[name])


@pytest.fixture(scope="module")
def node() -> Iterator[Trial]:
    """A node of ours with honest peers, for all attacks in turn."""
    with Trial(is_meek=False) as trial:
        yield trial


@pytest.mark.parametrize("name", NAMES)
def test_our_node_is_unharmed(node: Trial, name: str) -> None:
    outcome = node.run(name, SHORT)
    assert outcome.sent > 0
    assert outcome.requests > 0
    assert str(outcome.fate) == "unharmed"
    assert outcome.failures == []
    assert outcome.memory < MEMORY_MAX, f"{outcome.memory // MEBIBYTE} MiB"
