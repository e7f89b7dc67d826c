"""A peer that keeps a part of all cards finds the others by the index of domains."""

import pytest

from protocols.adapters.virtual import run_virtual
from tests.simulation.many_cards import Tree, find_all


def test_a_small_tree() -> None:
    tree = Tree(tops=3, middles=3, leaves=2, cards=2, peers=6, kept=9)
    found = run_virtual(find_all(tree, 6))
    assert found.found_before <= 1
    assert found.found >= 5


@pytest.mark.slow
def test_five_thousand_cards_of_which_three_hundred_are_kept() -> None:
    found = run_virtual(find_all(Tree(), 40))
    assert found.found_before <= 20  # earlier searches bring cards of neighbours
    assert found.found >= 36
    assert found.reads < 200
    assert found.encodings < 50
