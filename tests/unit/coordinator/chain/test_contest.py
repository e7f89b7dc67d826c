"""One step: what is said of tries whose comparison with the base comes too late, or in time."""

from coordinator.answer import AnswerRequest, Completed, Delta, Routed
from coordinator.chain.actions import Action, Begin, Compare, Judge, Key
from coordinator.chain.contest import HELD_TOKENS, Bout, Contest
from protocols.errors import PeerLost
from protocols.ids import PeerId, RequestId, SpecialistId
from protocols.messages.ask import Likelihood, Sampling, Text

LAW, TAX = SpecialistId("law"), SpecialistId("tax")
A, B = PeerId("a"), PeerId("b")


def request(key: Key, specialist: SpecialistId, _: float) -> AnswerRequest:
    return AnswerRequest(RequestId(f"r{key.attempt}"), specialist, Text("hi"), Sampling(), 40, 9.0)


def contest() -> Contest:
    way, floor = "doubted", lambda *_: -1.0
    one = Contest(Bout(0, "hi", (LAW, TAX), way, None, request, floor, asks_base=True))  # type: ignore[arg-type]
    one.begin(0.0)
    return one


def says(one: Contest, attempt: int, peer: PeerId, tokens: int = HELD_TOKENS) -> list[Action]:
    """Words that the specialist itself finds unlikely."""
    found = (Likelihood(-2.0, b"x", ()),) * tokens
    one.heard(attempt, Routed(LAW, peer, "why"), 1.0)
    return one.heard(attempt, Delta(peer, 0, tuple(range(tokens)), "x", found), 1.0)


def ends(one: Contest, attempt: int) -> list[Action]:
    return one.heard(attempt, Completed(LAW, "stop", "", 1, HELD_TOKENS, 0.1, 1.0), 2.0)


def judged(actions: list[Action]) -> list[tuple[PeerId, float | None]]:
    return [(a.peer, a.evidence.gain) for a in actions if isinstance(a, Judge)]


def test_a_try_that_ends_before_the_base_has_spoken_is_judged_by_its_own_words() -> None:
    one = contest()
    assert [type(action) for action in says(one, 0, A)] == [Compare]
    assert [type(action) for action in one.compared(0, -2.0, 1.0)] == [Begin], "nothing gained"
    assert [type(action) for action in says(one, 1, B)] == [Compare]
    one.failed(0, PeerLost("gone"), 1.5)  # nobody is left to compare with: the other is believed
    assert one.speaker is not None
    assert one.speaker.peer == B
    actions = ends(one, 1)
    assert one.is_over
    assert judged(actions) == [(B, None)]
    assert one.compared(1, -9.0, 3.0) == [], "too late, and it is not judged twice"


def test_each_try_is_judged_once_with_what_the_base_said_in_time() -> None:
    one = contest()
    says(one, 0, A)
    assert judged(ends(one, 0)) == [], "what the base says is waited for"
    actions = one.compared(0, -9.0, 2.5)
    assert one.is_over
    assert judged(actions) == [(A, 7.0)]


def test_a_try_that_was_complete_and_not_believed_is_judged_too() -> None:
    one = contest()
    says(one, 0, A)
    ends(one, 0)
    assert judged(one.compared(0, -2.0, 2.5)) == [(A, 0.0)]
    says(one, 1, B)
    assert judged(one.compared(1, -9.0, 3.0)) == []
    assert judged(ends(one, 1)) == [(B, 7.0)]
