"""Chains over peers in virtual time: kills between and inside steps, failures, budgets, cancels."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from coordinator.answer import (
    Activity,
    AnswerEvent,
    AnswerRequest,
    Completed,
    Delta,
    Planned,
    Planning,
    Quality,
    Resumed,
    Routed,
    StepEnded,
    StepStarted,
)
from coordinator.chain.contest import HELD_TOKENS
from coordinator.routing.plan import Kind, Plan, Score, Step
from coordinator.routing.router import Trust, Wishes
from protocols.adapters.memory import Conditions, MemoryNetwork
from protocols.adapters.virtual import LoopClock, run_virtual
from protocols.errors import NoCapacity
from protocols.ids import PeerId, RequestId, SpecialistId
from protocols.messages.ask import Chat, ChatMessage, Prompt, Sampling, Text
from protocols.records import CapabilityCard
from protocols.signing import Identity
from tests.effort import few
from tests.simulation.fake_node import BASE, Character, FakeNode, Speed, read, reference, text_of

Test = Callable[["Trio"], Awaitable[None]]
HOSTED = (
    (),
    ("activated-law", "maths", BASE),
    ("activated-law", "activated-medicine", BASE),
    ("activated-medicine", "maths", BASE),
)
"""Who hosts what; node 0 asks."""
QUESTION = "How much, in grams, and is it allowed?"
MEDICINE, MATHS, LAW = "activated-medicine", "maths", "activated-law"
CHAIN = (
    Step(SpecialistId(MEDICINE), "How much?"),
    Step(SpecialistId(LAW), "Is it allowed?", (0,)),
    Step(SpecialistId(MATHS), "In grams?", (1,)),
)


class Trio:
    """The nodes, and plans that are made up."""

    def __init__(self, network: MemoryNetwork, nodes: list[FakeNode]) -> None:
        self.network = network
        self.nodes = nodes
        self.plan = Plan("chain", CHAIN, "because")
        self.wishes = Wishes()

    async def make_plan(
        self,
        prompt: Prompt,
        cards: Sequence[CapabilityCard],
        now: float,
        wishes: Wishes,
        trust: Trust,
    ) -> Plan:
        assert isinstance(prompt, Chat | Text)
        assert cards
        assert now
        assert all(0 < trust(card) <= 1 for card in cards)
        self.wishes = wishes
        return self.plan

    def use(self, *steps: Step, kind: Kind = "chain") -> None:
        self.plan = Plan(kind, steps, "because")

    def kill(self, peer: PeerId) -> None:
        self.network.kill(peer)

    def ask(self, max_tokens: int = 60, budget: float = 60.0, **more: object) -> AnswerRequest:
        prompt = Chat((ChatMessage("user", QUESTION),))
        sampling = Sampling(seed=7)
        return AnswerRequest(
            RequestId("r"),
            "auto",
            prompt,
            sampling,
            max_tokens,
            budget,
            **more,  # type: ignore[arg-type]
        )

    async def collect(
        self, request: AnswerRequest, on_event: Callable[[AnswerEvent], None] | None = None
    ) -> list[AnswerEvent]:
        events = []
        async for event in self.nodes[0].coordinator.answer(request):
            events.append(event)
            if on_event:
                on_event(event)
        return events

    @property
    def running(self) -> int:
        return sum(node.answerer.running for node in self.nodes)

    async def check_free(self) -> None:
        """Nobody works for the client any more, and the client expects nothing of anybody."""
        await asyncio.sleep(2.0)
        assert self.running == 0
        coordinator = self.nodes[0].coordinator
        for node in self.nodes:
            assert coordinator.measurement(node.identity.peer_id).in_flight == 0


def run_trio(
    test: Test,
    speed: Speed = Speed(),  # noqa: B008 - frozen
    make: Callable[[FakeNode], None] = lambda _: None,
) -> None:
    async def main() -> None:
        clock = LoopClock()
        conditions = Conditions(delay_min=0.005, delay_max=0.02)
        async with MemoryNetwork(5, clock, conditions) as network, asyncio.TaskGroup() as group:
            trio = Trio(network, [])
            for number, hosted in enumerate(HOSTED):
                identity = Identity(bytes([number + 1]) * 32)
                character = Character(hosted, 60.0, speed)
                node = FakeNode(identity, network.join(identity), clock, character, 1)
                node.make_plan = trio.make_plan
                make(node)
                trio.nodes.append(node)
            lives = [group.create_task(node.run(lambda _n, _g: None)) for node in trio.nodes]
            await asyncio.sleep(8.0)
            await test(trio)
            await trio.check_free()
            for life in lives:
                life.cancel()
            assert network.defects == []

    run_virtual(main())


def text_in(events: Sequence[AnswerEvent], step: int) -> str:
    return "".join(e.text for e in events if isinstance(e, Delta) and e.step == step)


def ended(events: Sequence[AnswerEvent]) -> list[StepEnded]:
    return [event for event in events if isinstance(event, StepEnded)]


def completed(events: Sequence[AnswerEvent]) -> Completed:
    last = events[-1]
    assert isinstance(last, Completed)
    return last


def check_right(events: Sequence[AnswerEvent], tokens: int = 20) -> None:
    """Each step says what its specialist says to all that stands before it."""
    turns: list[tuple[str, str]] = []
    for index, step in enumerate(CHAIN):
        turns.append(("user", step.prompt))
        prompt = "\n".join(f"{role}: {content}" for role, content in turns)
        answer = text_of(reference(prompt, 7, tokens))
        assert text_in(events, index) == answer, index
        turns.append(("assistant", answer.strip()))


def test_three_specialists_in_turn() -> None:
    async def test(trio: Trio) -> None:
        events = await trio.collect(trio.ask())
        assert isinstance(events[0], Planned)
        check_right(events)
        assert [one.specialist for one in ended(events)] == [MEDICINE, LAW, MATHS]
        assert [one.error for one in ended(events)] == ["", "", ""]
        last = completed(events)
        assert last.completion_tokens == 60
        assert 0.1 < last.first_token_seconds < 1.0
        assert last.total_seconds == pytest.approx(
            sum(one.seconds for one in ended(events)), abs=0.2
        )
        assert len(trio.nodes[0].judged) == 3
        started = [event for event in events if isinstance(event, StepStarted)]
        assert [one.handed.steps for one in started] == [(), (0,), (0, 1)]
        assert [one.handed.pages_at for one in started] == [
            None,
            started[0].peer,  # it has read the beginning, with the same base
            None,  # maths is no activated adapter
        ]

    run_trio(test)


def test_what_worked_is_accounted_for() -> None:
    async def test(trio: Trio) -> None:
        activity = completed(await trio.collect(trio.ask())).activity
        assert isinstance(activity, Activity)
        assert activity.specialists == (MEDICINE, LAW, MATHS)
        assert activity.specialists_known == 4
        assert activity.parameters == 1_000 + 3 * 10  # a base once, and three adapters
        assert activity.parameters_known == activity.parameters
        assert 1 <= len(activity.peers) <= 3
        assert activity.bytes_sent > 200
        assert activity.bytes_received > 60 * 10
        single = completed(await trio.collect(trio.ask(planning=Planning.SINGLE))).activity
        assert isinstance(single, Activity)
        assert single.parameters == 1_000 + 10
        assert single.bytes_received < activity.bytes_received

    run_trio(test)


@pytest.mark.parametrize(
    ("step", "at"), few([(step, at) for step in range(3) for at in (7, 0, 19)], 2)
)
def test_a_peer_killed_in_the_middle_of_a_step(step: int, at: int) -> None:
    async def test(trio: Trio) -> None:
        struck: list[PeerId] = []

        def strike(event: AnswerEvent) -> None:
            if isinstance(event, Delta) and (event.step, event.position) == (step, at):
                struck.append(event.peer)
                trio.kill(event.peer)

        events = await trio.collect(trio.ask(), strike)
        check_right(events)
        assert [one.error for one in ended(events)] == ["", "", ""]
        assert struck
        if at < 15:  # the last tokens may be on their way already
            assert any(isinstance(event, Resumed) for event in events)

    run_trio(test, Speed(token=0.1))


@pytest.mark.parametrize("step", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_peer_killed_between_two_steps(step: int) -> None:
    """It was going to be asked next: another replica is."""

    async def test(trio: Trio) -> None:
        coordinator = trio.nodes[0].coordinator
        for number, node in enumerate(trio.nodes):  # who is asked first is known
            coordinator.measurements.first_token(node.identity.peer_id, 0.1 * 3**number)
        wanted = CHAIN[step + 1].specialist
        hosts = [node for node in trio.nodes if wanted in node.hosted]
        next_peer = hosts[0].identity.peer_id

        def strike(event: AnswerEvent) -> None:
            if isinstance(event, StepEnded) and event.index == step:
                trio.kill(next_peer)

        events = await trio.collect(trio.ask(), strike)
        check_right(events)
        assert [one.error for one in ended(events)] == ["", "", ""]

    run_trio(test)


def test_a_step_that_fails_for_good_leaves_the_others() -> None:
    async def test(trio: Trio) -> None:
        nobody = Step(SpecialistId("nobody"), "And?", (0,))
        trio.use(CHAIN[0], nobody, Step(SpecialistId(MATHS), "In grams?", (0, 1)))
        events = await trio.collect(trio.ask())
        first, second, third = ended(events)
        assert (first.error, third.error) == ("", "")
        assert "nobody" in second.error
        assert (second.tokens, text_in(events, 1)) == (0, "")
        assert text_in(events, 2)
        assert completed(events).reason == "length"

    run_trio(test)


def test_all_replicas_of_a_step_die_while_it_speaks() -> None:
    async def test(trio: Trio) -> None:
        def strike(event: AnswerEvent) -> None:
            if isinstance(event, Delta) and (event.step, event.position) == (1, 9):
                for node in trio.nodes:
                    if LAW in node.hosted:
                        trio.kill(node.identity.peer_id)

        trio.use(*CHAIN[:2], Step(SpecialistId(MEDICINE), "And now?", (1,)))
        events = await trio.collect(trio.ask(), strike)
        first, second, third = ended(events)
        assert 10 <= second.tokens < 20
        assert LAW in second.error
        assert not first.error
        assert not third.error
        partial = text_in(events, 1).strip()
        (heard,) = [
            ask
            for node in trio.nodes
            for ask in node.answerer.asks
            if read(ask.prompt).endswith("And now?")
        ]
        assert f"assistant: {partial}\nuser: And now?" in read(heard.prompt)

    run_trio(test, Speed(token=0.1))


def test_when_nothing_is_said_there_is_an_error() -> None:
    async def test(trio: Trio) -> None:
        trio.use(Step(SpecialistId("nobody"), "a"), Step(SpecialistId("nobody-else"), "b", (0,)))
        with pytest.raises(NoCapacity, match="nobody"):
            await trio.collect(trio.ask())

    run_trio(test)


def test_the_budget_ends_in_the_middle() -> None:
    """Each step has its share of the time; what it had said by then stands."""

    async def test(trio: Trio) -> None:
        began = asyncio.get_running_loop().time()
        events = await trio.collect(trio.ask(max_tokens=600, budget=9.0))
        assert asyncio.get_running_loop().time() - began <= 9.5
        assert all(one.error for one in ended(events))
        assert [0 < one.tokens < 200 for one in ended(events)] == [True] * 3
        assert completed(events).reason == "length"

    run_trio(test, Speed(token=0.1))


@pytest.mark.parametrize("after", few([5, 0, 1, 22, 63, 40], 2))
def test_a_client_that_leaves_stops_everything(after: int) -> None:
    """`run_trio` checks that nobody works any more."""

    async def test(trio: Trio) -> None:
        alternatives = (SpecialistId(BASE),)
        steps = [Step(s.specialist, s.prompt, s.after, alternatives) for s in CHAIN]
        trio.use(*steps, kind="parallel" if after == 5 else "chain")
        answer = trio.nodes[0].coordinator.answer(trio.ask())
        count = 0
        async for _ in answer:
            if count == after:
                break
            count += 1
        await answer.aclose()

    run_trio(test)


def test_steps_side_by_side_take_the_time_of_one() -> None:
    async def test(trio: Trio) -> None:
        trio.use(*(Step(one.specialist, one.prompt) for one in CHAIN))
        events = await trio.collect(trio.ask())
        times = [one.seconds for one in ended(events)]
        assert completed(events).total_seconds < sum(times) * 0.6
        steps = [event.step for event in events if isinstance(event, Delta)]
        assert steps == sorted(steps)

    run_trio(test)


def test_two_in_parallel_and_the_surer_is_heard() -> None:
    async def test(trio: Trio) -> None:
        trio.use(Step(SpecialistId(LAW)), Step(SpecialistId(MATHS)), kind="parallel")
        for node in trio.nodes:
            node.answerer.logprobs = {LAW: -1.0}
        events = await trio.collect(trio.ask())
        (only,) = ended(events)
        assert (only.specialist, only.others[0].specialist) == (MATHS, LAW)
        assert completed(events).specialist == MATHS
        assert text_in(events, 0) == text_of(reference(f"user: {QUESTION}", 7, 60))

    run_trio(test)


def test_a_doubtful_specialist_is_replaced() -> None:
    async def test(trio: Trio) -> None:
        doubtful = Step(SpecialistId(LAW), "Is it?", alternatives=(SpecialistId(MATHS),))
        trio.use(CHAIN[0], doubtful)
        for node in trio.nodes:
            node.answerer.logprobs = {LAW: -3.0}
        events = await trio.collect(trio.ask())
        assert [one.specialist for one in ended(events)] == [MEDICINE, MATHS]
        weak = [e for s, _, e in trio.nodes[0].judged if s == LAW]
        assert [e.is_low for e in weak] == [True]

    run_trio(test)


def doubted_by_base(trio: Trio, base: float) -> None:
    """Law is surer than any bound asks; the base finds its words and those of maths that likely."""
    trio.use(Step(SpecialistId(LAW), "Is it?", alternatives=(SpecialistId(MATHS),)))
    for node in trio.nodes:
        node.answerer.logprobs = {LAW: -1.0, MATHS: -0.2, BASE: base}


def asks_base(node: FakeNode) -> None:
    node.asks_base = True


def test_a_specialist_that_gains_nothing_on_the_base_is_replaced() -> None:
    async def test(trio: Trio) -> None:
        doubted_by_base(trio, -1.4)
        (only,) = ended(await trio.collect(trio.ask(quality=Quality.BEST)))
        assert (only.specialist, [one.specialist for one in only.others]) == (MATHS, [LAW])
        assert only.others[0].why == "maths gained more on the base"
        assert only.evidence is not None
        assert only.others[0].evidence is not None
        assert only.evidence.gain == pytest.approx(1.2)
        assert only.others[0].evidence.gain == pytest.approx(0.4)
        given = [ask for node in trio.nodes for ask in node.answerer.given]
        assert [ask.specialist for ask in given] == [LAW, MATHS]
        assert all(ask.on_base and len(ask.forced) >= HELD_TOKENS for ask in given)
        assert [e.is_low for _, _, e in trio.nodes[0].judged] == [True, True]

    run_trio(test, make=asks_base)


def test_one_that_the_base_would_never_have_said_is_believed_at_once() -> None:
    async def test(trio: Trio) -> None:
        doubted_by_base(trio, -4.0)
        (only,) = ended(await trio.collect(trio.ask(quality=Quality.BEST)))
        assert (only.specialist, only.others) == (LAW, ())

    run_trio(test, make=asks_base)


def test_without_the_setting_the_base_is_not_asked() -> None:
    async def test(trio: Trio) -> None:
        doubted_by_base(trio, -1.1)
        (only,) = ended(await trio.collect(trio.ask(quality=Quality.BEST)))
        assert (only.specialist, only.evidence and only.evidence.gain) == (LAW, None)
        assert [ask for node in trio.nodes for ask in node.answerer.given] == []

    run_trio(test)


def test_where_the_base_cannot_be_asked_the_card_decides() -> None:
    """An older peer leaves out what it does not know, and says so."""

    async def test(trio: Trio) -> None:
        doubted_by_base(trio, -1.1)
        for node in trio.nodes:
            node.answerer.unknown = frozenset({"forced", "base"})
        (only,) = ended(await trio.collect(trio.ask(quality=Quality.BEST)))
        assert (only.specialist, only.evidence and only.evidence.gain) == (LAW, None)

    run_trio(test, make=asks_base)


def test_one_step_is_as_ever() -> None:
    """The same events, no likelihoods asked for, and the first token at once."""

    async def test(trio: Trio) -> None:
        trio.use(Step(SpecialistId(LAW), alternatives=(SpecialistId(MATHS),)), kind="one")
        events = await trio.collect(trio.ask())
        assert isinstance(events[0], Routed)
        assert events[0].plan == trio.plan
        assert {type(event) for event in events[1:-1]} <= {Delta, type(events[1])}
        (ask,) = [ask for node in trio.nodes for ask in node.answerer.asks]
        assert ask.sampling.logprobs is None
        best = await trio.collect(trio.ask(quality=Quality.BEST))
        assert isinstance(best[0], Planned)
        assert text_in(best, 0) == text_in(events, 0)

    run_trio(test)


def test_who_would_begin_is_told_without_asking() -> None:
    async def test(trio: Trio) -> None:
        nearest = (Score(SpecialistId(LAW), 0.7), Score(SpecialistId(MEDICINE), 0.2))
        trio.plan = Plan("chain", CHAIN, "because", nearest)
        coordinator = trio.nodes[0].coordinator
        assert (await coordinator.plan(trio.ask())).specialist == MEDICINE
        alone = trio.ask(planning=Planning.SINGLE)
        assert (await coordinator.plan(alone)).specialist == LAW
        assert trio.running == 0

    run_trio(test)


def test_what_one_alone_can_answer_is_not_split() -> None:
    async def test(trio: Trio) -> None:
        events = await trio.collect(trio.ask(planning=Planning.SINGLE))
        assert isinstance(events[0], Routed)
        assert completed(events).completion_tokens == 60
        text = AnswerRequest(RequestId("t"), "auto", Text("once"), Sampling(seed=7), 10, 60.0)
        events = await trio.collect(text)
        assert text_in(events, 0) == text_of(reference("once", 7, 10))
        assert trio.wishes == Wishes(is_single=True)
        await trio.collect(trio.ask(quality=Quality.BEST))
        assert trio.wishes == Wishes(is_best_wanted=True)

    run_trio(test)
