"""`Admission`: how many get in, whose turn it is, and what the others are told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.services.admission import Admission, Place, PlaceState, Quotas
from protocols.errors import Busy


def states(*places: Place) -> list[str]:
    return [place.state.name for place in places]


def test_slots_run_then_a_queue_then_no() -> None:
    admission = Admission(slots=2, waiting_slots=1)
    places = [admission.enter() for _ in range(3)]
    assert states(*places) == ["RUNNING", "RUNNING", "WAITING"]
    assert (admission.running, admission.waiting) == (2, 1)
    with pytest.raises(Busy) as refused:
        admission.enter()
    assert refused.value.retry_after > 0


def test_a_place_given_back_is_the_next_ones() -> None:
    admission = Admission(slots=1, waiting_slots=1)
    first, second = admission.enter(), admission.enter()
    admission.leave(first, seconds=0.1)
    assert states(second) == ["RUNNING"]
    assert (admission.running, admission.waiting) == (1, 0)


def test_one_that_gives_up_waiting_leaves_no_trace() -> None:
    admission = Admission(slots=1, waiting_slots=2)
    running, gone, stays = (admission.enter(peer) for peer in "abc")
    admission.leave(gone, seconds=0.0)
    admission.leave(running, seconds=1.0)
    assert states(stays) == ["RUNNING"]
    admission.leave(stays, seconds=1.0)
    assert (admission.running, admission.waiting) == (0, 0)


def test_peers_take_turns_however_much_one_asks() -> None:
    admission = Admission(slots=1, waiting_slots=9)
    running = admission.enter("greedy")
    queued = {f"greedy{n}": admission.enter("greedy") for n in range(3)}
    queued |= {name: admission.enter(name) for name in ("ann", "ben")}
    assert [admission.ahead(place) for place in queued.values()] == [0, 3, 4, 1, 2]
    order = []
    while queued:
        admission.leave(running, seconds=1.0)
        name = next(name for name, place in queued.items() if place.state is PlaceState.RUNNING)
        order.append(name)
        running = queued.pop(name)
    assert order == ["greedy0", "ann", "ben", "greedy1", "greedy2"]


def test_long_answers_do_not_come_to_hold_all_slots() -> None:
    admission = Admission(slots=2, waiting_slots=9)
    long_running = admission.enter("greedy")
    short = admission.enter("ann")
    greedy = admission.enter("greedy")
    later = admission.enter("ben")
    admission.leave(short, seconds=1.0)
    assert states(later, greedy) == ["RUNNING", "WAITING"]
    admission.leave(long_running, seconds=9.0)
    assert states(greedy) == ["RUNNING"]


def test_in_a_full_queue_the_one_with_most_loses_its_last_place() -> None:
    admission = Admission(slots=1, waiting_slots=3)
    greedy = [admission.enter("greedy") for _ in range(4)]
    newcomer = admission.enter("ann")
    assert states(*greedy, newcomer) == ["RUNNING", "WAITING", "WAITING", "DROPPED", "WAITING"]
    assert admission.waiting == 3
    with pytest.raises(Busy):
        admission.enter("greedy")
    admission.enter("ben")
    assert states(*greedy) == ["RUNNING", "WAITING", "DROPPED", "DROPPED"]
    admission.enter("cleo")
    assert states(*greedy) == ["RUNNING", "DROPPED", "DROPPED", "DROPPED"]
    with pytest.raises(Busy):
        admission.enter("dora")  # One each: nobody has too much.
    for place in greedy:
        admission.leave(place, seconds=1.0)
    assert (admission.running, admission.waiting) == (1, 2)


def test_retry_after_follows_what_requests_take() -> None:
    admission = Admission(slots=1, waiting_slots=0)
    for _ in range(50):
        admission.leave(admission.enter(), seconds=20.0)
    assert admission.retry_after() == pytest.approx(20.0, rel=0.01)


def test_draining_refuses_everybody_and_lets_those_inside_end() -> None:
    admission = Admission(slots=1, waiting_slots=1)
    running, waiting = admission.enter(), admission.enter()
    admission.draining = True
    with pytest.raises(Busy):
        admission.enter()
    admission.leave(running, seconds=1.0)
    assert states(waiting) == ["RUNNING"]


STEPS = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 12)), max_size=80)


@given(STEPS, st.integers(1, 3), st.integers(0, 4))
def test_no_sequence_loses_a_slot_or_a_request(
    steps: list[tuple[str, int]], slots: int, waiting_slots: int
) -> None:
    """A step enters for a peer, or, if its number hits one that is inside, ends that one."""
    admission = Admission(slots, waiting_slots)
    inside: list[Place] = []
    for peer, number in steps:
        if number < len(inside):
            admission.leave(inside.pop(number), seconds=1.0)
        else:
            try:
                inside.append(admission.enter(peer))
            except Busy:
                assert admission.waiting == waiting_slots
        for place in [place for place in inside if place.state is PlaceState.DROPPED]:
            admission.leave(place, seconds=0.0)
            inside.remove(place)
        running = sum(place.state is PlaceState.RUNNING for place in inside)
        assert (admission.running, admission.waiting) == (running, len(inside) - running)
        assert running == min(slots, len(inside))
        assert admission.waiting <= waiting_slots
        waiting = [place for place in inside if place.state is PlaceState.WAITING]
        assert all(0 <= admission.ahead(place) < len(waiting) for place in waiting)
    for place in inside:
        admission.leave(place, seconds=1.0)
    assert (admission.running, admission.waiting) == (0, 0)


def test_a_quota_counts_each_peer_and_forgets_those_who_left() -> None:
    quotas = Quotas()
    with quotas.one("ann", 2, 1.0), quotas.one("ann", 2, 1.0), quotas.one("ben", 1, 1.0):
        with pytest.raises(Busy) as refused, quotas.one("ann", 2, 7.5):
            pytest.fail("a third answer at a time")
        assert refused.value.retry_after == 7.5
        assert len(quotas) == 2
    assert len(quotas) == 0
    with pytest.raises(Busy), quotas.one("nobody", 0, 1.0):
        pytest.fail("nobody may have none")
    assert len(quotas) == 0
