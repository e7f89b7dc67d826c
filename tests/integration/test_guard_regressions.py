"""Single messages that harm plain hivemind, sent to our node: it must answer as if nothing was.

Each case runs in a child process (`dht_attack.py`), because some end the process they hit. The
child starts a victim and an attacker on loopback; the attacker speaks raw DHT messages.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SECONDS = 60

CASES = (
    "nested_extensions",
    "nested_arrays_in_a_dictionary",
    "shorter_expiry",
    "plain_value_on_a_dictionary",
    "invalid_value_byte",
    "chosen_node_ids",
    "many_keys",
    "endless_expiry",
    "oversized_values",
    "garbage",
)
HARMFUL = (
    "nested_extensions",
    "shorter_expiry",
    "plain_value_on_a_dictionary",
    "invalid_value_byte",
    "chosen_node_ids",
    "many_keys",
    "endless_expiry",
    "oversized_values",
)


@dataclass(frozen=True)
class Outcome:
    returncode: int
    harm: dict[str, str]
    errors: str


def attack(victim: str, cases: tuple[str, ...]) -> Outcome:
    """Run the cases one after the other against one victim; what each of them did to it."""
    run = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-W", "ignore", str(HERE / "dht_attack.py"), victim, *cases],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HIVEMIND_LOGLEVEL": "CRITICAL"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    harm = {}
    for line in run.stdout.splitlines():
        found = json.loads(line)
        harm[found["case"]] = found["harm"]
    return Outcome(run.returncode, harm, run.stderr[-3000:])


@pytest.fixture(scope="module")
def on_ours() -> Outcome:
    return attack("ours", CASES)


@pytest.mark.integration
@pytest.mark.parametrize("case", CASES)
def test_our_node_is_unharmed(on_ours: Outcome, case: str) -> None:
    assert on_ours.harm.get(case) == "", f"{on_ours.harm.get(case)}\n{on_ours.errors}"


@pytest.mark.integration
def test_our_node_outlives_all_cases(on_ours: Outcome) -> None:
    assert on_ours.returncode == 0, on_ours.errors


@pytest.mark.chaos
@pytest.mark.parametrize("case", HARMFUL)
def test_plain_hivemind_is_harmed(case: str) -> None:
    """The attacks are real: if one of these fails, its case above proves nothing."""
    outcome = attack("plain", (case,))
    assert outcome.returncode < 0 or outcome.harm.get(case), f"{outcome}"
