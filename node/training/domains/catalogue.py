"""All domains by name, each from the sets that it learns from.

Knows which sets make which domain; must not know training.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from node.training.domains.choices import SUBJECTS, all_choices, choice_domain
from node.training.domains.computing import computing_domain
from node.training.domains.domain import Domain, Vary, unchanged
from node.training.domains.law import law_domain
from node.training.domains.math import math_domain
from node.training.domains.medicine import medicine_domain
from node.training.domains.sets import without_repeats
from node.training.examples import Example

_OWN_SETS: Mapping[str, Callable[[Path], Domain]] = {
    "math": math_domain,
    "medicine": medicine_domain,
    "law": law_domain,
    "computing": computing_domain,
}
NAMES = tuple(SUBJECTS)


def own_domain(folder: Path, name: str) -> Domain:
    """The domain from its own set; for those without one, from MMLU."""
    return _OWN_SETS[name](folder) if name in _OWN_SETS else choice_domain(folder, name)


def domain(folder: Path, name: str) -> Domain:
    """As `own_domain`, with questions of MMLU added to train: those on the subject.

    A domain that has nothing else learns from those on all subjects, and from its own three times:
    they are few. Validation and test are those of the domain's own set.
    """
    own = own_domain(folder, name)
    if name not in _OWN_SETS:
        return replace(own, train=(*own.train, *own.train, *all_choices(folder)))
    more = choice_domain(folder, name)
    held_out = [*own.test, *own.validation, *more.test, *more.validation]
    train = (*own.train, *without_repeats(more.train, held_out))
    return replace(own, train=train, vary=partial(_own_varied, own.vary))


def multitask(folder: Path) -> Domain:
    """All domains as one, for an adapter that is to know everything."""
    every = [
        domain(folder, name) if name in _OWN_SETS else own_domain(folder, name) for name in NAMES
    ]
    every.append(Domain("other", tuple(all_choices(folder)), (), ()))
    varies = {id(example): one.vary for one in every for example in one.train}
    return Domain(
        "multitask",
        tuple(example for one in every for example in one.train),
        tuple(example for one in every for example in one.validation),
        (),
        vary=partial(_each_varied, varies),
    )


def _own_varied(vary: Vary, example: Example, rng: np.random.Generator) -> Example:
    return example if example.source.startswith("mmlu") else vary(example, rng)


def _each_varied(varies: Mapping[int, Vary], example: Example, rng: np.random.Generator) -> Example:
    return varies.get(id(example), unchanged)(example, rng)
