"""The settings that were chosen for each specialist, and those of the first trial.

Knows numbers, and which domain is meant by a name; must not know how they are used. They were
chosen on validation parts alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from node.training.domains.catalogue import NAMES, domain, multitask, own_domain
from node.training.domains.domain import Domain
from node.training.domains.planner import planner_domain
from node.training.fit import Settings
from node.training.low_rank import AdapterShape

Kind = Literal["final", "trial", "activated"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """An adapter for each of `seeds`; of them and of their means, what is best on validation.

    `is_own_only` learns from the domain's own set as it is, without variations.
    """

    name: str
    settings: Settings
    seeds: tuple[int, ...] = (1,)
    is_own_only: bool = False


@dataclass(frozen=True, slots=True)
class _Chosen:
    settings: Settings
    seeds: tuple[int, ...] = (1, 2, 3)
    activated_seeds: tuple[int, ...] = (1, 2)


_FEW_ROWS = _Chosen(
    Settings(learning_rate=1e-3, epochs=1, decay="cosine"), activated_seeds=(1, 2, 3)
)
_CHOSEN: Mapping[str, _Chosen] = {
    "math": _Chosen(
        Settings(learning_rate=5e-3, epochs=3, decay="cosine", dropped=0.25), (1, 2, 3, 4)
    ),
    "medicine": _Chosen(Settings(learning_rate=5e-3, epochs=2, decay="cosine", dropped=0.1)),
    "law": _Chosen(
        Settings(learning_rate=2e-3, epochs=3, decay="cosine", dropped=0.25), (1, 2, 3, 4)
    ),
    "computing": _Chosen(Settings(learning_rate=2e-3, epochs=2, decay="cosine", dropped=0.1)),
    "multitask": _Chosen(
        Settings(learning_rate=3e-3, epochs=2, decay="cosine", dropped=0.05, weighting="example"),
        (1,),
    ),
    "planner": _Chosen(
        Settings(learning_rate=3e-3, epochs=4, decay="cosine", dropped=0.05), (1, 2)
    ),
}
RECIPES = (*NAMES, "multitask", "planner")

_TRIAL_SHAPE = AdapterShape(a_for="weight")
_TRIAL: Mapping[str, Settings] = {
    "math": Settings(5e-3, 2, steps_max=204, shape=_TRIAL_SHAPE),
    "medicine": Settings(5e-3, 1, steps_max=168, shape=_TRIAL_SHAPE),
    "law": Settings(1.5e-3, 2, steps_max=329, shape=_TRIAL_SHAPE),
    "computing": Settings(1.5e-3, 2, steps_max=133, shape=_TRIAL_SHAPE),
}


def recipe(name: str, kind: Kind = "final") -> Recipe:
    """`KeyError` for a name that is not in `RECIPES`, or that was not in the trial."""
    if kind == "trial":
        return Recipe(name, _TRIAL[name], is_own_only=True)
    if name not in RECIPES:
        raise KeyError(name)
    chosen = _CHOSEN.get(name, _FEW_ROWS)
    if kind == "activated":
        settings = replace(chosen.settings, activated=True)
        return Recipe(f"{name}-activated", settings, chosen.activated_seeds)
    return Recipe(name, chosen.settings, chosen.seeds)


def recipe_domain(folder: Path, name: str, kind: Kind = "final") -> Domain:
    """What the recipe of this name and kind learns from: sets that lie in `folder`."""
    if name == "multitask":
        return multitask(folder)
    if name == "planner":
        return planner_domain(folder)
    return own_domain(folder, name) if kind == "trial" else domain(folder, name)
