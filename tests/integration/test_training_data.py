"""With the real sets: nothing that is measured with is learnt, and no exemplar is a row."""

import tomllib
from pathlib import Path

import pytest

import node
from node.training.domains.catalogue import NAMES, domain
from node.training.domains.sets import normalised

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.mark.parametrize("name", ["math", "law", "science", "psychology"])
def test_no_leak(data_folder: Path, name: str) -> None:
    made = domain(data_folder, name)
    learnt = {normalised(one.prompt) for one in made.train}
    measured = {normalised(one.prompt) for one in (*made.test, *made.validation)}
    assert not learnt & measured
    card = Path(node.__file__).parent / "specialists" / name / "card.toml"
    exemplars = {normalised(text) for text in tomllib.loads(card.read_text())["exemplars"]}
    assert exemplars
    assert not exemplars & (learnt | measured)


def test_every_specialist_has_a_domain() -> None:
    shipped = Path(node.__file__).parent / "specialists"
    for name in NAMES:
        assert (shipped / name / "dslm_adapter.safetensors").is_file()
