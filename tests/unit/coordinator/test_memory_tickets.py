"""Who hears where the memory of a prompt lies, and by which ticket."""

import dataclasses
import random

from coordinator.answer import AnswerRequest, Completed, MemoryUse
from coordinator.dispatch.actions import Emit, Start
from coordinator.dispatch.candidates import Candidates
from coordinator.dispatch.run import AnswerRun
from coordinator.measure import PeerMeasurements
from coordinator.memory import new_ticket, preparing, with_ticket
from coordinator.routing.router import Choice
from protocols.errors import PeerLost
from protocols.ids import PeerId, RequestId, SpecialistId
from protocols.messages.ask import Ask, Finished, RegularExpression, Sampling, Text, Tokens
from protocols.records import CapabilityCard

A, B, ME = PeerId("a"), PeerId("b"), PeerId("me")
REQUEST = AnswerRequest(RequestId("r"), "law", Text("hi"), Sampling(), 4, 60.0)


def run_of(request: AnswerRequest, *trusted: PeerId) -> AnswerRun:
    measurements = PeerMeasurements(ME)
    measurements.first_token(A, 0.1)
    cards = [CapabilityCard(one, "s", 1, 1e10, "law", "d", "b", "fp32", 100) for one in (A, B)]
    candidates = Candidates(lambda: cards, ME, measurements, random.Random(1))
    choice = Choice(SpecialistId("law"), "by name")
    return AnswerRun(request, choice, candidates, measurements, 0.0, lambda one: one in trusted)


def asked(run: AnswerRun) -> dict[PeerId, Ask]:
    starts = [*run.start(0.0), *run.failed(0, PeerLost("gone"), 0.1)]
    return {action.peer: action.ask for action in starts if isinstance(action, Start)}


def test_only_trusted_peers_hear_of_it() -> None:
    request = dataclasses.replace(REQUEST, memory_at=PeerId("c"), memory_ticket="t")
    found = asked(run_of(request, B))
    assert (found[A].memory_at, found[A].memory_ticket) == ("", "")
    assert (found[B].memory_at, found[B].memory_ticket) == ("c", "t")


def test_without_a_ticket_there_is_nothing_to_hear() -> None:
    request = dataclasses.replace(REQUEST, memory_at=PeerId("c"))
    assert {
        (one.memory_at, one.memory_ticket) for one in asked(run_of(request, A, B)).values()
    } == {("", "")}


def test_steps_of_a_task_keep_its_ticket_and_tasks_have_their_own() -> None:
    rng = random.Random(1)
    task = with_ticket(REQUEST, rng)
    assert len(task.memory_ticket) == 64
    assert with_ticket(dataclasses.replace(task, max_tokens=9), rng).memory_ticket == (
        task.memory_ticket
    )
    assert len({new_ticket(rng) for _ in range(50)} | {task.memory_ticket}) == 51


def test_a_prompt_is_made_ready_at_one_peer_for_one_token() -> None:
    step = dataclasses.replace(
        with_ticket(REQUEST, random.Random(1)),
        request_id=RequestId("r" * 64),
        memory_at=A,
        stop=("x",),
        constraint=RegularExpression("a"),
    )
    ready = preparing(step, B)
    assert (ready.node, ready.max_tokens, ready.stop, ready.constraint) == (B, 1, (), None)
    assert (ready.prompt, ready.memory_at, ready.memory_ticket) == (
        step.prompt,
        A,
        step.memory_ticket,
    )
    assert len(ready.request_id) <= 64
    assert ready.request_id != step.request_id


def test_the_client_is_told_what_was_reused() -> None:
    run = run_of(REQUEST)
    run.start(0.0)
    run.received(0, Tokens(0, (1,), "a"), 0.1, 0.1)
    end = Finished("stop", "", 3, 1, pages_reused=9, pages_fetched=5, bytes_fetched=1_000)
    actions = run.received(0, end, 0.2, 0.2)
    (completed,) = [
        action.event
        for action in actions
        if isinstance(action, Emit) and isinstance(action.event, Completed)
    ]
    assert completed.memory == MemoryUse(9, 5, 1_000)
