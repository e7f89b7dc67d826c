"""What do attacks do to plain hivemind, and what to the honest peers of a node of ours?

Method: all are processes on loopback with libp2p daemons of their own, the attackers at nice 19
(they stand for other machines). Plain hivemind 1.1.12 (`DHTNode` on `P2P`, 1,024 files) is attacked
first, once, and its fate noted. Then our node (with the services of `dslm serve`, a fake engine, a
record store of 16 MiB and 1,024 files) serves two honest peers: info, records put and found, the
node's own share of the table, answers of 16 tokens, each checked. Windows without and with the
attack take turns; latencies of each sort of window are pooled over all requests. Failures count
windows of both sorts. Memory is the highest seen over what it was before, of node and daemon
apart; the promise is about their sum less what the record store took.

The baseline of every time is the same peers' between the attacks. Only an otherwise idle machine
gives figures worth keeping: with two cores and other work, p99 is that work's.

Run: `.venv/bin/python benchmarks/attacks.py [--quick] [ATTACK...]`.
"""

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from report import Row, print_report

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.attacks.attacks import FLOODS, OTHERS, ROWS
from tests.attacks.fates import PLAIN_FATE, Fate, shut_out, suffer
from tests.attacks.harness import MEBIBYTE, TABLE_BYTES, Worker, percentile
from tests.attacks.trials import (
    MEMORY_MAX,
    SLOWDOWN_MAX,
    Outcome,
    Plan,
    try_alone,
)

FULL, QUICK = Plan(pairs=4, seconds=15.0), Plan(pairs=2, seconds=6.0)
NAMES = tuple(dict.fromkeys(attack.__name__ for attack in (*ROWS, *FLOODS, *OTHERS)))


def plain_fate(attack: str) -> Fate | None:
    """What one attack does to plain hivemind in a process of its own; None if none was measured."""
    if attack not in PLAIN_FATE:
        return None
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="a-"))
        victim = stack.enter_context(Worker("victims", "plain", folder, str(TABLE_BYTES)))
        workers = [Worker("attackers", victim.ready.address) for _ in range(2)]
        attacker, stranger = [stack.enter_context(worker) for worker in workers]
        if attack == "idle_streams":
            return shut_out(victim, attacker, stranger, attack)
        return suffer(victim, attacker, attack)


def tell(attack: str, plain: Fate | None, outcome: Outcome) -> None:
    """One attack, for people."""
    idle, attacked = outcome.idle, outcome.attacked
    print(f"\n{attack}: {outcome.sent} messages, {outcome.answered} answered, {outcome.held} held")
    print(f"  plain hivemind  {plain or 'not tried'}")
    print(f"  our node        {outcome.fate}; {len(outcome.failures)} honest failures")
    for failure in outcome.failures[:3]:
        print(f"    {failure}")
    print(
        f"  memory          node +{outcome.python_grown // MEBIBYTE} MiB (record store "
        f"+{outcome.table_grown // MEBIBYTE}), daemon +{outcome.daemon_grown // MEBIBYTE} MiB"
    )
    for kind in ("", *outcome.kinds):
        quiet, loud = idle.values(kind), attacked.values(kind)
        figures = "  ".join(
            f"p{100 * part:.0f} {1e3 * percentile(quiet, part):.1f} -> "
            f"{1e3 * percentile(loud, part):.1f} ms (x{outcome.slowdown(kind, part):.2f})"
            for part in (0.5, 0.99)
        )
        print(f"  {kind or 'all':<5} {len(quiet):>5} {len(loud):>5}  {figures}", flush=True)


def rows_of(attack: str, plain: Fate | None, outcome: Outcome) -> list[Row]:
    """The figures of one attack."""
    answered = outcome.requests - len(outcome.attacked.failures)
    times = {part: percentile(outcome.attacked.values(), part) for part in (0.5, 0.99)}
    ratio = outcome.slowdown()
    memory = outcome.memory / MEBIBYTE
    rows = []
    if plain is not None:
        harmed = PLAIN_FATE[attack] in plain.harms
        rows.append(
            Row(f"{attack}: plain hivemind suffers", int(harmed), "", None, None, "1", harmed)
        )
    return [
        *rows,
        Row(
            f"{attack}: our node suffers",
            len(outcome.fate.harms),
            "harms",
            None,
            None,
            "0",
            not outcome.fate.harms,
        ),
        Row(
            f"{attack}: honest requests answered",
            answered,
            "",
            "requests made",
            answered / outcome.requests,
            "all",
            not outcome.failures,
        ),
        Row(f"{attack}: p50", 1e3 * times[0.5], "ms", "idle p50", outcome.slowdown("", 0.5)),
        Row(
            f"{attack}: p99",
            1e3 * times[0.99],
            "ms",
            "idle p99",
            ratio,
            f"at most {SLOWDOWN_MAX:g} x",
            ratio <= SLOWDOWN_MAX,
        ),
        Row(f"{attack}: node grew by", outcome.python_grown / MEBIBYTE, "MiB"),
        Row(f"{attack}: daemon grew by", outcome.daemon_grown / MEBIBYTE, "MiB"),
        Row(
            f"{attack}: both, beyond the record store",
            memory,
            "MiB",
            None,
            None,
            "under 64 MiB",
            outcome.memory < MEMORY_MAX,
        ),
    ]


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two pairs of windows of 6 s each")
    parser.add_argument("attack", nargs="*", help=f"instead of all of {', '.join(NAMES)}")
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else FULL
    rows: list[Row] = []
    for attack in arguments.attack or NAMES:
        plain = plain_fate(attack)
        outcome = try_alone(attack, plan)
        tell(attack, plain, outcome)
        rows += rows_of(attack, plain, outcome)
    return print_report("attacks", rows)


if __name__ == "__main__":
    sys.exit(main())
