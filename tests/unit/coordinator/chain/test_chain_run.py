"""The decisions of a chain: order, memory, budgets, doubts, failures, and what the client hears."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import pytest
from msgspec import structs

from coordinator.answer import (
    AnswerEvent,
    AnswerRequest,
    Completed,
    Delta,
    Planned,
    Resumed,
    Routed,
    Share,
    StepEnded,
    StepStarted,
    Waiting,
)
from coordinator.chain.actions import Action, Begin, Drop, Judge, Key, Prepare
from coordinator.chain.contest import HELD_TOKENS
from coordinator.chain.run import ChainRun
from coordinator.dispatch.actions import Emit, End
from coordinator.routing.plan import Kind, Plan, Step
from protocols.errors import DeadlineExceeded, DslmError, NoCapacity, PeerLost, TooLong, Unsupported
from protocols.ids import PeerId, RequestId, SpecialistId
from protocols.messages.ask import Chat, ChatMessage, Likelihood, Likely, Sampling, Text
from protocols.records import CapabilityCard, MeasuredScore

A, B = PeerId("a"), PeerId("b")
QUESTION = Chat((ChatMessage("system", "be brief"), ChatMessage("user", "all of it")))
SURE, UNSURE = -0.2, -2.5


def name(text: str) -> SpecialistId:
    return SpecialistId(text)


def card(specialist: str, *, base: str = "base", context: int = 2_048) -> CapabilityCard:
    return CapabilityCard(
        "p", "s", 1, 1e10, specialist, "d", "b", "fp32", context, base_digest=base, adapter="x",
        is_activated=True,
    )  # fmt: skip


class Scene:
    """A chain in progress; times are seconds since it began."""

    def __init__(
        self,
        *steps: Step,
        kind: Kind = "chain",
        max_tokens: int = 90,
        cards: Sequence[CapabilityCard] = (),
        sampling: Sampling = Sampling(),  # noqa: B008 - frozen
    ) -> None:
        self.request = AnswerRequest(
            RequestId("r"), "auto", QUESTION, sampling, max_tokens, budget=60.0
        )
        self.run = ChainRun(
            self.request,
            Plan(kind, steps, "why"),
            lambda asked: [one for one in cards if one.specialist == asked] or [card(asked)],
            0.0,
        )
        self.done = self.run.start(0.0)

    def go(self, actions: list[Action]) -> list[Action]:
        self.done += actions
        return actions

    def speak(  # noqa: PLR0913 - all but two have defaults
        self, step: int, text: str, *, attempt: int = 0, peer: PeerId = A, now: float = 1.0,
        tokens: int = 2, logprob: float = SURE,
    ) -> list[Action]:  # fmt: skip
        """A specialist is found and says `text`, all at once."""
        key = Key(step, attempt)
        found = Likelihood(logprob, b"t", (Likely(1, logprob, b"t"), Likely(2, logprob - 1, b"u")))
        actions = self.run.heard(key, Routed(name("s"), peer, "w"), now)
        delta = Delta(peer, 0, (1,) * tokens, text, (found,) * tokens)
        return self.go([*actions, *self.run.heard(key, delta, now)])

    def end(  # noqa: PLR0913 - all but one have defaults
        self, step: int, *, attempt: int = 0, peer: PeerId = A, tokens: int = 2, now: float = 2.0,
        reason: Literal["stop", "length"] = "stop", text: str = "",
    ) -> list[Action]:  # fmt: skip
        completed = Completed(
            name("s"),
            reason,
            text,
            20,
            tokens,
            0.5,
            1.0,
            (Share(peer, tokens),),
        )
        return self.go(self.run.heard(Key(step, attempt), completed, now))

    def fail(
        self, step: int, error: DslmError, *, attempt: int = 0, now: float = 2.0
    ) -> list[Action]:
        return self.go(self.run.failed(Key(step, attempt), error, now))

    @property
    def events(self) -> list[AnswerEvent]:
        return [action.event for action in self.done if isinstance(action, Emit)]


def begun(actions: Sequence[Action]) -> list[Begin]:
    return [action for action in actions if isinstance(action, Begin)]


def turns(begin: Begin) -> list[tuple[str, str]]:
    prompt = begin.request.prompt
    assert isinstance(prompt, Chat)
    return [(message.role, message.content) for message in prompt.messages]


def three(**more: int) -> Scene:
    return Scene(
        Step(name("medicine"), "the dose"),
        Step(name("maths"), "in grams", (0,)),
        Step(name("law"), "is it allowed", (1,)),
        **more,  # type: ignore[arg-type]
    )


def test_steps_follow_each_other_and_each_reads_what_was_said() -> None:
    scene = three()
    (first,) = begun(scene.done)
    assert turns(first) == [("system", "be brief"), ("user", "the dose")]
    assert first.specialist == "medicine"
    assert first.request.request_id == "r.0.0"
    assert begun(scene.speak(0, "70 mg.")) == []
    (second,) = begun(scene.end(0))
    assert turns(second) == [*turns(first), ("assistant", "70 mg."), ("user", "in grams")]
    scene.speak(1, "0.07 g.", peer=B)
    (third,) = begun(scene.end(1, peer=B))
    assert turns(third) == [*turns(second), ("assistant", "0.07 g."), ("user", "is it allowed")]
    scene.speak(2, "Yes.")
    assert scene.end(2)[-1] == End()
    kinds = [type(event) for event in scene.events]
    assert kinds == [Planned, *[StepStarted, Delta, StepEnded] * 3, Completed]
    assert [e.index for e in scene.events if isinstance(e, StepStarted | StepEnded)] == [
        0, 0, 1, 1, 2, 2,
    ]  # fmt: skip
    assert [e.step for e in scene.events if isinstance(e, Delta)] == [0, 1, 2]
    last = scene.events[-1]
    assert isinstance(last, Completed)
    assert (last.specialist, last.reason) == ("law", "stop")
    assert (last.prompt_tokens, last.completion_tokens) == (60, 6)
    assert last.shares == (Share(A, 4), Share(B, 2))


def test_the_next_step_is_told_who_has_read_the_beginning_and_is_made_ready() -> None:
    scene = three()
    spoke = scene.speak(0, "70 mg.", peer=B)
    (ready,) = [action for action in spoke if isinstance(action, Prepare)]
    assert (ready.specialist, ready.request.memory_at) == ("maths", B)
    assert ready.request.prompt == begun(scene.done)[0].request.prompt
    (second,) = begun(scene.end(0, peer=B))
    assert second.request.memory_at == B
    started = next(e for e in scene.speak(1, "x") if isinstance(e, Emit)).event
    assert isinstance(started, StepStarted)
    assert (started.handed.steps, started.handed.pages_at) == ((0,), B)


@pytest.mark.parametrize(
    "other",
    [card("maths", base="another"), structs.replace(card("maths"), is_activated=False)],
    ids=["another base", "an ordinary adapter"],
)
def test_pages_that_the_next_step_cannot_use_are_not_offered(other: CapabilityCard) -> None:
    scene = Scene(Step(name("law"), "a"), Step(name("maths"), "b", (0,)), cards=[other])
    spoke = scene.speak(0, "70 mg.", peer=B)
    assert [action.request.memory_at for action in spoke if isinstance(action, Prepare)] == [None]
    (second,) = begun(scene.end(0, peer=B))
    assert second.request.memory_at is None


def test_independent_steps_work_side_by_side_and_are_heard_in_order() -> None:
    scene = Scene(Step(name("law"), "a"), Step(name("maths"), "b"), Step(name("x"), "c", (0, 1)))
    assert [begin.key.step for begin in begun(scene.done)] == [0, 1]
    assert [a for a in scene.speak(1, "two") if isinstance(a, Emit)] == []
    scene.end(1)
    scene.speak(0, "one")
    (third,) = begun(scene.end(0))
    assert [content for _, content in turns(third)][1:] == ["a", "one", "b", "two", "c"]
    assert [e.text for e in scene.events if isinstance(e, Delta)] == ["one", "two"]
    assert [e.index for e in scene.events if isinstance(e, StepEnded)] == [0, 1]


def test_tokens_are_shared_and_what_is_left_over_passes_on() -> None:
    scene = three()
    assert begun(scene.done)[0].request.max_tokens == 30
    scene.speak(0, "a", tokens=10)
    assert begun(scene.end(0, tokens=10))[0].request.max_tokens == 40
    scene.speak(1, "b", tokens=40)
    assert begun(scene.end(1, tokens=40, reason="length"))[0].request.max_tokens == 40
    scene.speak(2, "c")
    scene.end(2)
    last = scene.events[-1]
    assert isinstance(last, Completed)
    assert last.reason == "length"  # one of them was cut


def test_time_is_shared_and_what_is_left_over_passes_on() -> None:
    scene = three()
    assert begun(scene.done)[0].request.budget == 20.0
    scene.speak(0, "a")
    assert begun(scene.end(0, now=10.0))[0].request.budget == 25.0
    late = scene.fail(1, DeadlineExceeded("too late"), now=60.0)
    assert begun(late) == []  # the budget is spent: the last step is not begun
    ended = [event for event in scene.events if isinstance(event, StepEnded)]
    assert [event.error for event in ended] == ["", "too late", "no time was left for this step"]
    last = scene.events[-1]
    assert isinstance(last, Completed)
    assert (last.reason, last.completion_tokens) == ("length", 2)


def test_fewer_tokens_than_steps() -> None:
    scene = three(max_tokens=1)
    assert begun(scene.done)[0].request.max_tokens == 1
    scene.speak(0, "a", tokens=1)
    assert begun(scene.end(0, tokens=1, reason="length")) == []
    ended = [event for event in scene.events if isinstance(event, StepEnded)]
    assert [event.error for event in ended] == ["", *["no tokens were left for this step"] * 2]
    assert scene.done[-1] == End()


def test_without_a_limit_each_answer_leaves_room_for_the_others() -> None:
    scene = three(max_tokens=0)
    assert begun(scene.done)[0].request.max_tokens == 2_048 // 4


def test_a_failed_step_keeps_what_it_said_and_the_next_goes_on_from_there() -> None:
    scene = three()
    scene.speak(0, "70 m", tokens=3)
    (second,) = begun(scene.fail(0, PeerLost("gone")))
    assert turns(second)[-2:] == [("assistant", "70 m"), ("user", "in grams")]
    (ended,) = [event for event in scene.events if isinstance(event, StepEnded)]
    assert (ended.error, ended.tokens, ended.shares) == ("gone", 3, (Share(A, 3),))


def test_a_step_that_says_nothing_is_left_out_of_what_the_next_is_told() -> None:
    scene = three()
    (second,) = begun(scene.fail(0, NoCapacity("nobody is there")))
    assert turns(second) == [("system", "be brief"), ("user", "in grams")]
    scene.speak(1, "?")
    scene.end(1)
    scene.fail(2, NoCapacity("nobody is there"))
    kinds = [type(event) for event in scene.events]
    assert kinds == [Planned, StepEnded, StepStarted, Delta, StepEnded, StepEnded, Completed]
    assert scene.done[-1] == End()


def test_when_no_step_says_anything_the_first_error_is_the_answer() -> None:
    scene, error = three(), NoCapacity("nobody is there")
    scene.fail(0, error)
    scene.fail(1, PeerLost("gone"))
    assert scene.fail(2, PeerLost("gone"))[-1] == End(error)


# Doubts ------------------------------------------------------------------------------------


def doubted() -> Scene:
    return Scene(Step(name("law"), "a", alternatives=(name("tax"), name("third"))))


def test_words_that_are_sure_are_told_after_the_first_few() -> None:
    scene = doubted()
    assert [type(e) for e in scene.events] == [Planned]
    scene.speak(0, "so ", tokens=HELD_TOKENS - 1)
    assert [type(e) for e in scene.events] == [Planned]
    told = scene.speak(0, "and so", tokens=1)
    assert [type(a.event) for a in told if isinstance(a, Emit)] == [StepStarted, Delta, Delta]
    assert begun(told) == []
    assert [type(a.event) for a in scene.speak(0, "on") if isinstance(a, Emit)] == [Delta]


def test_a_short_answer_is_judged_at_its_end() -> None:
    scene = doubted()
    scene.speak(0, "No.")
    ended = scene.end(0)
    assert [a for a in ended if isinstance(a, Judge)]
    assert [e.text for e in scene.events if isinstance(e, Delta)] == ["No."]


def test_doubtful_words_are_held_back_and_the_surer_of_two_is_told() -> None:
    scene = doubted()
    (retry,) = begun(scene.speak(0, "er", tokens=HELD_TOKENS, logprob=UNSURE))
    assert (retry.specialist, retry.key) == ("tax", Key(0, 1))
    assert retry.request.prompt == begun(scene.done)[0].request.prompt
    assert retry.request.request_id != begun(scene.done)[0].request.request_id
    chosen = scene.speak(0, "clearly", attempt=1, peer=B, tokens=HELD_TOKENS)
    assert Drop(Key(0, 0)) in chosen
    assert [a.specialist for a in chosen if isinstance(a, Judge)] == ["law"]
    scene.end(0, attempt=1, peer=B, tokens=HELD_TOKENS)
    assert [e.text for e in scene.events if isinstance(e, Delta)] == ["clearly"]
    (ended,) = [event for event in scene.events if isinstance(event, StepEnded)]
    assert ended.specialist == "tax"
    assert ended.evidence is not None
    assert ended.evidence.logprob == pytest.approx(SURE)
    assert ended.evidence.margin == pytest.approx(1.0)
    (other,) = ended.others
    assert other.specialist == "law"
    assert other.evidence is not None
    assert other.evidence.is_low


def test_the_first_goes_on_when_the_second_is_no_surer_or_fails() -> None:
    for fate in ("unsure", "fails"):
        scene = doubted()
        scene.speak(0, "er", tokens=HELD_TOKENS, logprob=UNSURE)
        if fate == "unsure":
            told = scene.speak(0, "um", attempt=1, tokens=HELD_TOKENS, logprob=2 * UNSURE)
            assert Drop(Key(0, 1)) in told
        else:
            scene.fail(0, PeerLost("gone"), attempt=1)
        assert [e.text for e in scene.events if isinstance(e, Delta)] == ["er"]
        scene.speak(0, " well", logprob=UNSURE)
        assert scene.end(0)[-1] == End()
        assert [e.text for e in scene.events if isinstance(e, Delta)] == ["er", " well"]
        assert begun(scene.done)[2:] == []  # one retry, never two


def test_the_next_card_stands_in_for_one_that_cannot_answer() -> None:
    scene = doubted()
    (retry,) = begun(scene.fail(0, NoCapacity("nobody is there")))
    assert retry.specialist == "tax"
    scene.speak(0, "yes", attempt=1)
    scene.end(0, attempt=1)
    (ended,) = [event for event in scene.events if isinstance(event, StepEnded)]
    assert (ended.specialist, ended.error) == ("tax", "")
    assert ended.others[0].why == "nobody is there"


def test_sampled_words_are_not_doubted() -> None:
    """At a high temperature chance makes tokens unlikely."""
    step = Step(name("law"), "a", alternatives=(name("tax"),))
    scene = Scene(step, sampling=Sampling(temperature=1.0))
    told = scene.speak(0, "er", logprob=UNSURE)
    assert [type(a.event) for a in told if isinstance(a, Emit)] == [StepStarted, Delta]


def claiming(nats: float, peer: PeerId) -> CapabilityCard:
    measured = MeasuredScore("probe", "nats per answer token", nats, 100)
    return structs.replace(card("law"), peer=peer, scores=(measured,))


@pytest.mark.parametrize(
    ("cards", "is_doubted"),
    [
        ([claiming(0.8, A)], True),
        ([claiming(1.2, A)], False),
        ([claiming(1.2, A), claiming(0.5, B)], False),  # what a replica says is not A's word
        ([claiming(0.8, A), claiming(9.0, B)], True),
    ],
)
def test_who_answers_is_held_to_its_own_measure(
    cards: list[CapabilityCard], is_doubted: bool
) -> None:
    scene = Scene(Step(name("law"), "a", alternatives=(name("tax"),)), cards=cards)
    begun_now = begun(scene.speak(0, "er", tokens=HELD_TOKENS, logprob=-1.0))
    assert [one.specialist for one in begun_now] == (["tax"] if is_doubted else [])


def test_a_liar_gains_nothing_by_an_extreme_measure() -> None:
    """The same answer with no figure, and with one that would excuse anything: the next is asked,
    and the verdict that is remembered is that it was weak.
    """
    for cards in ([], [claiming(1e9, A)]):
        scene = Scene(Step(name("law"), "a", alternatives=(name("tax"),)), cards=cards)
        (retry,) = begun(scene.speak(0, "er", tokens=HELD_TOKENS, logprob=UNSURE))
        assert retry.specialist == "tax"
        scene.speak(0, "yes", attempt=1, peer=B, tokens=HELD_TOKENS)
        verdicts = [one for one in scene.done if isinstance(one, Judge)]
        assert [(one.peer, one.evidence.is_low) for one in verdicts] == [(A, True)]


# Side by side on one prompt -------------------------------------------------------------------


def parallel() -> Scene:
    return Scene(Step(name("law")), Step(name("tax")), kind="parallel")


def test_of_two_answers_the_surer_is_told_and_the_other_named() -> None:
    scene = parallel()
    assert [b.specialist for b in begun(scene.done)] == ["law", "tax"]
    assert [b.request.max_tokens for b in begun(scene.done)] == [90, 90]
    assert turns(begun(scene.done)[0]) == [("system", "be brief"), ("user", "all of it")]
    scene.speak(0, "perhaps", attempt=0, logprob=-1.0)
    scene.end(0, attempt=0)
    scene.speak(0, "surely", attempt=1, peer=B)
    assert [type(e) for e in scene.events] == [Planned]
    assert scene.end(0, attempt=1, peer=B)[-1] == End()
    assert [e.text for e in scene.events if isinstance(e, Delta)] == ["surely"]
    (ended,) = [event for event in scene.events if isinstance(event, StepEnded)]
    assert [other.specialist for other in ended.others] == ["law"]
    assert len([a for a in scene.done if isinstance(a, Judge)]) == 2


def test_of_two_answers_a_whole_one_is_better_than_half_of_a_surer_one() -> None:
    scene = parallel()
    scene.speak(0, "sure", attempt=0, logprob=-0.1)
    scene.fail(0, PeerLost("gone"), attempt=0)
    scene.speak(0, "whole", attempt=1, peer=B, logprob=-1.0)
    scene.end(0, attempt=1, peer=B)
    assert [e.text for e in scene.events if isinstance(e, Delta)] == ["whole"]


def test_half_an_answer_is_better_than_none() -> None:
    scene = parallel()
    scene.speak(0, "sure", attempt=0)
    scene.fail(0, PeerLost("gone"), attempt=0)
    scene.fail(0, NoCapacity("nobody"), attempt=1)
    assert [e.text for e in scene.events if isinstance(e, Delta)] == ["sure"]
    (ended,) = [event for event in scene.events if isinstance(event, StepEnded)]
    assert ended.error == "gone"
    assert scene.done[-1] == End()


# What the client hears ------------------------------------------------------------------------


def test_waiting_failover_and_held_back_text_are_told_of() -> None:
    scene = three()
    key = Key(0, 0)
    scene.go(scene.run.heard(key, Routed(name("s"), A, "w"), 0.1))
    scene.go(scene.run.heard(key, Waiting(A, "queued", 2), 0.2))
    scene.speak(0, "one ")
    scene.go(scene.run.heard(key, Resumed(A, B, 2, "peer_lost"), 0.4))
    scene.end(0, peer=B, text="END")
    assert Waiting(A, "queued", 2) in scene.events
    assert Resumed(A, B, 2, "peer_lost") in scene.events
    assert Delta(B, 2, (), "END", step=0) in scene.events
    (second,) = [b for b in begun(scene.done) if b.key.step == 1]
    assert turns(second)[-2] == ("assistant", "one END")
    assert second.request.memory_at == B


@pytest.mark.parametrize(("asked", "shown"), [(None, None), (0, 0), (1, 1), (4, 2)])
def test_likelihoods_are_asked_for_always_and_shown_as_wanted(
    asked: int | None, shown: int | None
) -> None:
    scene = Scene(Step(name("law"), "a"), Step(name("x"), "b"), sampling=Sampling(logprobs=asked))
    assert begun(scene.done)[0].request.sampling.logprobs == max(2, asked or 0)
    scene.speak(0, "yes", tokens=1)
    (delta,) = [event for event in scene.events if isinstance(event, Delta)]
    assert [len(one.top) for one in delta.logprobs] == ([] if shown is None else [shown])


def test_a_long_answer_is_cut_to_what_the_next_can_read() -> None:
    steps = (Step(name("law"), "a"), Step(name("maths"), "b", (0,)))
    scene = Scene(*steps, max_tokens=400, cards=[card("law", context=300), card("maths")])
    text = "Here are some more words. " * 60 + "It comes to 42. That is it."
    scene.speak(0, text, tokens=350)
    (second,) = begun(scene.end(0, tokens=350))
    told = dict(turns(second))["assistant"]
    assert 30 < len(told) < len(text)
    assert told.endswith("It comes to 42. That is it.")
    (started,) = [a.event for a in scene.speak(1, "x") if isinstance(a, Emit)][:1]
    assert isinstance(started, StepStarted)
    assert started.handed.characters == len(told)
    assert started.handed.dropped == len(text) - len(told)


def test_with_too_little_room_it_is_tried_once_with_less() -> None:
    scene = three(max_tokens=300)
    assert begun(scene.done)[0].request.max_tokens == 100
    (again,) = begun(scene.fail(0, TooLong(limit=120, requested=160)))
    assert (again.key, again.specialist) == (Key(0, 0), "medicine")
    assert again.request.max_tokens == 60  # the prompt has 60 tokens of 120
    assert again.request.prompt == begun(scene.done)[0].request.prompt
    scene.speak(0, "70 mg", tokens=60)
    assert len(begun(scene.end(0, tokens=60))) == 1

    for error in (TooLong(limit=120, requested=230), TooLong(limit=20, requested=10)):
        scene = three(max_tokens=300)
        assert [b.key.step for b in begun(scene.fail(0, error))] == [1]  # no room at all

    scene = three(max_tokens=300)
    scene.fail(0, TooLong(limit=120, requested=160))
    assert [b.key.step for b in begun(scene.fail(0, TooLong(limit=120, requested=121)))] == [1]


def test_nothing_happens_after_the_end() -> None:
    scene = doubted()
    scene.run.close()
    assert scene.speak(0, "x") == []
    assert scene.fail(0, PeerLost("gone")) == []


def test_a_bare_text_is_no_chain() -> None:
    request = replace(three().request, prompt=Text("once upon a time"))
    with pytest.raises(Unsupported):
        ChainRun(request, Plan("one", (Step(name("law")),), ""), lambda _: [], 0.0)
