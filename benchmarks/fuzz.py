"""Does any parser break, hang or eat memory when it is given a million hostile inputs?

Method: for each parser one child process with an address space limit, its good inputs and the kept
corpus (`tests/fuzz/corpus`) changed by a seeded mutator that knows where values begin and end
(`tests/fuzz/mutator.py`). A finding is any exception but those that the parser promises, a death of
the process, an input of over 50 ms of processor time (the best of three; chat templates and the
configuration file, which the node's own user chose, are allowed seconds), or memory that grows. The
memory figures compare the resident set after the first 1,000 inputs with that at the end (what
stays) and with its highest point (what one input can take). Two libraries lose some bytes at each
load, however often the same file is loaded: `safetensors` about 60 for each tensor that it reads,
`tokenizers` some hundred to thousand for a tokenizer that works. A node loads its models once, so
nothing is done about it; these bytes are shown in a row of their own, at a fixed allowance for each
input, and what goes beyond it counts as memory that stays. Inputs that are findings are kept below
`build/fuzz`. There is no baseline program: the figures are counts, times and bytes.

Run: `scripts/bench fuzz [--quick] [--inputs N] [--seconds S] [--targets A,B] [--seed N]
[--jobs N]`. A million inputs for each parser, 20,000 with `--quick`; a parser that does not get
through its inputs in its seconds misses the target.
"""

import argparse
import hashlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from report import Row, print_report  # noqa: E402
from tests.fuzz.registry import TARGETS  # noqa: E402
from tests.fuzz.supervisor import Plan, fuzz  # noqa: E402
from tests.fuzz.worker import Outcome  # noqa: E402

INPUTS = 1_000_000
QUICK_INPUTS = 20_000
SECONDS = 1_800.0
GROWN_MIB_MAX = 32
PEAK_MIB_MAX = 128
LOST_BY_LIBRARIES = {
    "tokenizer_json": 64,
    "safetensors_files": 64,
    "safetensors_headers": 48,
}
"""Bytes for each input, on average; most inputs are refused and lose none."""
_MIB = 1 << 20


def main() -> int:
    """Run what the command line asks for; the exit code."""
    options = _options()
    names = options.targets.split(",") if options.targets else list(TARGETS)
    if unknown := [name for name in names if name not in TARGETS]:
        raise SystemExit(f"no such parser: {', '.join(unknown)}; there are: {', '.join(TARGETS)}")
    inputs = options.inputs or (QUICK_INPUTS if options.quick else INPUTS)
    plan = Plan(options.seed, inputs, options.seconds)
    rounds = -(-len(names) // options.jobs)
    print(
        f"{len(names)} parsers, {inputs:,} inputs each, at most {options.seconds:.0f} s each on "
        f"{options.jobs} processes: at most {rounds * options.seconds / 60:.0f} min, seed "
        f"{options.seed}"
    )
    print(f"{'parser':22}{'inputs':>11}{'inputs/s':>10}{'s':>8}{'refused':>9}", end="")
    print(f"{'findings':>10}{'slowest ms':>12}{'grown MiB':>11}{'peak MiB':>10}")
    begun = time.monotonic()
    outcomes = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for outcome in pool.map(lambda name: fuzz([name], plan)[0], names):
            outcomes.append(outcome)
            _show(outcome)
    print(f"all in {time.monotonic() - begun:.0f} s")
    return print_report("fuzz", list(_rows(outcomes, inputs)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fuzz every parser.")
    parser.add_argument("--quick", action="store_true", help="20,000 inputs for each parser")
    parser.add_argument("--inputs", type=int, default=0, help="inputs for each parser")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="budget of each parser")
    parser.add_argument("--targets", default="", help="names with commas between; all by default")
    parser.add_argument("--seed", type=int, default=1, help="another seed gives other inputs")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    return parser.parse_args()


def _show(outcome: Outcome) -> None:
    print(
        f"{outcome.target:22}{outcome.inputs:>11,}{outcome.inputs / outcome.seconds:>10,.0f}"
        f"{outcome.seconds:>8.0f}{outcome.refused / outcome.inputs:>9.1%}"
        f"{len(outcome.findings):>10}{outcome.slowest * 1000:>12.2f}"
        f"{outcome.grown / _MIB:>11.1f}{outcome.peak_grown / _MIB:>10.1f}",
        flush=True,
    )
    for finding in outcome.findings:
        folder = ROOT / "build" / "fuzz" / outcome.target
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / hashlib.sha256(finding.data).hexdigest()[:12]
        file.write_bytes(finding.data)
        print(f"    {finding.what}\n    at {finding.where or 'no place'}; input: {file}")


def _rows(outcomes: Sequence[Outcome], inputs: int) -> Iterator[Row]:
    for outcome in outcomes:
        yield Row(
            f"{outcome.target}: inputs",
            outcome.inputs,
            "inputs",
            target=f">= {inputs:,}",
            met=outcome.inputs >= inputs,
        )
        yield Row(f"{outcome.target}: rate", outcome.inputs / outcome.seconds, "inputs/s")
    findings = sum(len(outcome.findings) for outcome in outcomes)
    slow = sum("ms for" in one.what for outcome in outcomes for one in outcome.findings)
    lost = max(min(one.grown, _allowance(one)) for one in outcomes) / _MIB
    grown = max(max(0, one.grown - _allowance(one)) for one in outcomes) / _MIB
    peak = max(outcome.peak_grown for outcome in outcomes) / _MIB
    yield Row("findings", findings, "inputs", target="0", met=findings == 0)
    yield Row("inputs over their time", slow, "inputs", target="0", met=slow == 0)
    yield Row("memory that libraries seem to lose", lost, "MiB")
    limit = f"<= {GROWN_MIB_MAX} MiB"
    yield Row("memory that stays", grown, "MiB", target=limit, met=grown <= GROWN_MIB_MAX)
    limit = f"<= {PEAK_MIB_MAX} MiB"
    yield Row("memory at its highest", peak, "MiB", target=limit, met=peak <= PEAK_MIB_MAX)


def _allowance(outcome: Outcome) -> int:
    return LOST_BY_LIBRARIES.get(outcome.target, 0) * outcome.inputs


if __name__ == "__main__":
    sys.exit(main())
