"""A chain of which anything may come: one ending, each step told once, in order, in its means."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

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
from coordinator.chain.actions import Action, Begin, Compare, Drop, Key
from coordinator.chain.run import ChainRun
from coordinator.dispatch.actions import Emit, End
from coordinator.routing.plan import Kind, Plan, Step
from protocols.errors import DeadlineExceeded, NoCapacity, PeerLost
from protocols.ids import PeerId, RequestId, SpecialistId
from protocols.messages.ask import Chat, ChatMessage, Likelihood, Sampling
from tests.effort import examples

BUDGET = 60.0
MOVES_MAX = 60
"""After so many everybody that still works is lost."""
PEERS = [PeerId(name) for name in "abc"]
Draw = Callable[[st.SearchStrategy[Any]], Any]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    names = st.sampled_from([SpecialistId(name) for name in "uvwxyz"])
    steps = []
    for index in range(draw(st.integers(1, 4))):
        after = draw(st.sets(st.integers(0, index - 1), max_size=2)) if index else set()
        others = tuple(draw(st.lists(names, max_size=2)))
        steps.append(Step(draw(names), f"part {index}", tuple(sorted(after)), others))
    kind: Kind = draw(st.sampled_from(["chain", "chain", "parallel"]))
    if kind == "parallel":
        steps = [Step(step.specialist) for step in steps]
    return Plan(kind, tuple(steps), "why")


@dataclass
class Answer:
    """One specialist's answer in progress."""

    begin: Begin
    peer: PeerId | None = None
    tokens: int = 0


@dataclass
class World:
    """Everybody that a chain has working, and what the client has heard."""

    run: ChainRun
    now: float = 0.0
    working: dict[Key, Answer] = field(default_factory=dict)
    begun: list[Begin] = field(default_factory=list)
    heard: list[AnswerEvent] = field(default_factory=list)
    ends: list[End] = field(default_factory=list)
    compared: list[Compare] = field(default_factory=list)
    """What the base is still asked about."""
    was_compared: bool = False

    def do(self, actions: list[Action]) -> None:
        for action in actions:
            assert not self.ends, "something after the end"
            match action:
                case Begin(key):
                    assert key not in self.working
                    self.working[key] = Answer(action)
                    self.begun.append(action)
                case Drop(key):
                    del self.working[key]
                case Compare(_, question):
                    assert question.ids
                    self.compared.append(action)
                case Emit(event):
                    self.heard.append(event)
                case End():
                    self.ends.append(action)
                case _:
                    pass


def move(world: World, draw: Draw) -> None:
    """Something happens to one of those that work."""
    key = draw(st.sampled_from(sorted(world.working, key=lambda key: (key.step, key.attempt))))
    answer = world.working[key]
    world.now += draw(st.floats(0, 5))
    if answer.peer is None:
        event: AnswerEvent = Routed(answer.begin.specialist, draw(st.sampled_from(PEERS)), "")
        what = draw(st.sampled_from(["fails", "routed", "routed", "routed"]))
    else:
        event = Waiting(answer.peer, "prefill")
        what = draw(st.sampled_from(["ends", "fails", "says", "says", "says", "waits", "resumes"]))
    room = answer.begin.request.max_tokens - answer.tokens
    if what == "says" and room:
        count = draw(st.integers(1, min(20, room)))
        found = Likelihood(-draw(st.floats(0, 4)), b"t")
        assert answer.peer is not None
        event = Delta(answer.peer, answer.tokens, (1,) * count, "word 7. ", (found,) * count)
        answer.tokens += count
    elif what == "resumes":
        other = draw(st.sampled_from(PEERS))
        assert answer.peer is not None
        event = Resumed(answer.peer, other, answer.tokens, "peer_lost")
        answer.peer = other
    elif what == "ends":
        del world.working[key]
        reason = draw(st.sampled_from(["stop", "length"]))
        assert answer.peer is not None
        shares = (Share(answer.peer, answer.tokens),)
        event = Completed(
            SpecialistId("?"), reason, draw(st.sampled_from(["", "END"])), 9, answer.tokens,
            0.1, 1.0, shares,
        )  # fmt: skip
    elif what == "fails":
        del world.working[key]
        error = draw(st.sampled_from([PeerLost("x"), NoCapacity("y"), DeadlineExceeded("z")]))
        world.do(world.run.failed(key, error, world.now))
        return
    if isinstance(event, Routed):
        answer.peer = event.peer
    world.do(world.run.heard(key, event, world.now))


def compare(world: World, draw: Draw) -> None:
    """The base says how likely it finds one of the answers, or cannot."""
    asked = world.compared.pop(draw(st.integers(0, len(world.compared) - 1)))
    world.was_compared = True
    base = draw(st.none() | st.floats(-9, 0))
    world.do(world.run.compared(asked.key, base, world.now))


@settings(max_examples=examples(400), deadline=None)
@given(data=st.data(), plan=plans(), most=st.integers(0, 60), asks_base=st.booleans())
def test_whatever_happens(data: st.DataObject, plan: Plan, most: int, asks_base: bool) -> None:
    chat = Chat((ChatMessage("user", "all of it"),))
    request = AnswerRequest(RequestId("r"), "auto", chat, Sampling(), most, BUDGET)
    world = World(ChainRun(request, plan, lambda _: [], 0.0, asks_base=asks_base))
    world.do(world.run.start(0.0))
    moves = 0
    while not world.ends:
        assert world.working or world.compared, "nobody works, and there is no end"
        if world.compared and (not world.working or data.draw(st.booleans())):
            compare(world, data.draw)
        elif moves < MOVES_MAX:
            move(world, data.draw)
        else:
            key = next(iter(world.working))
            del world.working[key]
            world.do(world.run.failed(key, PeerLost("all are gone"), world.now))
        moves += 1
    while world.compared:  # what the base says too late does no harm
        compare(world, data.draw)
    assert asks_base or not world.was_compared
    check_end(world)
    check_order(world, plan)
    check_means(world, plan, most)


def check_end(world: World) -> None:
    assert len(world.ends) == 1
    spoke = any(isinstance(event, Delta) for event in world.heard)
    if world.ends[0].error is None:
        assert isinstance(world.heard[-1], Completed)
    else:
        assert not spoke


def check_order(world: World, plan: Plan) -> None:
    """Each step is told once and without a break, in the order of the plan."""
    count = 1 if plan.kind == "parallel" else len(plan.steps)
    assert isinstance(world.heard[0], Planned)
    assert [e.index for e in world.heard if isinstance(e, StepEnded)] == list(range(count))
    speaking, positions = None, dict.fromkeys(range(count), 0)
    for event in world.heard:
        match event:
            case StepStarted(index=index):
                assert speaking is None
                speaking = index
            case Delta(step=step, position=position, ids=ids):
                assert step == speaking
                assert position == positions[step]
                positions[step] += len(ids)
            case StepEnded(index=index, tokens=tokens):
                assert speaking in {None, index}
                assert tokens == positions[index]
                speaking = None
            case _:
                pass


def check_means(world: World, plan: Plan, most: int) -> None:
    """Nobody begins before those that it needs; tokens and time are enough for all."""
    ended = [event for event in world.heard if isinstance(event, StepEnded)]
    if most:
        assert sum(event.tokens for event in ended) <= most
    for begin in world.begun:
        assert 0 <= begin.request.budget <= BUDGET
        if most:
            assert 0 < begin.request.max_tokens <= most
    tries = [(begin.key.step, begin.specialist) for begin in world.begun]
    if plan.kind == "parallel":
        assert tries == [(0, step.specialist) for step in plan.steps]
    else:
        for index, step in enumerate(plan.steps):
            asked = [name for at, name in tries if at == index]
            assert asked == [step.specialist, *step.alternatives][: len(asked)]
            assert len(asked) <= 2
