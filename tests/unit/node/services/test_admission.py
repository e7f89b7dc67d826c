"""`Admission`: how many get in, and what the others are told."""

import pytest

from node.services.admission import Admission
from protocols.errors import Busy


def test_slots_run_then_a_queue_then_no() -> None:
    admission = Admission(slots=2, waiting_slots=1)
    assert [admission.enter() for _ in range(3)] == [0, 0, 1]
    assert (admission.running, admission.waiting) == (2, 1)
    with pytest.raises(Busy) as refused:
        admission.enter()
    assert refused.value.retry_after > 0


def test_a_place_given_back_is_free() -> None:
    admission = Admission(slots=1, waiting_slots=0)
    admission.enter()
    admission.leave(seconds=0.1)
    assert admission.enter() == 0


def test_retry_after_follows_what_requests_take() -> None:
    admission = Admission(slots=1, waiting_slots=0)
    for _ in range(50):
        admission.enter()
        admission.leave(seconds=20.0)
    assert admission.retry_after() == pytest.approx(20.0, rel=0.01)


def test_draining_refuses_everybody() -> None:
    admission = Admission(slots=1, waiting_slots=1, draining=True)
    with pytest.raises(Busy):
        admission.enter()
