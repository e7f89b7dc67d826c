"""What an answer set to work: parameters of bases and adapters, peers, bytes."""

from coordinator.activity import Effort
from protocols.ids import PeerId, SpecialistId
from protocols.records import CapabilityCard

A, B = PeerId("a"), PeerId("b")


def card(
    name: str, parameters: int, base: str = "", peer: str = "p", digest: str = ""
) -> CapabilityCard:
    """A plain base, or with `base` an adapter on the base of that digest."""
    return CapabilityCard(
        peer, "s", 1, 1e10, name, digest or f"digest of {name}", "b", "fp32", 100,
        parameters=parameters, base_digest=base, adapter=f"adapter {name}" if base else "",
    )  # fmt: skip


BASE = card("base", 1_000, digest="B")
CARDS = [BASE, card("law", 1_010, "B"), card("tax", 1_020, "B"), card("other", 5_000)]


def activity(*asked: str, cards: list[CapabilityCard] = CARDS) -> tuple[int, int]:
    effort = Effort()
    for name in asked:
        effort.asked(SpecialistId(name), A)
    done = effort.activity(cards)
    return done.parameters, done.parameters_known


def test_a_base_counts_once_for_all_its_adapters() -> None:
    assert activity("base") == (1_000, 6_030)
    assert activity("law") == (1_010, 6_030)
    assert activity("law", "tax", "base", "law") == (1_030, 6_030)
    assert activity("law", "other") == (6_010, 6_030)


def test_a_base_that_says_its_own_digest_is_the_same_base() -> None:
    told = card("base", 1_000, digest="B")
    named = CapabilityCard(
        "p", "s", 1, 1e10, "base", "B", "b", "fp32", 100, parameters=1_000, base_digest="B"
    )
    for base in (told, named):
        assert activity("law", cards=[base, *CARDS[1:3]]) == (1_010, 1_030)


def test_without_a_card_of_the_base_it_is_as_large_as_the_smallest_sum() -> None:
    assert activity("law", "tax", cards=CARDS[1:3]) == (1_020, 1_020)


def test_replicas_count_once_and_the_smallest_claim_counts() -> None:
    liar = card("law", 10**15, "B", peer="q")
    assert activity("law", cards=[*CARDS, liar]) == (1_010, 6_030)


def test_who_is_unknown_counts_as_a_specialist_without_parameters() -> None:
    effort = Effort()
    effort.asked(SpecialistId("gone"), A)
    effort.asked(SpecialistId("gone"), B)
    done = effort.activity([BASE])
    assert (done.specialists, done.specialists_known) == (("gone",), 2)
    assert (done.parameters, done.peers) == (0, (A, B))
