"""The router with the encoder and the head that ship: prompts go to who is good at them."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from coordinator.measure import PeerMeasurements
from coordinator.routing.head import load_head
from coordinator.routing.router import Router, Wishes
from node.hosting.encoder import MiniLmEncoder
from node.hosting.fetch import default_encoder_paths
from node.hosting.prototypes import make_prototypes
from protocols.ids import PeerId
from protocols.messages.ask import Text
from protocols.records import CapabilityCard

pytestmark = [pytest.mark.integration, pytest.mark.slow]

TAUGHT: Mapping[str, tuple[str, ...]] = {
    "law": (
        "Is a verbal agreement a binding contract?",
        "What must a plaintiff prove to win a negligence case?",
        "Can a landlord evict a tenant without notice?",
        "Does this clause limit the liability of the seller?",
        "When is evidence from an illegal search excluded at trial?",
    ),
    "medicine": (
        "What are the symptoms of type 2 diabetes?",
        "How is high blood pressure treated?",
        "What are the side effects of ibuprofen?",
        "Who is at risk of osteoporosis?",
        "A patient has fever and chest pain. What is the likely diagnosis?",
    ),
    "math": (
        "What is the derivative of x squared times the sine of x?",
        "A train travels 60 miles in 40 minutes. What is its speed?",
        "How many ways are there to choose 3 cards out of 52?",
        "Solve 3x + 7 = 22 for x.",
        "Find the area of a triangle with sides 3, 4 and 5.",
    ),
    "computing": (
        "Write a Python function that reverses a string.",
        "What is the worst-case complexity of quicksort?",
        "How do I remove duplicates from a list in Python?",
        "Explain how a hash table handles collisions.",
        "Why does my loop never end?",
    ),
}
ASKED = {
    "Is a contract valid if one party was a minor when signing it?": "law",
    "The buyer sues the seller for breach of warranty. Who wins the suit?": "law",
    "Which antibiotic is used for a urinary tract infection?": "medicine",
    "What causes migraine headaches and how can they be prevented?": "medicine",
    "What is the probability of rolling two sixes with two dice?": "math",
    "Tom has 12 apples and gives a third of them away. How many are left?": "math",
    "Write a function that checks whether a list is sorted.": "computing",
    "How can I sort a dictionary by its values in Python?": "computing",
}


@pytest.fixture(scope="module")
def encoder(models_dir: Path) -> MiniLmEncoder:
    paths = default_encoder_paths(models_dir)
    if not paths.exist:
        pytest.skip(f"no sentence encoder in {models_dir}: run scripts/test, which fetches it")
    return MiniLmEncoder(paths.model, paths.tokenizer)


@pytest.fixture(scope="module")
def cards(encoder: MiniLmEncoder) -> list[CapabilityCard]:
    found = [card("base", encoder, ())]
    return found + [card(name, encoder, texts) for name, texts in TAUGHT.items()]


def card(name: str, encoder: MiniLmEncoder, texts: tuple[str, ...]) -> CapabilityCard:
    vectors = asyncio.run(encoder.encode(texts)) if texts else None
    return CapabilityCard(
        peer="p", swarm="s", sequence=1, expires_at=1e10, specialist=name, model_digest="d",
        base="b", precision="fp32", context_length=2048, domains=(name,) if texts else (),
        encoder=encoder.digest if texts else "",
        prototypes=make_prototypes(vectors, 4) if vectors is not None else (),
    )  # fmt: skip


def router(encoder: MiniLmEncoder) -> Router:
    head = load_head()
    assert head.encoder == encoder.digest, "the head that ships is for the encoder that ships"
    return Router(encoder, PeerMeasurements(PeerId("me")), head=head)


@pytest.mark.parametrize(("prompt", "specialist"), ASKED.items())
async def test_prompts_go_to_their_subjects(
    encoder: MiniLmEncoder, cards: list[CapabilityCard], prompt: str, specialist: str
) -> None:
    plan = await router(encoder).plan(Text(prompt), cards, 0.0)
    assert (plan.kind, plan.steps[0].specialist) == ("one", specialist), plan
    assert plan.scores[0].score == pytest.approx(max(one.score for one in plan.scores))


@pytest.mark.parametrize("prompt", ["set an alarm for seven", "what song is this", "hello there"])
async def test_everyday_requests_stay_with_the_base(
    encoder: MiniLmEncoder, cards: list[CapabilityCard], prompt: str
) -> None:
    assert (await router(encoder).plan(Text(prompt), cards, 0.0)).kind == "base"


async def test_a_prompt_of_two_parts_becomes_a_chain(
    encoder: MiniLmEncoder, cards: list[CapabilityCard]
) -> None:
    prompt = (
        "Which drugs are used for the treatment of high blood pressure, and what are their side "
        "effects? Using that list, write a Python function that returns the side effects of a drug."
    )
    plan = await router(encoder).plan(Text(prompt), cards, 0.0)
    assert plan.kind == "chain", plan
    assert [step.specialist for step in plan.steps] == ["medicine", "computing"]
    assert plan.steps[1].after == (0,)
    single = await router(encoder).plan(Text(prompt), cards, 0.0, Wishes(is_single=True))
    assert len(single.steps) == 1


async def test_without_any_card_but_the_base_the_base_answers(
    encoder: MiniLmEncoder, cards: list[CapabilityCard]
) -> None:
    assert (await router(encoder).plan(Text("What is a tort?"), cards[:1], 0.0)).kind == "base"


async def test_parts_of_a_prompt_have_directions_of_their_own(encoder: MiniLmEncoder) -> None:
    text = "What is the dose of aspirin for adults? How do I sort a list in Python?"
    found = await encoder.encode_prompt(text, [(0, 39), (39, len(text)), (len(text), len(text))])
    aspirin, sort = await encoder.encode(["dose of aspirin", "sorting a Python list"])
    assert found.parts[0] @ aspirin > found.parts[1] @ aspirin
    assert found.parts[1] @ sort > found.parts[0] @ sort
    assert not found.parts[2].any()
    assert (await encoder.encode([text]))[0] == pytest.approx(found.whole)
