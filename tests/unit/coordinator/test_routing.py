"""Routing: cosine against int8 prototypes, the threshold, the plain base, ties."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from coordinator.measure import PeerMeasurements
from coordinator.routing.router import Router, best_base, routed_text
from coordinator.routing.score import card_score, make_prototype, prototype_vector, rank_cards
from protocols.errors import NoCapacity
from protocols.ids import PeerId
from protocols.messages.ask import Chat, ChatMessage, Text
from protocols.records import CapabilityCard, Prototype

X, Y = np.eye(2, dtype=np.float32)


def unit(x: float, y: float) -> NDArray[np.float32]:
    vector = np.array([x, y], dtype=np.float32)
    return vector / np.linalg.norm(vector)


def card(
    specialist: str, *directions: NDArray[np.float32], peer: str = "p", encoder: str = "e"
) -> CapabilityCard:
    prototypes = tuple(make_prototype(direction) for direction in directions)
    return CapabilityCard(
        peer, "s", 1, 1e10, specialist, "d", "b", "fp32", 9, encoder=encoder, prototypes=prototypes
    )


LAW, MATHS, BASE = card("law", X), card("maths", Y), card("base")


class FixedEncoder:
    digest = "e"

    def __init__(self, vector: NDArray[np.float32]) -> None:
        self._vector = vector

    async def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.stack([self._vector for _ in texts])


def router(vector: NDArray[np.float32] | None) -> Router:
    encoder = None if vector is None else FixedEncoder(vector)
    return Router(encoder, PeerMeasurements(PeerId("me")))


def test_prototypes_keep_their_direction() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        vector = rng.normal(size=384).astype(np.float32)
        again = prototype_vector(make_prototype(vector))
        assert float(again @ vector / np.linalg.norm(vector)) > 0.999
        assert np.linalg.norm(again) == pytest.approx(1.0, abs=1e-5)


def test_a_card_counts_with_its_nearest_prototype() -> None:
    assert card_score(unit(3, 4), card("both", X, Y)) == pytest.approx(0.8, abs=0.01)
    assert card_score(X, card("empty")) == -1.0
    assert card_score(X, card("other size", np.ones(3, dtype=np.float32))) == -1.0
    zero = CapabilityCard(
        "p", "s", 1, 1e10, "z", "d", "b", "f", 9, prototypes=(Prototype(b"\0\0", 0.1),)
    )
    assert card_score(X, zero) == 0.0


def test_ranking_is_deterministic_and_of_our_encoder_only() -> None:
    cards = [MATHS, card("b", X), card("a", X), card("foreign", X, encoder="other"), BASE]
    expected = ["a", "b", "maths"]
    assert [score.specialist for score in rank_cards(X, cards, "e")] == expected
    assert [score.specialist for score in rank_cards(X, cards[::-1], "e")] == expected


def test_one_lying_replica_does_not_draw_all_prompts() -> None:
    honest = [card("maths", Y, peer=f"p{n}") for n in range(2)]
    ranked = rank_cards(X, [*honest, card("maths", X, peer="liar"), LAW], "e")
    assert [(s.specialist, round(s.score)) for s in ranked] == [("law", 1), ("maths", 0)]


@pytest.mark.parametrize(
    ("vector", "specialist", "reason"),
    [
        (unit(9, 1), "law", "nearest to law"),
        (unit(1, 9), "maths", "nearest to maths"),
        (unit(-1, -1), "base", "No specialist is near"),
        (None, "base", "No sentence encoder"),
    ],
)
async def test_auto(vector: NDArray[np.float32] | None, specialist: str, reason: str) -> None:
    choice = await router(vector).choose(Text("a prompt"), [LAW, MATHS, BASE], 0.0)
    assert choice.specialist == specialist
    assert reason in choice.why


async def test_auto_without_a_base_or_without_anything() -> None:
    choice = await router(unit(-1, -1)).choose(Text("x"), [LAW, MATHS], 0.0)
    assert choice.specialist in ("law", "maths")
    assert "No plain base is known" in choice.why
    assert (await router(None).choose(Text("x"), [MATHS, LAW], 0.0)).specialist == "law"
    assert (await router(X).choose(Text("  "), [LAW, BASE], 0.0)).specialist == "base"
    with pytest.raises(NoCapacity):
        await router(X).choose(Text("x"), [], 0.0)


def test_the_base_with_most_healthy_replicas_then_the_fastest() -> None:
    measurements = PeerMeasurements(PeerId("me"))
    cards = [card("big", peer="1"), card("big", peer="2"), card("small", peer="3")]
    assert best_base(cards, measurements, 0.0) == "big"
    measurements.failed(PeerId("1"), 0.0, "lost")
    measurements.first_token(PeerId("3"), 0.1)
    assert best_base(cards, measurements, 0.0) == "small"
    assert best_base([LAW], measurements, 0.0) is None


def test_what_is_routed_on() -> None:
    said = [
        ("system", "be kind"),
        ("user", "old"),
        ("assistant", "yes"),
        ("user", "a"),
        ("user", "b"),
    ]
    messages = tuple(ChatMessage(role, text) for role, text in said)  # type: ignore[arg-type]
    assert routed_text(Chat(messages)) == "a\nb"
    assert routed_text(Chat((*messages, ChatMessage("assistant", "so")))) == "a\nb"
    assert routed_text(Chat((ChatMessage("system", "x"),))) == ""
    assert len(routed_text(Text("x" * 9_999))) == 3_000


def test_trust_is_a_factor_of_the_most_trusted_replica() -> None:
    cards = [card("law", X, peer="a"), card("law", X, peer="b"), card("tax", unit(4, 1), peer="c")]
    trust = {"a": 0.1, "b": 0.9, "c": 1.0}
    ranked = rank_cards(X, cards, "e", lambda one: trust[one.peer])
    assert [score.specialist for score in ranked] == ["tax", "law"]
    assert ranked[1].score == pytest.approx(0.9, abs=0.01)
    away = rank_cards(unit(-1, 0), cards, "e", lambda one: trust[one.peer])
    assert away[0].score == pytest.approx(-0.97, abs=0.01)  # distrust brings nobody nearer


async def test_the_router_passes_trust_on() -> None:
    chosen = await router(X).choose(Text("x"), [LAW, BASE], 0.0, lambda _: 0.2)
    assert chosen.specialist == "base"
