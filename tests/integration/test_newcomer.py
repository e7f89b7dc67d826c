"""A newcomer's path: a folder of examples, a card, a node; a prompt of that kind finds it."""

import json
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from node.cli.client import Client
from node.cli.trial_swarm import TrialNode, TrialSwarm, address_of
from node.config import environment
from node.engine.adapters.weights import PartName
from node.hosting.fetch import default_encoder_paths
from node.state import CardsState
from protocols.errors import DslmError
from protocols.records import CapabilityCard, open_sealed

pytestmark = [pytest.mark.integration, pytest.mark.slow]

MINUTE = 60.0
PATIENCE = 3.0
"""The machine of a test run is shared; what is promised is a minute on one that is not."""
PARTS: tuple[PartName, ...] = ("query", "value")
EXAMPLES = """\
When should I put supers on my beehive?
How do I know that my colony has lost its queen?
My bees hang in a cluster in front of the hive in the evening. Why?
How much honey must I leave in the hive for winter?
What is the best treatment against varroa mites in August?
Can I unite two weak colonies of bees in autumn?
How do I catch a swarm that sits high in a tree?
Which flowers give bees pollen in early spring?
How often should a beekeeper inspect the brood frames?
What does a queen cell look like, and should I cut it out?
Why are there dead drones in front of my hive?
How do I feed sugar syrup without starting robbing between hives?
Is it too cold to open the beehive at ten degrees?
What protective clothing does a new beekeeper need?
How do I extract honey from the comb without a centrifuge?
My honey has crystallised in the comb. What can I do?
How many frames of brood does a strong colony have in May?
When do worker bees begin to fly out for nectar?
How do I mark the queen, and which colour is it this year?
What is the difference between a Langstroth and a Dadant hive?
Do bees need water near the apiary in summer?
How do I recognise American foulbrood in the cells?
Can I move a beehive by a few metres in the garden?
What causes chalkbrood, and does it go away by itself?
How do I make a nucleus colony from a strong hive?
Which smoker fuel is kind to the bees?
Why is my new queen not laying eggs after two weeks?
How far do honey bees fly from their hive to forage?
Should the entrance of the hive be made smaller against wasps?
When is the honey ripe enough to be harvested?
"""
ASKED = (
    "I saw eggs but no queen in my hive today. Is my bee colony all right?",
    "How do I protect my bees from mites before winter?",
    "Can I harvest honey in July if the cells are not capped?",
)
LAW = """
[[models]]
id = "base"
path = "smollm2"
context = 512
slots = 1

[[models]]
id = "lab/law"
path = "smollm2"
context = 512
slots = 1
domains = ["law"]
description = "Contracts, court rulings, statutes and legal rights"
examples = [
    "Is a verbal agreement a binding contract?",
    "Does this clause limit the liability of the seller?",
    "What must a plaintiff prove to win a negligence case?",
    "Can a tenant be evicted without notice?",
]
"""


class Ours(msgspec.Struct):
    specialist: str
    why: str


class Completion(msgspec.Struct):
    dslm: Ours


def ask(node: TrialNode, prompt: str) -> str:
    body = {
        "model": "auto",
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": 2,
        "temperature": 0,
    }
    return node.client.post("/v1/chat/completions", body, Completion).dslm.specialist


def dslm(*arguments: str, models_dir: Path, home: Path) -> "subprocess.CompletedProcess[str]":
    """A command, as somebody types it who has a node of their own nowhere."""
    kept = {name: value for name, value in environment().items() if not name.startswith("DSLM_")}
    return subprocess.run(  # noqa: S603
        [sys.executable, "-m", "node", *arguments],
        env=kept | {"DSLM_MODELS_DIR": str(models_dir), "DSLM_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def write_random_adapter(folder: Path, model: Path) -> None:
    """An adapter that does next to nothing, in the compact form."""
    import torch

    from node.engine.weights.quantise import quantise_int8
    from node.hosting.compact_adapter import CompactConfig, write_compact
    from node.hosting.read import read_model

    shapes = read_model(model).config.tensor_shapes()
    numbers = torch.Generator().manual_seed(1)
    layers = {int(name.split(".")[1]) for name in shapes if name.startswith("layers.")}
    bs = {
        (layer, part): quantise_int8(
            torch.randn(shapes[f"layers.{layer}.{part}"][0], 4, generator=numbers) * 0.001
        )
        for layer in layers
        for part in PARTS
    }
    write_compact(folder, CompactConfig("dslm-adapter-1", 1, 4, 1.0, parts=PARTS), bs)


@pytest.fixture(scope="module")
def swarm(smollm2_path: Path, models_dir: Path) -> Iterator[TrialSwarm]:
    assert smollm2_path.exists()
    if not default_encoder_paths(models_dir).exist:
        pytest.skip("the sentence encoder is not there: run scripts/test, which fetches it")
    with TrialSwarm(models_dir, environment(), precision="fp32") as swarm:
        yield swarm


def test_from_thirty_examples_to_being_asked_within_a_minute(
    swarm: TrialSwarm, smollm2_path: Path, models_dir: Path, tmp_path: Path
) -> None:
    asker = swarm.start("asker", "", models_toml=LAW)
    swarm.wait_ready([asker], 120)
    assert ask(asker, ASKED[0]) == "base"

    examples, adapter = tmp_path / "examples", tmp_path / "bees"
    examples.mkdir()
    for number, line in enumerate(EXAMPLES.splitlines()):
        (examples / f"{number:02}.txt").write_text(line, encoding="utf-8")
    write_random_adapter(adapter, smollm2_path)
    began = time.monotonic()
    made = dslm(
        *("card", "new", str(examples), "--adapter", str(adapter), "--id", "lab/bees"),
        *("--language", "en", "--url", asker.client.url),
        models_dir=models_dir,
        home=tmp_path / "home",
    )
    assert made.returncode == 0, made.stderr
    assert "30 examples" in made.stderr
    assert time.monotonic() - began < MINUTE * PATIENCE
    (lines,) = tomllib.loads(made.stdout)["models"]
    assert lines["id"] == "lab/bees"
    checked = dslm(
        *("card", "check", str(adapter), "--json", "--url", asker.client.url),
        models_dir=models_dir,
        home=tmp_path / "home",
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    ranking = {one["name"]: one["detail"] for one in json.loads(checked.stdout)["checks"]}
    assert "10 of its 10 own exemplars against 1 other" in ranking["ranking"]

    began = time.monotonic()
    newcomer = swarm.start("newcomer", "", [address_of(asker)], made.stdout)
    patience = began + MINUTE * PATIENCE
    while (found := _try(asker, ASKED[0])) != "lab/bees":
        assert newcomer.process.poll() is None, newcomer.log.read_text()
        assert time.monotonic() < patience, f"{found} after {MINUTE * PATIENCE:.0f} s"
        time.sleep(0.5)
    print(f"asked {time.monotonic() - began:.1f} s after its node was started")  # noqa: T201
    assert [ask(asker, prompt) for prompt in ASKED] == ["lab/bees"] * 3
    assert ask(asker, "Can my landlord keep the deposit after the contract ends?") == "lab/law"

    shown = dslm(
        *("card", "show", "lab/bees", "--url", asker.client.url),
        models_dir=models_dir,
        home=tmp_path / "home",
    )
    assert "specialist   lab/bees" in shown.stdout, shown.stderr
    unknown = dslm(
        *("card", "show", "lab/wasps", "--url", asker.client.url),
        models_dir=models_dir,
        home=tmp_path / "home",
    )
    assert (unknown.returncode, unknown.stdout) == (4, "")
    card = published(asker.client, "lab/bees")
    assert card.domains
    assert len(card.adapter) == len(card.base_digest) == 64
    assert (card.languages, card.is_activated) == (("en",), False)
    assert len(card.exemplars) == 10
    assert set(card.exemplars) <= set(EXAMPLES.splitlines())


def _try(node: TrialNode, prompt: str) -> str:
    try:
        return ask(node, prompt)
    except DslmError as error:  # known already, but its streams are not served yet
        return str(error)


def published(client: Client, specialist: str) -> CapabilityCard:
    """The card as another peer knows it."""
    (state,) = client.get(f"/api/v1/cards?specialist={specialist}", CardsState).cards
    assert not state.is_local
    record = open_sealed(state.sealed)
    assert isinstance(record, CapabilityCard)
    return record
