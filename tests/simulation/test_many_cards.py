"""A peer that keeps a part of all cards finds the others by the index of domains."""

import pytest

from protocols.adapters.virtual import run_virtual
from tests.simulation.many_cards import Tree, ask_all, find_all


def test_a_small_tree() -> None:
    tree = Tree(tops=3, middles=3, leaves=2, cards=2, peers=6, kept=9)
    found = run_virtual(find_all(tree, 6))
    assert found.found_before <= 1
    assert found.found >= 5


def test_who_asks_is_answered_by_a_specialist_whose_card_it_did_not_keep() -> None:
    """From the prompt to the answer: index of domains, cards, choice, stream."""
    tree = Tree(tops=30, middles=1, leaves=1, cards=2, peers=10, kept=12)
    answered = run_virtual(ask_all(tree, 8))
    # A search brings cards of other near domains too, which may be asked for next.
    assert sum(not one.was_kept for one in answered) >= 5
    found = [one for one in answered if one.specialist.startswith(f"{one.domain.split('/')[2]}-")]
    assert len(found) == len(answered), answered


@pytest.mark.slow
def test_five_thousand_cards_of_which_three_hundred_are_kept() -> None:
    found = run_virtual(find_all(Tree(), 40))
    assert found.found_before <= 20  # earlier searches bring cards of neighbours
    assert found.found >= 36
    assert found.reads < 200
    assert found.encodings < 50
