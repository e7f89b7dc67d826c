"""Plain prompts reach the specialists that ship, and small talk stays with the base.

The prompts were written for this test; they are on no card and in no data set.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from coordinator.measure import PeerMeasurements
from coordinator.routing.head import load_head
from coordinator.routing.router import Router
from node.card_content import portray
from node.card_file import read_card_file
from node.hosting.encoder import MiniLmEncoder
from node.hosting.fetch import default_encoder_paths
from protocols.ids import PeerId
from protocols.messages.ask import Text
from protocols.records import CapabilityCard

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SPECIALISTS = Path(__file__).parents[2] / "node" / "specialists"
ASKED: Mapping[str, tuple[str, str, str]] = {
    "math": (
        "A cyclist rides 18 km in 45 minutes. How far does she ride in 2 hours at that speed?",
        "Solve x^2 - 5x + 6 = 0.",
        "Anna buys 7 pencils for 40 cents each and pays with 5 dollars. What is her change?",
    ),
    "medicine": (
        "How is pneumonia treated?",
        "What are the first signs of Parkinson's disease?",
        "My grandmother takes warfarin; which foods should she avoid?",
    ),
    "law": (
        "Can an employer end my contract without any notice?",
        "Does this clause allow either party to assign the agreement to a third party?",
        "What is the difference between manslaughter and murder in court?",
    ),
    "computing": (
        "Write a Python function that counts the vowels in a string.",
        "How do I read a file line by line in Python?",
        "Write a function to merge two sorted lists.",
    ),
    "science": (
        "Why does ice float on water?",
        "What is the charge of an electron?",
        "How does a catalyst speed up a chemical reaction?",
    ),
    "economics": (
        "What happens to the price when demand rises and supply stays the same?",
        "Why do central banks raise interest rates to fight inflation?",
        "What is the difference between a monopoly and an oligopoly?",
    ),
    "history": (
        "Why did the Roman Empire fall?",
        "What were the main causes of the First World War?",
        "Who led the slave revolt in Haiti?",
    ),
    "psychology": (
        "What did Pavlov's experiments with dogs show about conditioning?",
        "How does short-term memory differ from long-term memory?",
        "What is cognitive dissonance?",
    ),
}
SMALL_TALK = (
    "hello there, how are you", "set an alarm for seven", "play some jazz", "tell me a joke",
    "what should I cook tonight", "good night", "what song is this", "book a table for two",
)  # fmt: skip
RIGHT_MIN = 21
"""Of 24; what is wrong now and then are neighbours, such as physics and mathematics."""


@pytest.fixture(scope="module")
def encoder(models_dir: Path) -> MiniLmEncoder:
    paths = default_encoder_paths(models_dir)
    if not paths.exist:
        pytest.skip(f"no sentence encoder in {models_dir}: run scripts/test, which fetches it")
    return MiniLmEncoder(paths.model, paths.tokenizer)


@pytest.fixture(scope="module")
def cards(encoder: MiniLmEncoder) -> list[CapabilityCard]:
    return [plain("base"), *(shipped(name, encoder) for name in ASKED)]


def plain(name: str) -> CapabilityCard:
    return CapabilityCard("p", "s", 1, 1e10, name, "d", "b", "fp32", 2048)


def shipped(name: str, encoder: MiniLmEncoder) -> CapabilityCard:
    """As a node that hosts it announces it."""
    said = read_card_file(SPECIALISTS / name / "card.toml")
    portrait = asyncio.run(portray(said, encoder))
    return CapabilityCard(
        peer="p", swarm="s", sequence=1, expires_at=1e10, specialist=name, model_digest="d",
        base="b", precision="fp32", context_length=2048, domains=said.domains,
        description=said.description, encoder=portrait.encoder, prototypes=portrait.prototypes,
        exemplars=portrait.exemplars,
    )  # fmt: skip


async def chosen(encoder: MiniLmEncoder, cards: list[CapabilityCard], prompt: str) -> str:
    router = Router(encoder, PeerMeasurements(PeerId("me")), head=load_head())
    return (await router.plan(Text(prompt), cards, 0.0)).steps[0].specialist


async def test_plain_prompts_reach_the_specialists_that_ship(
    encoder: MiniLmEncoder, cards: list[CapabilityCard]
) -> None:
    found = [
        (prompt, name, await chosen(encoder, cards, prompt))
        for name, prompts in ASKED.items()
        for prompt in prompts
    ]
    wrong = [one for one in found if one[1] != one[2]]
    assert len(found) - len(wrong) >= RIGHT_MIN, wrong
    right = Counter(name for _, name, got in found if name == got)
    assert min(right[name] for name in ASKED) >= 2, wrong


async def test_small_talk_stays_with_the_base(
    encoder: MiniLmEncoder, cards: list[CapabilityCard]
) -> None:
    found = {prompt: await chosen(encoder, cards, prompt) for prompt in SMALL_TALK}
    assert sum(name == "base" for name in found.values()) >= len(SMALL_TALK) - 1, found


async def test_the_colour_of_the_sky_is_for_science_or_nobody(
    encoder: MiniLmEncoder, cards: list[CapabilityCard]
) -> None:
    assert await chosen(encoder, cards, "Why is the sky blue?") in {"science", "base"}
