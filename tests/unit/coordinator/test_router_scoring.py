"""The scorer: what is read, what a crowd of cards costs, and how a prompt is divided.

The encoder here knows words, each a direction; what it says of a span leaks in from the others, as
attention does.
"""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from coordinator.ports import EncodedPrompt
from coordinator.routing.chains import CHAIN_FEATURES, CUT_FEATURES
from coordinator.routing.head import Head
from coordinator.routing.reading import read
from coordinator.routing.score import make_prototype
from coordinator.routing.scoring import CANDIDATES, SHORTLIST, Scorer
from protocols.records import CapabilityCard

DIMENSIONS = 96
WORDS = ("law", "maths", "code", "music")
AXES = dict(zip(WORDS, np.eye(DIMENSIONS, dtype=np.float32), strict=False))
GAIN, CERTAIN = 0, -1


def head(chain: float = 1.0) -> Head:
    """Cuts where two owners gain most; chains where they gain something, times `chain`."""
    cut, several = np.zeros(CUT_FEATURES, np.float32), np.zeros(CHAIN_FEATURES + 1, np.float32)
    cut[GAIN], several[GAIN], several[CERTAIN] = 1.0, 4.0 * chain, -4.0
    return Head(
        encoder="e", mean=np.zeros(DIMENSIONS, np.float32),
        metric=np.eye(DIMENSIONS, dtype=np.float32),
        background=np.eye(DIMENSIONS, dtype=np.float32)[-1:], sharpness=15.0,
        card_weights=np.array([20, 5], np.float32),
        description_guess=np.array([0.1, 0.8], np.float32),
        fit_weights=np.ones((2, 18), np.float32), cut_weights=cut, chain_weights=several,
    )  # fmt: skip


class WordEncoder:
    """Sees `limit` characters; every span has a tenth of the whole's direction in it."""

    digest = "e"

    def __init__(self, limit: int = 1_000) -> None:
        self.limit = limit
        self.read: list[str] = []

    async def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.stack([_direction(text) for text in texts])

    async def encode_prompt(
        self, text: str, parts: Sequence[tuple[int, int]] = ()
    ) -> EncodedPrompt:
        self.read.append(text)
        whole = _direction(text[: self.limit])
        rows = [np.zeros((0, DIMENSIONS), np.float32)]
        for start, end in parts:
            own = _direction(text[start:end]) + 0.1 * whole
            rows.append(own[None] / np.linalg.norm(own) * (start < self.limit))
        return EncodedPrompt(whole, np.concatenate(rows))


def _direction(text: str) -> NDArray[np.float32]:
    found = sum((AXES[one] for word in text.lower().split() if (one := word.strip("?.")) in AXES),
                np.full(DIMENSIONS, 0.01, np.float32))  # fmt: skip
    return np.asarray(found / np.linalg.norm(found), dtype=np.float32)


def card(name: str, *directions: NDArray[np.float32], description: str = "") -> CapabilityCard:
    prototypes = tuple(make_prototype(direction) for direction in directions)
    return CapabilityCard(
        "p", "s", 1, 1e10, name, "d", "b", "f", 9, encoder="e", prototypes=prototypes,
        description=description,
    )  # fmt: skip


CARDS = tuple(card(word, AXES[word]) for word in WORDS)
TWO = "What is the law here, and why is law the law? And how is maths done, since maths is maths?"


async def test_a_prompt_of_one_subject_has_one_owner_and_is_read_once() -> None:
    encoder = WordEncoder()
    scored = await Scorer(encoder, head()).score("What is law? Why is the law the law?", CARDS)
    assert scored.scores[0].specialist == "law"
    assert scored.chain < 0.5
    assert scored.parts == ()
    assert len(encoder.read) == 1


async def test_a_prompt_of_two_subjects_is_divided_and_its_halves_are_read_apart() -> None:
    encoder = WordEncoder()
    scored = await Scorer(encoder, head()).score(TWO, CARDS)
    assert scored.chain > 0.6
    assert [scored.names[part.owner] for part in scored.parts] == ["law", "maths"]
    assert [part.text[:4] for part in scored.parts] == ["What", "And "]
    assert encoder.read == [TWO, TWO[: TWO.index("And")], TWO[TWO.index("And") :]]


async def test_three_subjects_are_three_parts_and_no_word_is_lost() -> None:
    prompt = f"{TWO} Then write code, for code that runs is good code."
    scored = await Scorer(WordEncoder(), head()).score(prompt, CARDS)
    assert [scored.names[part.owner] for part in scored.parts] == ["law", "maths", "code"]
    assert "".join(prompt[part.start : part.end] for part in scored.parts) == prompt


async def test_many_subjects_become_four_parts_at_most() -> None:
    prompt = " ".join(f"Tell me about {word}, about {word}." for word in WORDS * 3)
    scored = await Scorer(WordEncoder(), head()).score(prompt, CARDS)
    assert 2 <= len(scored.parts) <= 4
    assert scored.parts[-1].end == len(prompt)


async def test_an_unlikely_chain_is_not_divided() -> None:
    encoder = WordEncoder()
    scored = await Scorer(encoder, head(chain=0.0)).score(TWO, CARDS)
    assert scored.chain < 0.1
    assert scored.parts == ()
    assert len(encoder.read) == 1


async def test_what_the_encoder_cannot_see_at_once_is_read_afterwards() -> None:
    encoder = WordEncoder(limit=40)
    found = await read(encoder, TWO)
    assert len(encoder.read) == 2
    assert encoder.read[1] == TWO[found.cuts[-1].at :]
    assert found.behind[-1] @ AXES["maths"] > 0.9
    assert len(found.cuts) == len(found.before) == len(found.last) == len(found.next)


async def test_a_side_that_was_not_seen_is_no_place_to_cut() -> None:
    blind = WordEncoder(limit=1)
    found = await read(blind, TWO)
    assert all(np.linalg.norm(one) == pytest.approx(1) for one in (*found.before, *found.behind))


@pytest.fixture(scope="module")
def crowd() -> tuple[CapabilityCard, ...]:
    """Three hundred cards of four prototypes each, around as many directions."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(300, 1, DIMENSIONS)) * np.linspace(2, 0.2, DIMENSIONS)
    found = centres + 0.2 * rng.normal(size=(300, 4, DIMENSIONS))
    return tuple(card(f"s{at:03}", *rows) for at, rows in enumerate(np.asarray(found, np.float32)))


class Fixed(WordEncoder):
    """One vector for all."""

    vector = np.zeros(DIMENSIONS, np.float32)

    async def encode_prompt(
        self, text: str, parts: Sequence[tuple[int, int]] = ()
    ) -> EncodedPrompt:
        self.read.append(text)
        return EncodedPrompt(self.vector, np.tile(self.vector, (len(parts), 1)))


async def test_the_sketch_of_a_crowd_misses_nobody_who_is_near(
    crowd: tuple[CapabilityCard, ...],
) -> None:
    encoder = Fixed()
    scorer, rng = Scorer(encoder, head()), np.random.default_rng(1)
    for at in rng.choice(len(crowd), 12, replace=False):
        wanted = np.frombuffer(crowd[at].prototypes[0].vector, np.int8).astype(np.float32)
        encoder.vector = wanted / np.linalg.norm(wanted)
        scored = await scorer.score("A prompt. And one more sentence.", crowd)
        assert scored.scores[0].specialist == crowd[at].specialist
        assert len(scored.scores) == SHORTLIST


async def test_replicas_in_a_crowd_are_sketched_as_one_specialist(
    crowd: tuple[CapabilityCard, ...],
) -> None:
    encoder = Fixed()
    liar = card(crowd[7].specialist, *np.eye(DIMENSIONS, dtype=np.float32)[:4])
    honest = [card(crowd[7].specialist, *_vectors(crowd[7])) for _ in range(2)]
    encoder.vector = _vectors(crowd[7])[0]
    given = [*crowd, liar, *honest]
    assert len(given) > 2 * CANDIDATES
    scored = await Scorer(encoder, head()).score("A prompt.", given)
    assert scored.scores[0].specialist == crowd[7].specialist
    assert len({one.specialist for one in scored.scores}) == SHORTLIST


def _vectors(one: CapabilityCard) -> list[NDArray[np.float32]]:
    rows = [np.frombuffer(p.vector, np.int8).astype(np.float32) for p in one.prototypes]
    return [row / np.linalg.norm(row) for row in rows]
