"""Yes or no about clauses and cases: LegalBench (Guha et al., arXiv 2308.11462; licence per task).

Knows LegalBench's tasks; must not know training.
"""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from node.training.domains.domain import Domain
from node.training.domains.sets import Question, bucket_of, read_set, without_repeats
from node.training.examples import Example

CHOICES = ("Yes", "No")


def law_domain(folder: Path) -> Domain:
    """The given test part with as many Yes as No in each task; 1 in 32 texts for validation."""
    rows = read_set(folder, "legalbench", Question)
    test = [_example(row) for row in balanced(row for row in rows if row.split == "test")]
    unseen = {row.q for row in rows if row.split == "test"}
    known = [row for row in rows if row.split == "train" and row.q not in unseen]
    validation = [
        _example(row) for row in balanced(row for row in known if bucket_of(row.q, 32) == 0)
    ]
    learnt = (_example(row) for row in known if bucket_of(row.q, 32) != 0)
    train = without_repeats(learnt, [*test, *validation])
    return Domain("law", tuple(train), tuple(validation), tuple(test), candidates=CHOICES)


def balanced(rows: Iterable[Question]) -> list[Question]:
    """The first of each task, as many Yes as No, in the order of `rows`."""
    every = list(rows)
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for row in every:
        counts[row.task, row.a] += 1
    taken: dict[tuple[str, str], int] = defaultdict(int)
    kept: list[Question] = []
    for row in every:
        most = min(counts[row.task, choice] for choice in CHOICES)
        if row.a in CHOICES and taken[row.task, row.a] < most:
            taken[row.task, row.a] += 1
            kept.append(row)
    return kept


def readable(task: str) -> str:
    """A task's name as words: `CUAD_Cap On Liability` is "CUAD cap on liability"."""
    prefix, mark, rest = task.partition("CUAD_")
    return f"CUAD {rest.lower()}" if mark and not prefix else task.replace("_", " ")


def _example(row: Question) -> Example:
    prompt = f"Task: {readable(row.task)}. Answer Yes or No.\n\n{row.q}"
    return Example(prompt, row.a, f"legalbench/{row.task}")
