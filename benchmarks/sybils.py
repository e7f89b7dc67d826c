"""Does a lookup find what honest peers published while Sybils lie around its key?

Method: 60 peers in one process and in virtual time, each the real record store (guard, hivemind's
`DHTNode`, table); only the wire between them is made up (5 to 40 ms each way). 20 % and 33 % of
them are Sybils whose Ed25519 identities were ground to lie nearest to one key, spread over all of
its places; they are in all routing tables, one of each newcomer's three bootstrap peers is theirs,
they take records and drop them, name only each other, and besides are silent, forge, replay or
stall. Honest peers publish under the key twice; then others look it up. A lookup succeeds when it
returns all that was published there. The baseline is hivemind's own way with the same guard: one
place, the five nearest peers keep a record; so is the swarm without Sybils, for cost.

Run: `.venv/bin/python benchmarks/sybils.py [--quick] [--seeds 50] [--peers 60] [--jobs 2]`; about
half an hour on one idle core. Each seed is a process of its own.
"""

import argparse
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import msgspec
from hivemind.utils.logging import use_hivemind_log_handler

from report import Row, print_report
from tests.simulation.sybil_trial import Setting, Tally, run_trial
from tests.simulation.sybils import BEHAVIOURS, SILENT

TARGETS = {0.2: 0.99, 0.33: 0.95}
"""Share of Sybils, and of lookups that have to succeed."""
PLAIN_SEEDS = 5


@dataclass(frozen=True, slots=True)
class Workers:
    """Runs trials in processes of their own, `jobs` at a time."""

    pool: ThreadPoolExecutor
    peers: int

    def measure(self, number: int, seeds: int) -> dict[str, Tally]:
        """All behaviours of setting `number` in so many worlds, by the behaviour's name."""
        total: dict[str, Tally] = {}
        for found in self.pool.map(lambda seed: self._one(number, seed), range(seeds)):
            for name, tally in found.items():
                total.setdefault(name, Tally()).add(tally)
        return total

    def _one(self, number: int, seed: int) -> dict[str, Tally]:
        command = [sys.executable, __file__, "--peers", str(self.peers)]
        command += ["--setting", str(number), "--seed", str(seed)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)  # noqa: S603
        print(f"  setting {number}, seed {seed}", file=sys.stderr, flush=True)
        return msgspec.json.decode(done.stdout, type=dict[str, Tally])


def work(setting: Setting, seed: int) -> None:
    """One world, its tallies as JSON."""
    behaviours = BEHAVIOURS if setting.sybils else (SILENT,)
    sys.stdout.write(msgspec.json.encode(run_trial(seed, setting, behaviours)).decode())


def rows_of(setting: Setting, tallies: dict[str, Tally]) -> Iterator[Row]:
    """What came of one setting."""
    way = "plain" if setting.is_plain else "dslm"
    at_least = None if setting.is_plain else TARGETS.get(setting.share)
    for name, tally in tallies.items():
        attack = f"{setting.share:.0%} {name}" if setting.sybils else "no Sybils"
        title = f"{way}, {setting.peers} peers, {attack}, {setting.target}"
        success = tally.succeeded / tally.lookups
        target = None if at_least is None else f">= {at_least:.2f}"
        met = None if at_least is None else success >= at_least
        yield Row(f"{title}: lookups that succeed", success, "", target=target, met=met)
        met = None if setting.is_plain else not tally.forged
        yield Row(f"{title}: forged records believed", tally.forged, "", target="0", met=met)
        yield Row(f"{title}: messages a get", _mean(tally.get_calls), "")
        yield Row(f"{title}: messages a first put", _mean(tally.put_calls), "")
        yield Row(f"{title}: messages a renewal", _mean(tally.renewal_calls), "")
        yield Row(f"{title}: mean time of a get", _mean(tally.get_seconds), "s")


def _mean(values: Sequence[float]) -> float:
    return statistics.mean(values)


def settings(peers: int) -> Iterator[tuple[Setting, bool]]:
    """What is measured, and whether it is a baseline."""
    for target in ("index", "card"):
        for share in TARGETS:
            yield Setting(peers, share, target, publishers=2, readers=4), False
            yield Setting(peers, share, target, 2, 4, is_plain=True), True
    for few in (10, 20, peers):
        for target in ("index", "card"):
            for is_plain in (False, True):
                calm = Setting(few, 0.0, target, 2, 4, is_plain=is_plain, lying_bootstraps=0)
                yield calm, True


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="30 peers, 2 seeds")
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--peers", type=int, default=60)
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--setting", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    use_hivemind_log_handler("nowhere")
    seeds, peers = (2, 30) if arguments.quick else (arguments.seeds, arguments.peers)
    wanted = list(settings(peers))
    if arguments.setting is not None:
        work(wanted[arguments.setting][0], arguments.seed)
        return 0
    rows: list[Row] = []
    with ThreadPoolExecutor(arguments.jobs) as pool:
        workers = Workers(pool, peers)
        for number, (setting, is_baseline) in enumerate(wanted):
            runs = min(seeds, PLAIN_SEEDS) if is_baseline else seeds
            rows += rows_of(setting, workers.measure(number, runs))
    return print_report("sybils", rows)


if __name__ == "__main__":
    sys.exit(main())
