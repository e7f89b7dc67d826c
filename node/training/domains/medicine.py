"""Questions on diseases: MedQuAD (Ben Abacha, Demner-Fushman, 2019, CC BY 4.0).

Knows MedQuAD's split by disease; must not know training.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from node.training.domains.domain import Domain
from node.training.domains.sets import (
    MedicalQuestion,
    bucket_of,
    normalised,
    read_set,
    without_repeats,
)
from node.training.examples import Example

_PLAIN_SHARE = 0.2


def medicine_domain(folder: Path) -> Domain:
    """The given test part, whose diseases are not in train; 1 in 32 diseases for validation."""
    rows = read_set(folder, "medquad", MedicalQuestion)
    test = [_example(row) for row in rows if row.split == "test"]
    unseen = {normalised(row.focus) for row in rows if row.split == "test"}
    known = [row for row in rows if row.split == "train" and normalised(row.focus) not in unseen]
    validation = [_example(row) for row in known if _is_kept_apart(row)]
    learnt = (_example(row) for row in known if not _is_kept_apart(row))
    train = without_repeats(learnt, [*test, *validation])
    return Domain("medicine", tuple(train), tuple(validation), tuple(test), vary=_varied)


def _is_kept_apart(row: MedicalQuestion) -> bool:
    return bucket_of(normalised(row.focus), 32) == 0


def _example(row: MedicalQuestion) -> Example:
    return Example(row.q, row.a, "medquad")


def _varied(example: Example, rng: np.random.Generator) -> Example:
    """Some as people type them: without the set's `(are)` and the space before the mark."""
    if rng.random() >= _PLAIN_SHARE:
        return example
    plain = example.prompt.replace(" (are)", "").replace(" ?", "?")
    return replace(example, prompt=plain)
