"""How much traffic do lying, stale and dead cards take, and how much of it comes back?

Method: 40 specialists of 8 domains in one process and in virtual time; of all cards 30 % are bad,
in equal parts liars (prototypes of another domain, exemplars of their own), impostors (both of the
other domain: only their answers give them away), stale (the peer does not host it any more) and
dead (the peer is gone, its records live on). Directory, discovery, coordinator, inspection at two
encodings a second and memory of outcomes are the real ones; the encoder is made up (cosine .74
between a prompt and its domain), and evidence is taken to be right: it is low for an answer of
another domain. One peer asks 550 prompts with `auto`, about one a second; after low evidence or a
failure it asks the next card once, as a chain does. A request is lost if no honest specialist of
its domain answered it. The first 50 requests do not count. The baseline trusts every card.

Run: `.venv/bin/python benchmarks/cards.py [--quick] [--seeds 20] [--jobs 2]`; about fifteen minutes
on one idle core. Each seed is a process of its own.
"""

import argparse
import random
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import msgspec

from report import Row, print_report
from tests.simulation.card_world import Setting, Tally, run_trial

TARGET = 0.02
BASELINE = "every card trusted, one retry"
WORLD = Setting(requests=550)
SETTINGS: dict[str, Setting] = {
    BASELINE: replace(WORLD, has_inspection=False, has_outcomes=False),
    "dslm": WORLD,
    "dslm without a retry": replace(WORLD, has_retry=False),
    "outcomes alone, one retry": replace(WORLD, has_inspection=False),
    "inspection alone, one retry": replace(WORLD, has_outcomes=False),
    "every card trusted, no retry": replace(
        WORLD, has_inspection=False, has_outcomes=False, has_retry=False
    ),
    "dslm, no bad cards": replace(WORLD, bad_share=0.0),
}
_RESAMPLES = 2_000


def measure(name: str, seeds: int, jobs: int) -> list[Tally]:
    """One tally for each seed."""

    def one(seed: int) -> Tally:
        command = [sys.executable, __file__, "--setting", name, "--seed", str(seed)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)  # noqa: S603
        print(f"  {name}, seed {seed}", file=sys.stderr, flush=True)
        return msgspec.json.decode(done.stdout, type=Tally)

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(one, range(seeds)))


def rows_of(name: str, tallies: Sequence[Tally], baseline: float) -> Iterator[Row]:
    """What came of one setting."""
    shares = [one.lost / one.requests for one in tallies]
    lost = statistics.mean(shares)
    low, high = interval(shares)
    is_judged = name == "dslm"
    first = statistics.mean(one.first_lost / one.requests for one in tallies)
    yield Row(
        f"{name}: traffic lost",
        lost,
        "",
        BASELINE,
        lost / baseline if baseline else None,
        f"<= {TARGET}" if is_judged else None,
        lost <= TARGET if is_judged else None,
        f"95 % of means {low:.4f} to {high:.4f}, worst seed {max(shares):.4f}; "
        f"first choice wrong {first:.4f}",
    )
    warm = statistics.mean(one.lost_in_warm_up / WORLD.warm_up for one in tallies)
    yield Row(f"{name}: lost of the first {WORLD.warm_up}", warm, "")
    asked = statistics.mean(one.honest_asked for one in tallies)
    yield Row(f"{name}: honest specialists that were asked", asked, "")


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Bootstrap over seeds: the middle 95 % of means."""
    chance = random.Random(1)
    means = sorted(
        statistics.mean(chance.choices(values, k=len(values))) for _ in range(_RESAMPLES)
    )
    return means[int(0.025 * _RESAMPLES)], means[int(0.975 * _RESAMPLES) - 1]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 seeds")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--setting", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.setting is not None:
        found = run_trial(arguments.seed, SETTINGS[arguments.setting])
        sys.stdout.write(msgspec.json.encode(found).decode())
        return 0
    rows: list[Row] = []
    baseline = 0.0
    for name in SETTINGS:
        tallies = measure(name, 3 if arguments.quick else arguments.seeds, arguments.jobs)
        if name == BASELINE:
            baseline = statistics.mean(one.lost / one.requests for one in tallies)
        rows += rows_of(name, tallies, baseline)
    return print_report("cards", rows)


if __name__ == "__main__":
    sys.exit(main())
