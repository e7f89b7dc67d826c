"""Trust in cards: outcomes move it, time fades it, newcomers get a chance, memory is bounded."""

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.inspection import Inspector
from coordinator.reputation import (
    EXPECTED,
    HALF_LIFE_SECONDS,
    NEWCOMER_TRUST_MIN,
    Outcome,
    Outcomes,
    Reputation,
    outcome_of,
)
from protocols.adapters.clock import ManualClock
from protocols.errors import (
    Busy,
    DeadlineExceeded,
    DslmError,
    NotHere,
    PeerLost,
    PeerUnreachable,
    ProtocolError,
    TooLong,
    TransportDown,
    Unsupported,
)
from protocols.ids import PeerId, SpecialistId
from protocols.records import CapabilityCard
from tests.effort import examples

P, S = PeerId("p"), SpecialistId("law")
ROUNDS = 200


def card(specialist: str = "law", peer: str = "p") -> CapabilityCard:
    return CapabilityCard(peer, "s", 1, 1e10, specialist, "d", "b", "fp32", 9)


def mean_trust(outcomes: Outcomes, now: float, of: CapabilityCard | None = None) -> float:
    rng = random.Random(1)
    return sum(outcomes.trust(of or card(), now, rng) for _ in range(ROUNDS)) / ROUNDS


def reported(*history: Outcome, times: int = 1) -> Outcomes:
    outcomes = Outcomes()
    for outcome in history * times:
        outcomes.report(S, P, outcome, 0.0)
    return outcomes


def test_nothing_known_and_nothing_bad_is_full_trust_without_chance() -> None:
    rng = random.Random(1)
    state = rng.getstate()
    assert Outcomes().trust(card(), 0.0, rng) == 1.0
    good = reported(Outcome.COMPLETED, Outcome.GOOD, times=5)
    assert good.trust(card(), 0.0, rng) == 1.0
    assert rng.getstate() == state


@pytest.mark.parametrize("bad", [Outcome.REFUSED, Outcome.DIED])
def test_each_failure_costs_trust_but_never_all(bad: Outcome) -> None:
    levels = [mean_trust(reported(bad, times=n), 0.0) for n in range(1, 6)]
    assert levels == sorted(levels, reverse=True)
    assert levels[0] < 0.7
    assert levels[3] < 0.3
    draws = [reported(bad, bad).trust(card(), 0.0, random.Random(n)) for n in range(ROUNDS)]
    assert min(draws) > 0
    assert sum(draw > 0.8 for draw in draws) > ROUNDS * 0.03  # it is tried again now and then


def test_a_weak_answer_counts_as_a_failure_though_it_was_completed() -> None:
    weak = reported(Outcome.COMPLETED, Outcome.WEAK, times=3)
    assert mean_trust(weak, 0.0) == pytest.approx(mean_trust(reported(Outcome.DIED, times=3), 0.0))


def test_a_good_record_bears_a_bad_day() -> None:
    outcomes = reported(Outcome.COMPLETED, Outcome.GOOD, times=30)
    outcomes.report(S, P, Outcome.DIED, 0.0)
    outcomes.report(S, P, Outcome.COMPLETED, 0.0)
    outcomes.report(S, P, Outcome.WEAK, 0.0)
    assert mean_trust(outcomes, 0.0) > 0.97


def test_four_good_of_five_is_what_is_expected() -> None:
    honest = (Outcome.COMPLETED, Outcome.GOOD) * 4 + (Outcome.COMPLETED, Outcome.WEAK)
    assert mean_trust(reported(*honest, times=8), 0.0) > 0.9
    assert EXPECTED == 0.8


def test_what_was_bad_fades() -> None:
    outcomes = reported(Outcome.DIED, times=3)
    before = mean_trust(outcomes, 0.0)
    later = mean_trust(outcomes, 3 * HALF_LIFE_SECONDS)
    assert before < 0.35
    assert later > 0.6
    assert mean_trust(outcomes, 40 * HALF_LIFE_SECONDS) == 1.0


def test_only_the_card_that_failed_is_to_blame() -> None:
    outcomes = reported(Outcome.DIED, times=4)
    for _ in range(8):  # others do well, so that newcomers are not suspected
        outcomes.report(SpecialistId("maths"), PeerId("q"), Outcome.COMPLETED, 0.0)
    assert outcomes.expected(card(peer="q"), 0.0) == 1.0
    assert outcomes.expected(card("maths"), 0.0) == 1.0
    assert outcomes.expected(card(), 0.0) == pytest.approx(0.2)


def test_when_newcomers_fail_others_are_met_with_caution_but_met() -> None:
    outcomes = Outcomes()
    for number in range(20):
        outcomes.report(SpecialistId(f"liar-{number}"), P, Outcome.REFUSED, 0.0)
    trust = mean_trust(outcomes, 0.0, card("new"))
    assert NEWCOMER_TRUST_MIN <= trust < 0.7
    for number in range(60):
        outcomes.report(SpecialistId(f"good-{number}"), P, Outcome.COMPLETED, 0.0)
        outcomes.report(SpecialistId(f"good-{number}"), P, Outcome.GOOD, 0.0)
    assert mean_trust(outcomes, 0.0, card("new")) > 0.9


def test_newcomers_are_treated_alike_within_a_decision() -> None:
    outcomes = Outcomes()
    for number in range(6):
        outcomes.report(SpecialistId(f"liar-{number}"), P, Outcome.REFUSED, 0.0)
    trust = outcomes.at(0.0, random.Random(3))
    assert trust(card("one")) == trust(card("two"))


def test_old_failures_of_one_card_do_not_count_against_newcomers_again() -> None:
    outcomes = reported(Outcome.DIED, times=50)
    assert mean_trust(outcomes, 0.0, card("new")) > 0.9


def test_memory_is_bounded() -> None:
    outcomes = Outcomes(cards_max=3)
    for number in range(10):
        outcomes.report(SpecialistId(f"s{number}"), P, Outcome.DIED, 0.0)
    assert len(outcomes) == 3
    assert outcomes.expected(card("s9"), 0.0) < 1.0 == outcomes.expected(card("s0"), 0.0)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Busy("full"), None),
        (TooLong(1, 2), None),
        (Unsupported("no"), None),
        (TransportDown("ours"), None),
        (NotHere("no"), Outcome.REFUSED),
        (ProtocolError("lies"), Outcome.REFUSED),
        (PeerLost("gone"), Outcome.DIED),
        (PeerUnreachable("gone"), Outcome.DIED),
        (DeadlineExceeded("slow"), Outcome.DIED),
    ],
)
def test_what_an_error_says_of_the_card(error: DslmError, outcome: Outcome | None) -> None:
    assert outcome_of(error) is outcome


def test_reputation_knows_the_time() -> None:
    clock, rng = ManualClock(), random.Random(1)
    reputation = Reputation(Outcomes(), Inspector(None, tuple, rng), clock, rng)
    reputation.failed(card(), Busy("full"))
    assert reputation.expected(card()) == 1.0
    reputation.failed(card(), NotHere("stale"))
    assert reputation.expected(card()) == 0.5
    clock.advance(HALF_LIFE_SECONDS)
    assert reputation.expected(card()) == pytest.approx(2 / 3)
    reputation.report(S, P, Outcome.COMPLETED)
    assert reputation.expected(card()) == pytest.approx(3 / 4)
    assert 0 < reputation.trust()(card()) <= 1


def test_what_was_saved_is_as_if_the_node_had_never_stopped() -> None:
    """The monotonic clock begins anew after a restart, the calendar goes on."""
    outcomes = reported(Outcome.DIED, times=3)
    outcomes.report(SpecialistId("maths"), PeerId("q"), Outcome.COMPLETED, 10.0)
    saved = outcomes.dump(20.0, 1_000_000.0)
    again = Outcomes.load(saved, 5.0, 1_000_000.0 + HALF_LIFE_SECONDS)
    assert len(again) == 2
    assert again.expected(card(), 5.0) == pytest.approx(1 / 2.5, abs=0.01)
    for later in (0.0, HALF_LIFE_SECONDS):
        for one in (card(), card("maths", "q"), card("new")):
            expected = outcomes.expected(one, 20.0 + HALF_LIFE_SECONDS + later)
            assert again.expected(one, 5.0 + later) == pytest.approx(expected)


def test_caution_with_newcomers_is_saved_too() -> None:
    outcomes = Outcomes()
    for number in range(20):
        outcomes.report(SpecialistId(f"liar-{number}"), P, Outcome.REFUSED, 0.0)
    again = Outcomes.load(outcomes.dump(0.0, 50.0), 0.0, 50.0)
    assert mean_trust(again, 0.0, card("new")) < 0.7


def test_a_clock_that_went_back_fades_nothing_and_blames_nobody_more() -> None:
    saved = reported(Outcome.DIED).dump(0.0, 1_000.0)
    again = Outcomes.load(saved, 0.0, 10.0)
    assert again.expected(card(), 0.0) == 0.5
    assert again.expected(card(), HALF_LIFE_SECONDS) == pytest.approx(2 / 3)


def test_what_is_saved_is_bounded_and_without_what_is_forgotten() -> None:
    outcomes = Outcomes()
    for number in range(10):
        outcomes.report(SpecialistId(f"s{number}"), P, Outcome.DIED, 0.0)
    assert len(Outcomes.load(outcomes.dump(0.0, 0.0), 0.0, 0.0, cards_max=3)) == 3
    kept = Outcomes.load(outcomes.dump(0.0, 0.0), 0.0, 0.0, cards_max=3)
    assert kept.expected(card("s9"), 0.0) < 1.0 == kept.expected(card("s6"), 0.0)
    assert len(Outcomes.load(outcomes.dump(3 * HALF_LIFE_SECONDS, 0.0), 0.0, 0.0)) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"saved_at": float("nan")},
        {"newcomers": (float("inf"), 0.0)},
        {"cards": [["law", "p", -1.0, 0.0]]},
        {"cards": [["law", "p", 0.0, float("nan")]]},
        {"cards": [["law" * 100, "p", 0.0, 0.0]]},
        {"cards": 5},
    ],
)
def test_what_cannot_have_been_saved_is_refused(change: dict[str, object]) -> None:
    good = {"version": 1, "saved_at": 5.0, "newcomers": (0.0, 1.0), "cards": [["law", "p", 0, 2]]}
    assert Outcomes.load(msgspec.msgpack.encode(good), 0.0, 5.0).expected(card(), 0.0) < 0.5
    with pytest.raises(ProtocolError):
        Outcomes.load(msgspec.msgpack.encode(good | change), 0.0, 5.0)


@settings(max_examples=examples(2_000))
@given(st.data())
def test_a_damaged_file_is_refused_or_read_as_counts_within_bounds(data: st.DataObject) -> None:
    whole = bytearray(reported(Outcome.DIED, Outcome.COMPLETED).dump(0.0, 9.0))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = Outcomes.load(bytes(whole[: data.draw(st.integers(0, len(whole)))]), 0.0, 9.0)
    except ProtocolError:
        return
    assert 0 < found.expected(card(), 0.0) <= 1
    assert 0 < found.trust(card(), 0.0, random.Random(1)) <= 1
