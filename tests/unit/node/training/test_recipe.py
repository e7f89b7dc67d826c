"""A recipe from made-up rows to a folder that is hosted, on a tiny random model."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from node.hosting.adapters import read_adapter
from node.hosting.weights import ModelWeights
from node.training.base import FrozenBase
from node.training.domains.catalogue import domain
from node.training.examples import ChatFormat
from node.training.low_rank import AdapterShape
from node.training.probe import probe_digest
from node.training.recipes.bench import Bench
from node.training.recipes.run import run
from node.training.recipes.settings import RECIPES, recipe
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
    made = run(replace(chosen, settings=settings), law, bench, out, heard.append)
    adapter = read_adapter(out, tiny.config)
    assert bool(adapter.invocation) is (kind == "activated")
    assert made.accuracy is not None
    assert 0 <= made.accuracy <= 1
    card = tomllib.loads((out / "card.toml").read_text())
    assert card["scores"][0]["examples"] == len(law.test)
    assert card["scores"][0]["digest"] == probe_digest(law.test)
    assert any("seed 1" in line for line in heard)
    assert any("the mean of 3" in line for line in heard) is (kind == "final")


def test_every_recipe_has_settings_and_the_trial_its_own() -> None:
    for name in RECIPES:
        assert recipe(name).settings.shape.a_for == "input"
        assert recipe(name, "activated").settings.activated
    assert recipe("law", "trial").settings.shape.a_for == "weight"
    with pytest.raises(KeyError):
        recipe("astrology")
