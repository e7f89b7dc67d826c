"""Where a key lies and who is picked there."""

import random

from hivemind.dht.routing import DHTID

from protocols.adapters.libp2p.places import (
    BEAM,
    PLACES,
    SECRET_SECONDS,
    Choice,
    place_of,
    places_of,
)

KEY = "dslm/1/public/peers"
PEERS = [bytes([number]) * 38 for number in range(20)]


def test_the_first_place_is_hivemind_s_own_and_is_among_everybody_s() -> None:
    assert place_of(KEY, 0) == DHTID.generate(source=KEY)
    assert places_of(KEY, BEAM - 1) == (place_of(KEY, 0),)
    many = places_of(KEY, BEAM)
    assert len(set(many)) == PLACES
    assert many[0] == place_of(KEY, 0)


def test_one_publisher_keeps_to_its_choice_for_a_while() -> None:
    choice, place = Choice(random.Random(1)), place_of(KEY, 1)
    first = choice.order(place, PEERS, 100.0)
    assert sorted(first) == list(range(len(PEERS)))
    assert choice.order(place, PEERS, 99.0 + SECRET_SECONDS) == first
    assert choice.order(place, PEERS, 100.0 + SECRET_SECONDS) != first


def test_the_choice_is_by_peer_not_by_distance() -> None:
    """Who comes nearer than all others is not chosen for it, and changes little for them."""
    choice, place = Choice(random.Random(1)), place_of(KEY, 1)
    before = [PEERS[index] for index in choice.order(place, PEERS, 0.0)]
    newcomer = b"n" * 38
    with_newcomer = [newcomer, *PEERS]
    after = [with_newcomer[index] for index in choice.order(place, with_newcomer, 0.0)]
    assert [peer for peer in after if peer != newcomer] == before


def test_publishers_choose_differently_and_so_do_places() -> None:
    first, second = Choice(random.Random(1)), Choice(random.Random(2))
    place, other = place_of(KEY, 0), place_of(KEY, 1)
    assert first.order(place, PEERS, 0.0) != second.order(place, PEERS, 0.0)
    assert first.order(place, PEERS, 0.0) != first.order(other, PEERS, 0.0)


def test_everybody_is_chosen_about_as_often() -> None:
    chosen = dict.fromkeys(range(len(PEERS)), 0)
    for seed in range(400):
        for index in Choice(random.Random(seed)).order(place_of(KEY, 0), PEERS, 0.0)[:3]:
            chosen[index] += 1
    assert min(chosen.values()) > 30  # 60 on average
    assert max(chosen.values()) < 95
