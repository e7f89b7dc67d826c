"""What each specialist gains on its subject: nats per answer token, accuracy, exact answers.

Method: `specialists_items.npz` holds what was measured once, on one H200 in bf16, with B as it is
shipped (signed bytes): nats of each test item under the base, each specialist, one multitask
adapter, the average of all specialists and the first trial's settings. The tables are made of it:
means over answer tokens, 95 % bootstrap intervals over items (1,000 resamples, fixed seed),
differences paired by item. With `--data DIR --model FILE` the base and the specialists in this
repository are measured again on their test parts, on a GPU if there is one; `--limit N` takes the
first N items of each part, which a CPU does in minutes.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from report import Row, print_report

ITEMS = Path(__file__).with_name("specialists_items.npz")
SHIPPED = Path(__file__).parents[1] / "node" / "specialists"
OWN = ("math", "medicine", "law", "computing")
NAMES = (*OWN, "science", "economics", "history", "psychology")
GAIN = 0.015
"""Nats (for law: share of right answers) by which the trial's settings are to be beaten."""
EXACT_GAIN = 0.015
SEEDS_MAX = 16
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def bootstrap(nats: Numbers, tokens: Numbers) -> Measured:
    """The sum of `nats` over that of `tokens`, resampled by item."""
    rng = np.random.default_rng(7)
    counts = rng.multinomial(len(nats), np.full(len(nats), 1 / len(nats)), size=1000)
    means = (counts @ nats) / (counts @ tokens)
    low, high = np.quantile(means, (0.025, 0.975))
    return Measured(float(nats.sum() / tokens.sum()), float(low), float(high))


class Items:
    """The saved values, by arm (`base`, `math`, ...) and part (`math/test`)."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as file:
            self._every = {name: file[name] for name in file.files}

    def has(self, arm: str, part: str, kind: str = "nats") -> bool:
        """Whether an arm was measured on a part."""
        return f"{arm}/{part}/{kind}" in self._every

    def of(self, arm: str, part: str, kind: str = "nats") -> Numbers:
        """`nats`, `right` or `exact` of each item."""
        found: Numbers = self._every[f"{arm}/{part}/{kind}"].astype(np.float64)
        return found

    def tokens(self, part: str, kind: str = "nats") -> Numbers:
        """Answer tokens of each item; 1 for what is counted by item."""
        found: Numbers = self._every[f"tokens/{part}"].astype(np.float64)
        return found if kind == "nats" else np.ones_like(found)

    def level(self, arm: str, part: str, kind: str = "nats") -> Measured:
        """An arm on a part."""
        return bootstrap(self.of(arm, part, kind), self.tokens(part, kind))

    def gain(self, arm: str, against: str, part: str, kind: str = "nats") -> Measured:
        """How much `arm` minus `against` is, item by item."""
        difference = self.of(arm, part, kind) - self.of(against, part, kind)
        return bootstrap(difference, self.tokens(part, kind))


def own_rows(items: Items) -> list[Row]:
    """Each specialist on its own test part, and against each other arm."""
    rows: list[Row] = []
    for name in NAMES:
        part = f"{name}/test"
        level = items.level(name, part)
        rows.append(Row(f"{name}: nats", level.value, "nats/token", note=str(level)))
        for against in ("base", "trial", "multitask", "average"):
            if items.has(against, part):
                rows.append(_gain_row(items, name, against))
    return rows


def _gain_row(items: Items, name: str, against: str) -> Row:
    part = f"{name}/test"
    gain = items.gain(name, against, part)
    most = -GAIN if against == "trial" else 0.0
    is_wanted = not (name == "law" and against == "trial")  # there accuracy is the target
    return Row(
        f"{name}: minus {against}",
        gain.value,
        "nats/token",
        baseline=f"{against} {items.level(against, part).value:.4f}",
        ratio=items.level(name, part).value / items.level(against, part).value,
        target=f"<= {most:g}" if is_wanted else None,
        met=gain.value <= most if is_wanted else None,
        note=str(gain),
    )


def counted_rows(items: Items) -> list[Row]:
    """Right answers: LegalBench, and GSM8K's final numbers."""
    rows: list[Row] = []
    for name, kind, gain in (("law", "right", GAIN), ("math", "exact", EXACT_GAIN)):
        part = f"{name}/test"
        for arm in ("base", "trial", "multitask", "average", name):
            level = items.level(arm, part, kind)
            rows.append(Row(f"{name}: {kind}, {arm}", level.value, "share", note=str(level)))
        found = items.gain(name, "trial", part, kind)
        rows.append(
            Row(
                f"{name}: {kind}, minus trial",
                found.value,
                "share",
                target=f">= {gain:g}",
                met=found.value >= gain,
                note=str(found),
            )
        )
    return rows


def seed_rows(items: Items) -> list[Row]:
    """The single trainings of which the shipped adapters were made or chosen."""
    rows: list[Row] = []
    for name in NAMES:
        part = f"{name}/test"
        for kind in (name, f"{name}-activated"):
            for seed in range(1, SEEDS_MAX + 1):
                if items.has(f"{kind}-{seed}", part):
                    level = items.level(f"{kind}-{seed}", part)
                    title = f"{kind}: seed {seed}"
                    rows.append(Row(title, level.value, "nats/token", note=str(level)))
    return rows


def activated_rows(items: Items) -> list[Row]:
    """Adapters that leave the prompt's keys and values as the base's, and what that costs."""
    rows: list[Row] = []
    for name in NAMES:
        part, arm = f"{name}/test", f"{name}-activated"
        if items.has(arm, part):
            level, cost = items.level(arm, part), items.gain(arm, name, part)
            note = f"{level}; minus {name} {cost}"
            rows.append(Row(arm, level.value, "nats/token", note=note))
    return rows


def print_matrix(items: Items) -> None:
    """Every adapter on every test part, for people."""
    parts = [f"{name}/test" for name in NAMES] + [f"{name}/mmlu-test" for name in OWN]
    print("\nnats per answer token: adapters (rows) on test parts")
    print("| adapter | " + " | ".join(parts) + " |")
    print("|---" * (len(parts) + 1) + "|")
    for arm in ("base", *NAMES, "multitask", "average"):
        cells = [f"{items.level(arm, part).value:.3f}" for part in parts]
        print(f"| {arm} | " + " | ".join(cells) + " |")


def measure(arguments: argparse.Namespace) -> list[Row]:
    """Base and shipped specialists on their test parts, with the real model."""
    import torch

    from node.training.domains.catalogue import own_domain
    from node.training.export import load_adapter
    from node.training.recipes.bench import open_bench

    bench = open_bench(arguments.model, "cuda" if torch.cuda.is_available() else "cpu")
    rows: list[Row] = []
    for name in arguments.only or NAMES:
        domain = own_domain(arguments.data, name)
        test = domain.test[: arguments.limit or None]
        adapter = load_adapter(SHIPPED / name, bench.base)
        base = bench.score(None, test, domain.candidates)
        own = bench.score(adapter, test, domain.candidates)
        level = bootstrap(own.nats, own.tokens.astype(np.float64))
        gain = bootstrap(own.nats - base.nats, own.tokens.astype(np.float64))
        note = f"{level}; minus base {gain}; {len(test)} items"
        ratio = own.per_token / base.per_token
        reference = f"base {base.per_token:.4f}"
        rows.append(
            Row(name, own.per_token, "nats/token", reference, ratio, "< base", ratio < 1, note)
        )
    return rows


def main(given: Sequence[str] | None = None) -> int:
    """The tables, and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with NAME.jsonl.gz: measure again")
    parser.add_argument("--model", type=Path, help="the base, for --data")
    parser.add_argument("--limit", type=int, default=0, help="items of each part")
    parser.add_argument("--only", action="append", choices=NAMES, help="repeatable")
    parser.add_argument("--quick", action="store_true", help="no effect: the tables take seconds")
    arguments = parser.parse_args(given)
    if arguments.data is not None:
        if arguments.model is None:
            parser.error("--data needs --model")
        return print_report("specialists measured", measure(arguments))
    items = Items(ITEMS)
    print_matrix(items)
    rows = [*own_rows(items), *counted_rows(items), *activated_rows(items), *seed_rows(items)]
    return print_report("specialists", rows, ["one H200, bf16; items saved, not measured again"])


if __name__ == "__main__":
    raise SystemExit(main())
