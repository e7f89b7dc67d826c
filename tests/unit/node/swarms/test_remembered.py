"""Which peers are remembered."""

from hypothesis import given, settings
from hypothesis import strategies as st

from node.swarms.folder import REMEMBERED_MAX
from node.swarms.remembered import ADDRESSES_PER_PEER, Remembered, peer_in
from protocols.ids import PeerId, peer_id_from_public_key


def peer(number: int) -> PeerId:
    return peer_id_from_public_key(number.to_bytes(32, "big"))


def at(number: int, ip: str = "", port: int = 9) -> str:
    ip = ip or f"45.{number % 250}.0.1"
    return f"/ip4/{ip}/tcp/{port}/p2p/{peer(number)}"


def test_the_newest_comes_first_and_each_peer_once_before_any_twice() -> None:
    memory = Remembered()
    memory.note(peer(1), (at(1), at(1, "10.0.0.1")))
    memory.note(peer(2), (at(2),))
    assert memory.addresses() == (at(2), at(1), at(1, "10.0.0.1"))
    assert memory.note(peer(1), (at(1),))
    assert memory.addresses() == (at(1), at(2), at(1, "10.0.0.1"))
    assert not memory.note(peer(1), (at(1),))


def test_what_is_saved_is_the_same_when_read() -> None:
    memory = Remembered()
    for number in range(40):
        memory.note(peer(number), (at(number), at(number, port=10)))
    assert Remembered(memory.addresses()).addresses() == memory.addresses()


def test_a_peer_that_moved_is_looked_for_at_the_new_place_first() -> None:
    memory = Remembered((at(1, port=9),))
    memory.note(peer(1), (at(1, "10.0.0.1", port=8),))
    assert memory.addresses() == (at(1, "10.0.0.1", port=8), at(1, port=9))


def test_a_peer_speaks_for_itself_only() -> None:
    memory = Remembered()
    assert not memory.note(peer(1), (at(2), "/ip4/45.0.0.1/tcp/9", "nonsense", ""))
    assert memory.addresses() == ()
    assert peer_in(at(1)) == peer(1)
    assert peer_in("/ip4/0.0.0.0/tcp/9/p2p/" + peer(1)) is None
    assert peer_in("/dns4/" + "x" * 300 + "/tcp/9/p2p/" + peer(1)) is None


def test_many_peers_of_one_network_do_not_push_out_the_others() -> None:
    memory = Remembered()
    for number in range(10):
        memory.note(peer(number), (at(number),))
    for number in range(1_000, 1_500):
        memory.note(peer(number), (at(number, f"66.66.{number % 250}.7"),))
    kept = set(memory.addresses())
    assert kept >= {at(number) for number in range(10)}
    assert len(kept) == REMEMBERED_MAX


def test_a_peer_can_be_forgotten() -> None:
    memory = Remembered((at(1), at(2)))
    assert memory.forget(peer(1))
    assert not memory.forget(peer(1))
    assert memory.addresses() == (at(2),)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 200), st.lists(st.integers(1, 5), max_size=4))))
def test_bounds_hold_whatever_happens(history: list[tuple[int, list[int]]]) -> None:
    memory = Remembered()
    for number, ports in history:
        memory.note(peer(number), tuple(at(number, port=port) for port in ports))
        if ports:
            assert memory.addresses()[0] == at(number, port=ports[0])
    found = memory.addresses()
    assert len(found) <= REMEMBERED_MAX
    assert len(set(found)) == len(found)
    assert all(
        sum(one.endswith(peer(number)) for one in found) <= ADDRESSES_PER_PEER
        for number, _ in history
    )
