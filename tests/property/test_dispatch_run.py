"""A run of the dispatcher against peers that do anything: one ending, in time, never a wrong token.

The shell is replaced by a loop that plays hypothesis's choices; time is a number.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.answer import AnswerRequest, Completed, Delta, Resumed, Routed
from coordinator.dispatch.actions import Action, Drop, Emit, End, Start
from coordinator.dispatch.candidates import Candidates
from coordinator.dispatch.run import ATTEMPTS_MAX, AnswerRun
from coordinator.measure import PeerMeasurements
from coordinator.routing.router import Choice
from protocols.errors import (
    Busy,
    DeadlineExceeded,
    DslmError,
    NoCapacity,
    NotHere,
    PeerLost,
    PeerUnreachable,
    ProtocolError,
    TooLong,
    Unsupported,
)
from protocols.ids import PeerId, RequestId, SpecialistId
from protocols.messages.ask import (
    Accepted,
    Ask,
    Finished,
    Progress,
    Sampling,
    ServerMessage,
    Text,
    Tokens,
)
from protocols.records import CapabilityCard
from tests.effort import examples

NAMES = [PeerId(name) for name in "abcdef"]
BUDGET = 60.0
Draw = Callable[[st.SearchStrategy[Any]], Any]
ENDINGS = (NoCapacity, DeadlineExceeded, TooLong, Unsupported)


def card(peer: PeerId, digest: str) -> CapabilityCard:
    return CapabilityCard(peer, "s", 1, 1e10, "law", digest, "base", "fp32", 100)


def token(position: int) -> int:
    return 100 + position


@dataclass
class Played:
    """What the client and the peers saw."""

    ids: list[int] = field(default_factory=list)
    active: dict[int, Start] = field(default_factory=dict)
    spoken: dict[int, int] = field(default_factory=dict)
    starts: list[Start] = field(default_factory=list)
    events: list[object] = field(default_factory=list)
    ends: list[DslmError | None] = field(default_factory=list)

    def see(self, actions: list[Action]) -> None:
        for action in actions:
            assert not self.ends, "something after the end"
            match action:
                case Start():
                    assert list(action.ask.delivered) == self.ids
                    self.starts.append(action)
                    self.active[action.number] = action
                    self.spoken[action.number] = len(self.ids)
                case Drop(number):
                    self.active.pop(number, None)
                case End(error):
                    self.ends.append(error)
                case Emit(event):
                    self.events.append(event)
                    if isinstance(event, Delta):
                        assert event.position == len(self.ids), "a gap or a repeat"
                        self.ids += event.ids
        assert len(self.active) <= 2


def _errors(draw: Draw) -> DslmError:
    choices: list[DslmError] = [
        Busy("full", draw(st.sampled_from([0.1, 5.0, 500.0]))),
        NotHere("no"),
        PeerLost("gone"),
        PeerUnreachable("away"),
        ProtocolError("nonsense"),
        TooLong(100, 200),
        Unsupported("what"),
    ]
    weights = [0, 0, 1, 2, 2, 2, 2, 3, 3, 4, 4, 5, 6]
    return choices[draw(st.sampled_from(weights))]


def _step(draw: Draw, run: AnswerRun, played: Played, now: float) -> None:
    """One thing happens to one of the attempts ever made, dropped ones included."""
    start = draw(st.sampled_from(played.starts))
    number, ask = start.number, start.ask
    at = played.spoken[number]
    match draw(st.sampled_from(["token", "token", "token", "progress", "fail", "end", "lie"])):
        case "token" if at < ask.max_tokens:
            count = draw(st.integers(1, min(3, ask.max_tokens - at)))
            ids = tuple(token(at + i) for i in range(count))
            played.spoken[number] = at + count
            played.see(run.received(number, Tokens(at, ids, ""), now, now))
        case "progress":
            played.see(run.received(number, Progress("queued", 1), now, now))
        case "fail":
            actions = run.failed(number, _errors(draw), now)
            played.active.pop(number, None)
            played.see(actions)
        case "end" if at == ask.max_tokens:
            played.see(run.received(number, Finished("length", "", 1, at), now, now))
        case "lie":
            lie: ServerMessage = draw(
                st.sampled_from(
                    [
                        Tokens(at + 1, (7,), ""),
                        Finished("stop", "", 1, at + 1),
                        Accepted(1, 1, "other weights"),
                    ]
                )
            )
            played.see(run.received(number, lie, now, now))
        case _:
            pass


@settings(max_examples=examples(300), deadline=None)
@given(st.data())
def test_one_ending_in_time_and_never_a_wrong_token(data: st.DataObject) -> None:
    draw = data.draw
    digests = draw(st.lists(st.sampled_from(["d", "d", "e"]), min_size=0, max_size=6))
    cards = [card(peer, digest) for peer, digest in zip(NAMES, digests, strict=False)]
    measurements = PeerMeasurements(NAMES[0])
    candidates = Candidates(lambda: cards, NAMES[0], measurements, random.Random(1))
    wanted = draw(st.integers(1, 6))
    request = AnswerRequest(
        RequestId("r"), "law", Text("hi"), Sampling(), max_tokens=wanted, budget=BUDGET
    )
    run = AnswerRun(request, Choice(SpecialistId("law"), "named"), candidates, measurements, 0.0)
    played, now = Played(), 0.0
    played.see(run.start(now))
    for _ in range(draw(st.integers(0, 40))):
        if played.starts and not played.ends:
            _step(draw, run, played, now)
        if draw(st.booleans()) and not played.ends:
            now = max(now, run.wake_at()) if draw(st.booleans()) else now + 0.3
            if now >= run.wake_at():
                played.see(run.tick(now))
    for _ in range(2_000):  # from here on all peers are silent
        if played.ends:
            break
        now = max(now, run.wake_at())
        played.see(run.tick(now))
    _check(played, measurements, wanted, now)
    _check_one_digest(played, {c.peer: c.model_digest for c in cards})


def _check(played: Played, measurements: PeerMeasurements, wanted: int, now: float) -> None:
    assert len(played.ends) == 1
    assert now <= BUDGET + 41 * 0.3
    assert played.ids == [token(position) for position in range(len(played.ids))]
    assert len(played.starts) <= ATTEMPTS_MAX
    assert sum(isinstance(event, Routed) for event in played.events) == bool(played.starts)
    completed = [event for event in played.events if isinstance(event, Completed)]
    if played.ends[0] is None:
        assert len(completed) == 1
        assert played.events[-1] is completed[0]
        assert len(played.ids) == wanted == completed[0].completion_tokens
        assert sum(share.tokens for share in completed[0].shares) == wanted
    else:
        assert not completed
        assert isinstance(played.ends[0], ENDINGS)
    for peer in NAMES:
        assert measurements.snapshot(peer, now).in_flight == 0


def _check_one_digest(played: Played, digest_of: dict[str, str]) -> None:
    speakers = {digest_of[event.peer] for event in played.events if isinstance(event, Delta)}
    assert len(speakers) <= 1
    for event in played.events:
        if isinstance(event, Resumed):
            assert event.from_peer != event.to_peer
    for start in played.starts:
        assert isinstance(start.ask, Ask)
        assert 0 <= start.ask.budget <= BUDGET
