"""Two specialists with cards of different domains, a plain base: prompts find their way."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from node.cli.trial_swarm import TrialNode, TrialSwarm, address_of
from node.config import environment
from node.hosting.fetch import default_encoder_paths
from node.state import SpecialistsState

pytestmark = [pytest.mark.integration, pytest.mark.slow]

HOSTED = """
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

[[models]]
id = "lab/medicine"
path = "smollm2"
context = 512
slots = 1
domains = ["medicine"]
description = "Diseases, symptoms, treatments and drugs"
examples = [
    "What are the symptoms of type 2 diabetes?",
    "How is high blood pressure treated?",
    "What are the side effects of ibuprofen?",
    "Who is at risk of osteoporosis?",
]

[[models]]
id = "base"
path = "smollm2"
context = 512
slots = 1
"""


class Ours(msgspec.Struct):
    specialist: str
    why: str


class Completion(msgspec.Struct):
    model: str
    dslm: Ours


@pytest.fixture(scope="module")
def asker(smollm2_path: Path, models_dir: Path) -> Iterator[TrialNode]:
    """A node that hosts nothing and knows the one that hosts three."""
    assert smollm2_path.exists()
    if not default_encoder_paths(models_dir).exist:
        pytest.skip("the sentence encoder is not there: run scripts/test, which fetches it")
    with TrialSwarm(models_dir, environment(), precision="fp32") as swarm:
        asker = swarm.start("asker", "none")
        swarm.wait_ready([asker], 90)
        host = swarm.start("host", "", [address_of(asker)], HOSTED)
        swarm.wait_ready([host], 120)
        swarm.wait_met(asker, 1, 60)
        yield asker


def route(asker: TrialNode, prompt: str, model: str = "auto") -> Completion:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": 2,
        "temperature": 0,
    }
    return asker.client.post("/v1/chat/completions", body, Completion)


@pytest.mark.parametrize(
    ("prompt", "specialist"),
    [
        ("My landlord broke our rental contract. Can I sue him for damages?", "lab/law"),
        ("Is an oral promise to sell a house enforceable in court?", "lab/law"),
        ("Which medicine helps against a migraine, and what are the risks?", "lab/medicine"),
        ("What causes asthma in children?", "lab/medicine"),
        ("Write a limerick about a cat on a skateboard.", "base"),
    ],
)
def test_auto_finds_the_nearest_card_or_the_base(
    asker: TrialNode, prompt: str, specialist: str
) -> None:
    answer = route(asker, prompt)
    assert answer.dslm.specialist == specialist, answer.dslm.why
    assert answer.model == specialist


def test_a_named_model_is_taken_as_named(asker: TrialNode) -> None:
    assert route(asker, "What causes asthma?", "lab/law").dslm.specialist == "lab/law"


def test_all_three_are_listed_with_their_domains(asker: TrialNode) -> None:
    models = asker.client.get("/api/v1/models", SpecialistsState).models
    assert {model.id: (model.domains, model.is_base) for model in models} == {
        "base": ((), True),
        "lab/law": (("law",), False),
        "lab/medicine": (("medicine",), False),
    }
