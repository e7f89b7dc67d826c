"""Would trees of guessed tokens be faster than the engine's chains?

Method: greedy answers of the real model (five kinds of texts, each kind one client's) are recorded,
and the native step is timed by its number of rows, in four bits and in bf16. Then the answers are
played again: at each step guesses are made, the recorded answer says which are right, and the step
takes what was measured for its rows; once more as if rows cost nothing, the most that any machine
could gain. How many tokens are tried, and in a tree which, is planned as in the engine: what
promises most tokens a second. Chain and tree have the same guesses: those of the engine's own
drafters; or besides, from every other place where the last tokens occurred; or besides, what the
model itself ranked first to fourth after a token when it last stood there ("recycling").

All is in favour of trees: chances start from what those very texts show, a mask for each row and
the copy of the accepted path cost nothing, and the best of three widths is compared.

The tree itself, as a step of the eager model, is `trees_verified.py`; tests show that it says what
transformers says.

Run: `scripts/bench speculation_trees [--quick] [--json]`.
"""

import argparse
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from engine_setting import PRECISIONS
from node.config_reader import Overrides, load_process_config
from node.hosting.fetch import default_model_path
from report import Row, print_report
from trees_played import SOURCES, Cost, Recorded, Shape, Source, Tally, played
from trees_recorded import measure_costs, record

TOKENS, QUICK_TOKENS = 192, 24
ROUNDS, QUICK_ROUNDS = 41, 3
BRANCHES = (2, 3, 4)
GUESSED = (3, 7, 15)
WORTH = 1.03
"""A tree must be so much faster to be worth its code."""
Texts = dict[str, list[Recorded]]


def cost_of(costs: dict[int, float], rows: int) -> float:
    """Seconds; beyond what was measured, as if the last was."""
    return costs[min(rows, max(costs))]


def same_rows(texts: Texts) -> list[Row]:
    """With the same number of guessed tokens a step: how many are right in a chain and in trees."""
    rows: list[Row] = []
    for kind, recorded in texts.items():
        for count in GUESSED:
            found = {
                width: played(recorded, Shape(width, "elsewhere", count), free).accepted
                for width in (1, *BRANCHES)
            }
            chain = found[1]
            name = f"right of {count} guessed a step, {kind}: "
            rows.append(Row(name + "chain", chain, "tokens"))
            rows += [
                Row(f"{name}{width} branches", right, "tokens", "chain", (1 + right) / (1 + chain))
                for width, right in found.items()
                if width > 1
            ]
    return rows


def free(_rows: int) -> float:
    """A machine for which a step costs the same whatever its rows."""
    return 1.0


def planned(texts: Texts, machine: str, cost: Cost, source: Source) -> list[Row]:
    """As many tokens a step as promise most a second: tokens a second of the best tree by kind."""
    rows: list[Row] = []
    totals = {width: Tally() for width in (1, *BRANCHES)}
    for kind, recorded in texts.items():
        found = {width: played(recorded, Shape(width, source), cost) for width in totals}
        for width, tally in found.items():
            totals[width].add(tally)
        rows += _compared(f"{machine}, {source}, {kind}", found)
    worth = _compared(f"{machine}, {source}, all texts", totals)
    ratio = worth[-1].ratio or 0.0
    note = "trees are worth it" if ratio >= WORTH else f"trees gain less than {WORTH - 1:.0%}"
    return [*rows, worth[0], replace(worth[1], note=f"{worth[1].note}: {note}")]


def _compared(name: str, found: dict[int, Tally]) -> list[Row]:
    chain = found[1]
    best = max(BRANCHES, key=lambda width: found[width].rate)
    tree = found[best]
    return [
        Row(f"{name}: chain", chain.rate, "tokens/s", note=_told(chain)),
        Row(
            f"{name}: tree",
            tree.rate,
            "tokens/s",
            "chain",
            tree.rate / chain.rate,
            note=f"{best} branches, {_told(tree)}",
        ),
    ]


def _told(tally: Tally) -> str:
    tokens, rows = tally.tokens / tally.steps, tally.rows / tally.steps
    return f"{tokens:.2f} tokens and {rows:.2f} rows a step"


def main() -> int:
    """Record, measure, play, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="shows that it runs; no figures")
    parser.add_argument("--json", action="store_true", help="only the line for programs")
    parser.add_argument("--model", type=Path, help="another GGUF file")
    arguments = parser.parse_args()
    models = load_process_config(Overrides()).config.paths.models
    path = arguments.model or default_model_path(models)
    costs = {
        precision: measure_costs(path, precision, QUICK_ROUNDS if arguments.quick else ROUNDS)
        for precision in PRECISIONS
    }
    texts = record(path, QUICK_TOKENS if arguments.quick else TOKENS)
    rows = [
        Row(f"a step of {count} rows, {precision}", 1e3 * seconds, "ms")
        for precision, found in costs.items()
        for count, seconds in found.items()
    ]
    rows += same_rows(texts)
    machines: dict[str, Cost] = {
        precision: partial(cost_of, found) for precision, found in costs.items()
    }
    machines["free rows"] = free
    for machine, cost in machines.items():
        for source in SOURCES:
            rows += planned(texts, machine, cost, source)
    tokens = sum(len(one.answer) for recorded in texts.values() for one in recorded)
    about = [f"{tokens} tokens of answers of {path.name}"]
    return print_report("speculation_trees", rows, about, is_table_wanted=not arguments.json)


if __name__ == "__main__":
    sys.exit(main())
