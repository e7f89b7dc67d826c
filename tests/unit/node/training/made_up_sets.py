"""Made-up rows in the form of the public sets."""

import gzip
import json
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def write_sets(folder: Path, rows: int = 40) -> Path:
    """All sets, with `rows` in each part; some train rows repeat test rows."""
    for name, make in (
        ("gsm8k", _sums),
        ("medquad", _illnesses),
        ("legalbench", _clauses),
        ("mbpp", _tasks),
        ("mmlu", _choices),
        ("clinc150", _wishes),
    ):
        lines = "\n".join(json.dumps(row) for row in make(rows))
        (folder / f"{name}.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    return folder


def _sums(rows: int) -> list[Row]:
    def row(split: str, number: int) -> Row:
        return {
            "split": split,
            "q": f"Ann has {number} nuts and buys 5 bags of {number + 40} nuts. How many is that?",
            "a": f"In bags there are 5*{number + 40}=<<5*{number + 40}={5 * (number + 40)}>>"
            f"{5 * (number + 40)} nuts.\n#### {5 * (number + 40)}",
        }

    repeated = {**row("test", 3), "split": "train"}
    return [
        *(row("test", number) for number in range(3, 9)),
        *(row("train", number) for number in range(13, 13 + rows)),
        repeated,
    ]


def _illnesses(rows: int) -> list[Row]:
    def row(split: str, number: int, question: str = "What is (are)") -> Row:
        name = f"Fever {number}"
        return {
            "split": split,
            "focus": name,
            "q": f"{question} {name} ?",
            "a": f"{name} is warm.",
        }

    shared = row("train", 1, "What causes")  # a disease of the test part
    return [row("test", 1), shared, *(row("train", number) for number in range(2, 2 + rows))]


def _clauses(rows: int) -> list[Row]:
    def row(split: str, number: int) -> Row:
        answer = "Yes" if number % 3 else "No"
        return {"split": split, "task": "CUAD_Cap On X", "q": f"Clause {number}.", "a": answer}

    repeated = {**row("test", 1000), "split": "train"}
    test = [row("test", number) for number in range(1000, 1006)]
    return [*test, repeated, *(row("train", number) for number in range(rows))]


def _tasks(rows: int) -> list[Row]:
    def row(split: str, number: int) -> Row:
        return {
            "split": split,
            "id": number,
            "q": f"Write a function to add {number}.",
            "code": f"def add(x):\r\n    return x + {number}",
            "tests": [f"assert add(1) == {number + 1}"],
        }

    splits = [("test", 3), ("val", 6), ("train", rows), ("prompt", 2)]
    numbers = iter(range(10_000))
    return [row(split, next(numbers)) for split, count in splits for _ in range(count)]


def _choices(rows: int) -> list[Row]:
    domains = (
        "math",
        "medicine",
        "law",
        "computing",
        "physics_chem",
        "economics_business",
        "history_politics",
        "psychology",
        "other",
    )
    return [
        {
            "split": split,
            "subject": f"{domain}_{number % 2}",
            "domain": domain,
            "q": f"Which {domain} is number {number}?",
            "choices": ["one", "two", "three", f"four {number}"],
            "answer": "D",
            "bucket": number % 6,
        }
        for domain in domains
        for split in ("dev", "val", "test")
        for number in range(0 if split == "dev" else 100, rows if split == "dev" else 100 + rows)
    ]


def _wishes(rows: int) -> list[Row]:
    return [
        {"split": split, "domain": domain, "q": f"please do {domain} {number} {split}"}
        for domain in ("banking", "travel", "oos")
        for split in ("train", "test")
        for number in range(rows)
    ]
