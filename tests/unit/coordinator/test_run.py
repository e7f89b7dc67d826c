"""The run of one request: hedging, failover, deadlines, and who is blamed."""

import dataclasses
import random

import msgspec
import pytest

from coordinator.answer import (
    AnswerRequest,
    Completed,
    Delta,
    Resumed,
    Route,
    Routed,
    Share,
    Waiting,
)
from coordinator.dispatch.actions import Action, Drop, Emit, End, LookAgain, Predial, Start
from coordinator.dispatch.candidates import Candidates
from coordinator.dispatch.run import AnswerRun
from coordinator.measure import PeerMeasurements
from coordinator.routing.router import Choice
from protocols.errors import (
    Busy,
    DeadlineExceeded,
    DslmError,
    NoCapacity,
    NotHere,
    PeerLost,
    ProtocolError,
    TooLong,
    Unsupported,
)
from protocols.ids import PeerId, RequestId, SpecialistId
from protocols.messages.ask import (
    Accepted,
    Finished,
    Likelihood,
    Progress,
    RegularExpression,
    Sampling,
    Text,
    Tokens,
)
from protocols.records import CapabilityCard

A, B, C, ME = (PeerId(name) for name in ("a", "b", "c", "me"))


class Scene:
    """A run with peers a, b, ... of which earlier ones are faster; `digests` by peer."""

    def __init__(
        self, digests: dict[PeerId, str], budget: float = 60.0, route: Route = Route.ANY
    ) -> None:
        self.measurements = PeerMeasurements(ME)
        for number, peer in enumerate(digests):
            self.measurements.first_token(peer, 0.1 * 2**number)
        self.cards = [
            CapabilityCard(peer, "s", 1, 1e10, "law", digest, "b", "fp32", 100)
            for peer, digest in digests.items()
        ]
        self.candidates = Candidates(lambda: self.cards, ME, self.measurements, random.Random(1))
        self.request = AnswerRequest(
            RequestId("r"), "law", Text("hi"), Sampling(), 4, budget, route=route
        )
        choice = Choice(SpecialistId("law"), "by name")
        self.run = AnswerRun(self.request, choice, self.candidates, self.measurements, 0.0)

    def say(self, number: int, position: int, *ids: int, now: float = 0.1) -> list[Action]:
        return self.run.received(number, Tokens(position, ids, "t"), now, now)


def three() -> Scene:
    return Scene({A: "d", B: "d", C: "d"})


def started(actions: list[Action]) -> list[tuple[int, PeerId, tuple[int, ...]]]:
    return [(a.number, a.peer, a.ask.delivered) for a in actions if isinstance(a, Start)]


def events(actions: list[Action]) -> list[object]:
    return [action.event for action in actions if isinstance(action, Emit)]


def test_everything_that_decides_a_token_goes_to_each_peer() -> None:
    """A replacement that did not know the constraint would say something else."""
    sampling = Sampling(0.5, seed=3, frequency_penalty=0.5)
    scene = three()
    scene.run = AnswerRun(
        dataclasses.replace(
            scene.request, sampling=sampling, stop=("x",), constraint=RegularExpression("a")
        ),
        Choice(SpecialistId("law"), "by name"),
        scene.candidates,
        scene.measurements,
        0.0,
    )
    asked = [action.ask for action in scene.run.start(0.0) if isinstance(action, Start)]
    scene.say(0, 0, 5, 6)
    lost = scene.run.failed(0, PeerLost("gone"), 0.2)
    asked += [action.ask for action in lost if isinstance(action, Start)]
    assert [ask.delivered for ask in asked] == [(), (5, 6)]
    for ask in asked:
        assert (ask.sampling, ask.stop) == (sampling, ("x",))
        assert ask.constraint == RegularExpression("a")


def test_an_answer_goes_on_in_its_precision_if_it_can_and_in_another_if_it_must() -> None:
    scene = three()
    scene.cards[1] = msgspec.structs.replace(scene.cards[1], precision="int4")
    (first,) = started(scene.run.start(0.0))
    assert first[1] == A
    scene.say(0, 0, 5)
    (second,) = started(scene.run.failed(0, ProtocolError("nonsense"), 0.2))
    assert second[1:] == (C, (5,))
    scene.say(second[0], 1, 6)
    (third,) = started(scene.run.failed(second[0], ProtocolError("nonsense"), 0.3))
    assert third[1:] == (B, (5, 6))


def test_an_answer_does_not_wait_for_a_busy_peer_of_its_precision() -> None:
    scene = three()
    scene.cards[1] = msgspec.structs.replace(scene.cards[1], precision="int4")
    scene.run.start(0.0)
    scene.say(0, 0, 5)
    (second,) = started(scene.run.failed(0, ProtocolError("nonsense"), 0.2))
    (third,) = started(scene.run.failed(second[0], Busy("full", retry_after=5.0), 0.3))
    assert (second[1], third[1:]) == (C, (B, (5,)))


def test_likelihoods_reach_the_client() -> None:
    scene = three()
    scene.run.start(0.0)
    found = (Likelihood(-1.0, b"t"),)
    told = scene.run.received(0, Tokens(0, (5,), "t", found), 0.1, 0.1)
    assert events(told) == [Delta(A, 0, (5,), "t", found)]


def test_an_undisturbed_answer() -> None:
    scene = three()
    first = scene.run.start(0.0)
    assert events(first) == [Routed(SpecialistId("law"), A, "by name", (), B)]
    assert started(first) == [(0, A, ())]
    assert Predial(B) in first
    assert scene.run.received(0, Accepted(1, 100, "d"), 0.1, 0.1) == []
    assert events(scene.run.received(0, Progress("queued", 2), 0.1, 0.1)) == [
        Waiting(A, "queued", 2)
    ]
    assert events(scene.say(0, 0, 5, 6)) == [Delta(A, 0, (5, 6), "t")]
    *rest, end = scene.run.received(0, Finished("stop", "!", 1, 2), 0.5, 0.5)
    assert end == End()
    assert events(rest) == [
        Completed(SpecialistId("law"), "stop", "!", 1, 2, 0.1, 0.5, (Share(A, 2),))
    ]
    assert scene.measurements.snapshot(A, 0.5).in_flight == 0


def test_a_peer_lost_in_mid_answer_is_continued_and_alone_blamed() -> None:
    scene = three()
    scene.run.start(0.0)
    scene.say(0, 0, 5, 6)
    actions = scene.run.failed(0, PeerLost("gone"), 1.0)
    assert started(actions) == [(1, B, (5, 6))]
    assert scene.run.received(0, Tokens(2, (9,), ""), 1.0, 1.0) == []  # a late word of the lost one
    assert events(scene.say(1, 2, 7, now=1.2)) == [
        Resumed(A, B, 2, "peer_lost"),
        Delta(B, 2, (7,), "t"),
    ]
    assert scene.measurements.snapshot(A, 1.2).failures == 1
    assert scene.measurements.snapshot(B, 1.2).failures == 0


def test_a_silent_peer_is_given_up_after_its_deadline() -> None:
    scene = three()
    scene.run.start(0.0)
    scene.say(0, 0, 5, now=0.5)
    scene.say(0, 1, 6, now=1.0)
    assert scene.run.wake_at() == pytest.approx(1.0 + 8 * 0.5)
    assert scene.run.tick(4.9) == []
    actions = scene.run.tick(5.0)
    assert Drop(0) in actions
    assert started(actions) == [(1, B, (5, 6))]


def test_a_client_that_is_slow_to_read_is_no_fault_of_the_peer() -> None:
    scene = three()
    scene.run.start(0.0)
    scene.say(0, 0, 5, now=0.5)
    scene.run.paused(30.0)
    assert scene.run.tick(30.5) == []


def test_a_late_first_token_is_hedged_and_the_first_wins() -> None:
    scene = three()
    scene.run.start(0.0)
    assert scene.run.wake_at() == pytest.approx(1.0)  # 4 x 0.1 s is less than a second
    hedge = scene.run.tick(1.0)
    assert started(hedge) == [(1, B, ())]
    won = scene.say(1, 0, 5, now=1.1)
    assert Drop(0) in won
    assert events(won) == [Resumed(A, B, 0, "deadline_exceeded"), Delta(B, 0, (5,), "t")]
    assert scene.measurements.expected_first_token(A) > 0.25  # remembered as slow
    assert scene.measurements.snapshot(A, 1.1).failures == 0  # but not as failing


def test_the_hedged_one_may_still_win() -> None:
    scene = three()
    scene.run.start(0.0)
    scene.run.tick(1.0)
    won = scene.say(0, 0, 5, now=1.1)
    assert Drop(1) in won
    assert events(won) == [Delta(A, 0, (5,), "t")]


def test_progress_is_life_before_the_first_token() -> None:
    scene = Scene({A: "d"})
    scene.run.start(0.0)
    for second in range(1, 30):
        scene.run.received(0, Progress("prefill"), float(second), float(second))
        assert not any(isinstance(action, Drop) for action in scene.run.tick(float(second)))
    assert Drop(0) in scene.run.tick(29.0 + 5.0)


def test_the_last_who_may_carry_on_is_waited_for_longer() -> None:
    """Silent means slow more often than dead, and giving it up would end the answer."""
    scene = Scene({A: "d", B: "d", C: "other"})
    scene.run.start(0.0)
    scene.say(0, 0, 5)
    assert started(scene.run.failed(0, PeerLost("gone"), 1.0)) == [(1, B, (5,))]
    scene.say(1, 1, 6, now=2.0)
    assert scene.run.tick(2.0 + 2.1) == []
    assert scene.run.wake_at() == pytest.approx(2.0 + 8.0)
    scene.say(1, 2, 7, now=2.5)
    assert scene.run.tick(scene.run.wake_at()) == []  # Each silence anew.
    assert Drop(1) in scene.run.tick(scene.run.wake_at())


def test_a_silent_peer_is_given_up_at_once_where_another_waits() -> None:
    scene = three()
    scene.run.start(0.0)
    scene.say(0, 0, 5)
    assert started(scene.run.tick(0.1 + 2.1)) == [(1, B, (5,))]


def test_only_the_same_weights_carry_on() -> None:
    scene = Scene({A: "d", B: "other", C: "d"})
    scene.run.start(0.0)
    scene.say(0, 0, 5)
    assert started(scene.run.failed(0, PeerLost("gone"), 1.0)) == [(1, C, (5,))]


def test_before_the_first_token_other_weights_may_answer() -> None:
    scene = Scene({A: "d", B: "other"})
    scene.run.start(0.0)
    assert started(scene.run.failed(0, PeerLost("gone"), 1.0)) == [(1, B, ())]


def test_the_weights_that_most_peers_have_are_preferred() -> None:
    scene = Scene({A: "rare", B: "d", C: "d"})
    assert started(scene.run.start(0.0)) == [(0, B, ())]


@pytest.mark.parametrize(
    "message",
    [
        Tokens(1, (5,), ""),
        Tokens(0, (1, 2, 3, 4, 5), ""),
        Finished("stop", "", 1, 3),
        Accepted(1, 1, "other weights"),
    ],
)
def test_a_peer_that_breaks_the_protocol_is_replaced(
    message: Tokens | Finished | Accepted,
) -> None:
    scene = three()
    scene.run.start(0.0)
    actions = scene.run.received(0, message, 0.1, 0.1)
    assert actions[0] == Drop(0)
    assert started(actions) == [(1, B, ())]


def test_busy_peers_are_waited_for_when_there_is_nobody_else() -> None:
    scene = Scene({A: "d"})
    scene.run.start(0.0)
    waiting = scene.run.failed(0, Busy("full", 3.0), 0.1)
    assert waiting == [LookAgain()]
    assert started(scene.run.tick(2.0)) == []
    assert started(scene.run.tick(3.2)) == [(1, A, ())]
    assert scene.measurements.snapshot(A, 3.2).failures == 0


def test_busy_beyond_the_budget_is_no_capacity() -> None:
    scene = Scene({A: "d"}, budget=5.0)
    scene.run.start(0.0)
    (end,) = scene.run.failed(0, Busy("full", 30.0), 0.1)
    assert isinstance(end, End)
    assert isinstance(end.error, NoCapacity)
    assert end.error.retry_after == pytest.approx(30.0)


def test_a_new_replica_is_found_while_nobody_is_left() -> None:
    scene = Scene({A: "d"})
    scene.run.start(0.0)
    scene.say(0, 0, 5)
    assert scene.run.failed(0, NotHere("unloaded"), 1.0) == [LookAgain()]
    scene.cards.append(CapabilityCard(B, "s", 1, 1e10, "law", "d", "b", "fp32", 100))
    assert started(scene.run.tick(scene.run.wake_at())) == [(1, B, (5,))]


def test_nobody_left_is_no_capacity_soon_and_locally_at_once() -> None:
    scene = Scene({A: "d"})
    scene.run.start(0.0)
    scene.run.failed(0, NotHere("unloaded"), 1.0)
    actions: list[Action] = []
    now = 1.0
    while not actions:
        now = scene.run.wake_at()
        actions = scene.run.tick(now)
    assert now <= 4.5
    assert isinstance(actions[0], End)
    assert isinstance(actions[0].error, NoCapacity)
    local = Scene({ME: "d"}, route=Route.LOCAL)
    local.run.start(0.0)
    (end,) = local.run.failed(0, NotHere("unloaded"), 1.0)
    assert isinstance(end, End)


def test_faults_of_the_caller_end_the_request_when_nobody_sees_it_otherwise() -> None:
    scene = three()
    scene.run.start(0.0)
    error = Unsupported("what")
    outcomes = [scene.run.failed(number, error, 0.1) for number in range(3)]
    assert outcomes[-1] == [End(error)]
    assert scene.measurements.snapshot(A, 0.1).failures == 0


def test_two_peers_who_find_it_too_long_are_believed() -> None:
    scene = three()
    scene.run.start(0.0)
    scene.run.failed(0, TooLong(100, 2_000_000_000), 0.1)
    error = TooLong(100, 2_000_000_000)
    assert scene.run.failed(1, error, 0.1) == [End(error)]


def test_one_peer_that_lies_about_the_length_keeps_nobody_from_answering() -> None:
    for error in (TooLong(1, 2_000_000_000), Unsupported("nothing at all")):
        scene = three()
        scene.run.start(0.0)
        assert started(scene.run.failed(0, error, 0.1)) == [(1, B, ())]


def test_too_long_for_one_may_fit_another() -> None:
    scene = three()
    scene.cards[1] = CapabilityCard(B, "s", 1, 1e10, "law", "d", "b", "fp32", 500)
    scene.run.start(0.0)
    assert started(scene.run.failed(0, TooLong(100, 200), 0.1)) == [(1, B, ())]


def test_the_budget_ends_a_steady_stream() -> None:
    scene = Scene({A: "d"}, budget=5.0)
    scene.run.start(0.0)
    scene.say(0, 0, 5, now=4.9)
    (drop, end) = scene.say(0, 1, 6, now=5.0)
    assert drop == Drop(0)
    assert isinstance(end, End)
    assert isinstance(end.error, DeadlineExceeded)
    assert scene.run.tick(6.0) == []


def test_one_peer_that_keeps_failing_is_asked_a_few_times_only() -> None:
    scene = Scene({A: "d"})
    attempts, now = len(started(scene.run.start(0.0))), 0.0
    actions: list[Action] = []
    while not any(isinstance(action, End) for action in actions):
        actions = scene.run.failed(attempts - 1, PeerLost("gone"), now)
        while not actions or actions == [LookAgain()]:
            now = scene.run.wake_at()
            actions = scene.run.tick(now)
        attempts += len(started(actions))
    assert attempts == 4
    assert now < 10.0


def test_a_liar_is_not_asked_again() -> None:
    scene = Scene({A: "d"})
    scene.run.start(0.0)
    scene.run.failed(0, ProtocolError("nonsense"), 0.1)
    while not (actions := scene.run.tick(scene.run.wake_at())):
        pass
    assert isinstance(actions[0], End)


def test_leaving_frees_everything() -> None:
    scene = three()
    scene.run.start(0.0)
    scene.run.tick(1.0)
    scene.run.close()
    assert [scene.measurements.snapshot(peer, 1.0).in_flight for peer in (A, B)] == [0, 0]
    assert scene.say(0, 0, 5) == []


class Grudge:
    """Trusts by peer, and remembers whom it was told of."""

    def __init__(self, trust: dict[str, float]) -> None:
        self.trust = trust
        self.told: list[tuple[str, str]] = []

    def expected(self, card: CapabilityCard) -> float:
        return self.trust[card.peer]

    def failed(self, card: CapabilityCard, error: DslmError) -> None:
        self.told.append((card.peer, error.code))


def test_replicas_that_are_trusted_little_come_last_and_failures_are_told_once() -> None:
    scene = three()
    grudge = Grudge({A: 0.3, B: 0.7, C: 1.0})
    candidates = Candidates(lambda: scene.cards, ME, scene.measurements, random.Random(1), grudge)
    asked = []
    for now in (0.0, 0.0, 0.0):
        card = candidates.next(now, None)
        assert isinstance(card, CapabilityCard)
        asked.append(card.peer)
        candidates.failed(PeerId(card.peer), PeerLost("gone"), now)
    assert asked == [B, C, A]
    candidates.failed(A, PeerLost("gone again"), 1.0)
    assert grudge.told == [(B, "peer_lost"), (C, "peer_lost"), (A, "peer_lost")]
