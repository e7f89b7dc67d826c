"""The shelf: bounds, fairness between domains, what is wanted stays, order does not matter."""

import random
from collections import Counter

import pytest

from coordinator.card_shelf import CARDS_MAX, CardShelf, Place
from protocols.ids import PeerId
from protocols.records import CapabilityCard

ME = PeerId("me")
END = 100.0


def card(domain: str = "") -> CapabilityCard:
    domains = (domain,) if domain else ()
    return CapabilityCard("p", "s", 1, END, "x", "d", "b", "fp32", 9, domains)


def place(number: int, peer: str = "") -> Place:
    return (peer or f"peer-{number}", f"card-{number}")


def kept(shelf: CardShelf, cards: list[tuple[Place, CapabilityCard]], size: int = 1) -> set[Place]:
    """What lies on the shelf when all have come."""
    here: set[Place] = set()
    for where, one in cards:
        shelf.add(where, one, size, is_wanted=False)
        here.add(where)
        here -= set(shelf.overflow(END))
    assert len(shelf) == len(here)
    return here


def test_all_domains_keep_equally_many_whatever_the_order() -> None:
    sizes = {"law": 700, "science/physics": 200, "science/biology": 60, "art": 5, "": 35}
    names = [name for name, count in sizes.items() for _ in range(count)]
    cards = [(place(number), card(name)) for number, name in enumerate(names)]
    by_place = {where: names[number] for number, (where, _) in enumerate(cards)}
    found = []
    for seed in range(3):
        random.Random(seed).shuffle(cards)
        found.append(kept(CardShelf(ME, cards_max=200), cards))
    assert found[0] == found[1] == found[2]
    counts = Counter(by_place[where] for where in found[0])
    assert (counts["art"], counts[""]) == (5, 35)
    rest = sorted(counts[name] for name in ("law", "science/physics", "science/biology"))
    assert rest == [53, 53, 54]
    other = kept(CardShelf(PeerId("other"), cards_max=200), cards)
    assert other != found[0]


def test_five_thousand_cards_are_sorted_out_quickly_and_within_bounds() -> None:
    cards = [(place(number), card(f"d{number % 500}")) for number in range(5_000)]
    shelf = CardShelf(ME)
    assert len(kept(shelf, cards, size=8_000)) == CARDS_MAX
    assert shelf.is_partial(END - 1)
    assert not shelf.is_partial(END)


def test_bytes_are_bounded_too_and_a_new_version_counts_once() -> None:
    shelf = CardShelf(ME, bytes_max=1_000)
    for _ in range(5):
        shelf.add(place(1), card("a"), 400, is_wanted=False)
        shelf.add(place(2), card("b"), 400, is_wanted=False)
    assert list(shelf.overflow(END)) == []
    shelf.add(place(1), card("a"), 700, is_wanted=False)
    (gone,) = shelf.overflow(END)
    assert gone in (place(1), place(2))
    assert shelf.is_passed_over(gone, END - 1)
    assert not shelf.is_passed_over(gone, END)


def test_our_own_cards_and_wanted_ones_stay() -> None:
    shelf = CardShelf(ME, cards_max=10)
    own = [(place(number, ME), card("a")) for number in range(8)]
    wanted = place(900)
    shelf.add(wanted, card("a"), 1, is_wanted=True)
    strangers = [(place(number), card("a")) for number in range(100, 300)]
    here = kept_with(shelf, {wanted}, [*own, *strangers])
    assert wanted in here
    assert {where for where, _ in own} <= here
    assert len(here) == 10


def kept_with(
    shelf: CardShelf, here: set[Place], cards: list[tuple[Place, CapabilityCard]]
) -> set[Place]:
    for where, one in cards:
        shelf.add(where, one, 1, is_wanted=False)
        here.add(where)
        here -= set(shelf.overflow(END))
    return here


def test_of_too_many_wanted_ones_the_oldest_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.card_shelf.WANTED_MAX", 3)
    shelf = CardShelf(ME, cards_max=4)
    for number in range(4):
        shelf.add(place(number), card("a"), 1, is_wanted=True)
    shelf.want(place(0))
    shelf.want(place(77))  # not here
    shelf.add(place(9), card("b"), 1, is_wanted=True)
    assert list(shelf.overflow(END)) in ([place(1)], [place(2)])
    shelf.add(place(1), card("a"), 1, is_wanted=False)
    assert not shelf.is_passed_over(place(1), 0)


def test_if_all_are_wanted_the_bound_holds_all_the_same() -> None:
    shelf = CardShelf(ME, cards_max=3)
    for number in range(9):
        shelf.add(place(number), card("a"), 1, is_wanted=True)
        gone = list(shelf.overflow(END))
        assert len(gone) == (number >= 3)
    assert len(shelf) == 3
    only_own = CardShelf(ME, cards_max=1)
    for number in range(3):
        only_own.add(place(number, ME), card("a"), 1, is_wanted=True)
    assert list(only_own.overflow(END)) == []


def test_what_was_removed_takes_no_room() -> None:
    shelf = CardShelf(ME, cards_max=2)
    for number in range(50):
        shelf.add(place(number), card("a"), 1, is_wanted=number % 2 == 0)
        shelf.remove(place(number))
        shelf.remove(place(number))
    assert len(shelf) == 0
    assert list(shelf.overflow(END)) == []
