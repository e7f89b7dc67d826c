"""A recipe from made-up rows to a folder that is hosted, on a tiny random model."""

import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from coordinator.routing.planner_text import planner_answer, planner_question
from node.hosting.adapters import read_adapter
from node.hosting.weights import ModelWeights
from node.training.base import FrozenBase
from node.training.domains.catalogue import domain
from node.training.domains.domain import Domain
from node.training.domains.planner import planner_domain
from node.training.examples import ChatFormat, Example
from node.training.low_rank import AdapterShape
from node.training.probe import probe_digest
from node.training.recipes.bench import Bench
from node.training.recipes.plans import MEASURES, plan_shares
from node.training.recipes.run import choose, run
from node.training.recipes.settings import RECIPES, Recipe, recipe
from node.training.recipes.trainings import Trainings
from protocols.errors import UserError
from tests.unit.node.training.made_up_sets import write_sets


@pytest.fixture
def bench(tiny: ModelWeights, tiny_base: FrozenBase) -> Bench:
    return Bench(tiny_base, ChatFormat(tiny.tokenizer), tiny.digest, is_captured=False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["final", "activated"])
def test_a_recipe_makes_a_specialist(
    tmp_path: Path, tiny: ModelWeights, bench: Bench, kind: str
) -> None:
    law = domain(write_sets(tmp_path, 24), "law")
    law = replace(law, train=law.train[:8], validation=law.validation[:4] or law.test)
    chosen = recipe("law", kind)  # type: ignore[arg-type]
    settings = replace(chosen.settings, batch=8, epochs=1, longest=160, shape=AdapterShape(rank=2))
    heard: list[str] = []
    out = tmp_path / "law"
    trainings = Trainings(bench, heard.append)
    _, made = run(replace(chosen, settings=settings), law, trainings, out)
    adapter = read_adapter(out, tiny.config)
    assert bool(adapter.invocation) is (kind == "activated")
    assert made.accuracy is not None
    assert 0 <= made.accuracy <= 1
    card = tomllib.loads((out / "card.toml").read_text())
    assert card["scores"][0]["examples"] == len(law.test)
    assert card["scores"][0]["digest"] == probe_digest(law.test)
    assert any("seed 1" in line for line in heard)
    assert any("mean of 4" in line for line in heard) is (kind == "final")


class Silent(Bench):
    """Its context is too short for questions to the planning model."""

    def answers(  # type: ignore[override]
        self, _adapter: object, examples: Sequence[Example], **_more: bool
    ) -> list[str]:
        return ["" for _ in examples]


def quick(domain: Domain, recipe: Recipe) -> tuple[Domain, Recipe]:
    """A few rows and steps."""
    small = replace(
        recipe.settings, batch=4, epochs=1, longest=96, steps_max=2, shape=AdapterShape(rank=2)
    )
    few = replace(
        domain,
        train=domain.train[:8],
        validation=domain.validation[:2] or domain.test[:2],
        test=domain.test[:2],
        make=None,
    )
    return few, replace(recipe, settings=small, seeds=recipe.seeds[:2])


def test_trainings_that_are_kept_are_not_repeated(tmp_path: Path, bench: Bench) -> None:
    sums, chosen = quick(domain(write_sets(tmp_path), "math"), recipe("math"))
    heard: list[str] = []
    trainings = Trainings(bench, heard.append, tmp_path / "work")
    first = choose(chosen, sums, trainings)
    assert set(first.singles) == {1, 2}
    assert sum(line.endswith("1 epochs") for line in heard) == 2
    heard.clear()
    again = choose(chosen, sums, Trainings(bench, heard.append, tmp_path / "work", lambda: False))
    assert again.how == first.how
    assert all(torch.equal(a, b) for a, b in zip(again.adapter, first.adapter, strict=True))
    assert not any("loss" in line for line in heard)


def test_what_may_not_begin_is_missing(tmp_path: Path, bench: Bench) -> None:
    sums, chosen = quick(domain(write_sets(tmp_path), "math"), recipe("math"))
    allowed = iter((True, False))
    one = choose(chosen, sums, Trainings(bench, print, None, lambda: next(allowed)))
    assert set(one.singles) == {1}
    with pytest.raises(UserError, match="no time"):
        choose(chosen, sums, Trainings(bench, print, None, lambda: False))


def test_the_planning_model_is_judged(tmp_path: Path, bench: Bench) -> None:
    made_up = planner_domain(write_sets(tmp_path), train=8, held_out=6)
    plans, chosen = quick(made_up, recipe("planner"))
    short = Example(
        planner_question([("law", "")], "the cat"),
        planner_answer([("law", "the cat")]),
        "planner/one/seen/named",
    )
    plans = replace(plans, validation=(short,), test=(short, short))
    silent = Silent(bench.base, bench.form, bench.digest, is_captured=False)
    _, made = run(chosen, plans, Trainings(silent, print), tmp_path / "planner")
    assert made.plans is not None
    assert made.plans["all"]["rows"] == 2
    assert made.plans["all"]["whole"] == 0
    assert tomllib.loads((tmp_path / "planner" / "card.toml").read_text())["scores"]
    perfect = plan_shares(made_up.test, [one.answer for one in made_up.test])
    assert all(perfect["all"][measure] == 1 for measure in MEASURES)
    turned = [
        "\n".join(reversed(one.answer.splitlines()))
        for one in made_up.test
        if "chain" in one.source
    ]
    chains = [one for one in made_up.test if "chain" in one.source]
    swapped = plan_shares(chains, turned)["all"]
    assert (swapped["valid"], swapped["name_set"]) == (1, 1)
    assert swapped["whole"] < 1


def test_every_recipe_has_settings_and_the_trial_its_own() -> None:
    for name in RECIPES:
        assert recipe(name).settings.shape.a_for == "input"
        assert recipe(name, "activated").settings.activated
    assert recipe("law", "trial").settings.shape.a_for == "weight"
    with pytest.raises(KeyError):
        recipe("astrology")
