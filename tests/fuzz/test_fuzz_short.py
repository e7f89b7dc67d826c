"""The short fuzz run: the kept corpus and some thousand mutations of it into every parser.

`scripts/bench fuzz` does a million. Findings of both belong into the corpus once they are mended.
"""

import os
from pathlib import Path

import pytest

from tests.fuzz.corpora import corpus_of, kept
from tests.fuzz.registry import GROUPS, TARGETS, make_target
from tests.fuzz.supervisor import Plan, fuzz
from tests.fuzz.target import Target
from tests.fuzz.worker import Finding, Outcome

INPUTS = 2_000
SECONDS_PER_TARGET = 0.03
"""Slow parsers get fewer inputs in the short run."""
GROWN_BYTES_MAX = 32 * 2**20
CORPUS_BYTES_MAX = 200_000
FILES_MAX = 30


def described(findings: tuple[Finding, ...]) -> str:
    """What was found, in a form that can be pasted into a test."""
    return "\n".join(f"{one.target}: {one.what} at {one.where}: {one.data!r}" for one in findings)


def test_no_parser_breaks() -> None:
    """In a child process, so that a crash of C code is a failure and not the end of the tests.

    One for all parsers: hivemind and torch take seconds to import.
    """
    seed = int(os.environ.get("DSLM_FUZZ_SEED", "1"))
    targets = [name for group in GROUPS.values() for name in group]
    outcomes = fuzz(targets, Plan(seed, INPUTS, SECONDS_PER_TARGET))
    findings = tuple(finding for outcome in outcomes for finding in outcome.findings)
    assert not findings, described(findings)
    assert [outcome.target for outcome in outcomes] == targets
    for outcome in outcomes:
        least = len(corpus_of(outcome.target)) + INPUTS // 10
        assert outcome.inputs >= least, outcome
        assert 0 < outcome.refused < outcome.inputs or outcome.target in NEVER_REFUSE, outcome
        assert outcome.grown < GROWN_BYTES_MAX, outcome


NEVER_REFUSE = {"judged_values"}
"""Targets whose function has a verdict instead of an error."""


def _takes_a_seed(target: Target) -> bool:
    for seed in target.seeds:
        try:
            target.run(seed)
        except target.allowed:
            continue
        return True
    return False


@pytest.mark.parametrize("name", [*GROUPS["wire"], *GROUPS["membership"], *GROUPS["local"]])
def test_each_target_takes_a_good_input(name: str, tmp_path: Path) -> None:
    """A target that refuses everything would look at nothing but its first check."""
    assert _takes_a_seed(make_target(name, tmp_path))


def test_corpus_is_small_and_known() -> None:
    sizes = kept()
    assert set(sizes) <= set(TARGETS)
    assert sum(sizes.values()) < CORPUS_BYTES_MAX
    assert all(len(corpus_of(name)) <= FILES_MAX for name in sizes)


def test_what_breaks_is_found() -> None:
    """The net has no holes: a parser that raises, is slow, dies or hangs is a finding."""
    outcomes = {one.target: one for one in fuzz(SELF_TEST, Plan(1, 60, 5.0))}
    assert set(outcomes) == set(SELF_TEST)
    assert _what(outcomes["selftest_raises"]).startswith("KeyError")
    assert "ms for" in _what(outcomes["selftest_slow"])
    assert "signal 11" in _what(outcomes["selftest_dies"])
    assert _what(outcomes["selftest_eats"]).startswith("MemoryError")
    assert not outcomes["selftest_good"].findings


SELF_TEST = (
    "selftest_raises",
    "selftest_slow",
    "selftest_dies",
    "selftest_eats",
    "selftest_good",
)


def _what(outcome: Outcome) -> str:
    assert outcome.findings, outcome
    finding = outcome.findings[0]
    assert finding.data[:1] > b"\x80" or finding.data == b"", finding
    return finding.what
