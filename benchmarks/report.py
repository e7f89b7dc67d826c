"""How benchmarks say what they found: a table for people, then one line of JSON for programs.

Knows rows; must not know what was measured.
"""

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `ratio` is value over baseline; `met` is None when there is no target, or when
    the baseline could not be run. `note` says why not, or what else there is to know.
    """

    name: str
    value: float | None
    unit: str
    baseline: str | None = None
    ratio: float | None = None
    target: str | None = None
    met: bool | None = None
    note: str = ""


def machine() -> str:
    """The processor and how many threads it offers this process."""
    name = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else ():
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    return f"{name}, {len(os.sched_getaffinity(0))} threads, Python {platform.python_version()}"


def line(row: Row, width: int) -> str:
    """A row for people, its name padded to `width`."""
    value = "not run" if row.value is None else f"{row.value:,.4g} {row.unit}"
    against = f"{row.ratio:.3g}x {row.baseline}" if row.ratio is not None else ""
    verdict = {True: "met", False: "MISSED", None: ""}[row.met]
    target = f"target {row.target}" if row.target else ""
    text = f"  {row.name:<{width}}  {value:>16}  {against:<34} {target:<18} {verdict:<6} {row.note}"
    return text.rstrip()


def print_report(
    benchmark: str,
    rows: Sequence[Row],
    about: Sequence[str] = (),
    *,
    is_table_wanted: bool = True,
) -> int:
    """Print both forms, or the JSON alone, to stdout; the exit code: 1 if a target was missed.

    `about` says, a line each, what took part (versions, settings).
    """
    if is_table_wanted:
        print(f"\n{benchmark} on {machine()}")
        for text in about:
            print(f"  with {text}")
        width = max((len(row.name) for row in rows), default=0)
        for row in rows:
            print(line(row, width))
    document = {
        "benchmark": benchmark,
        "machine": machine(),
        "about": list(about),
        "rows": [asdict(row) for row in rows],
    }
    print(json.dumps(document))
    return int(any(row.met is False for row in rows))
