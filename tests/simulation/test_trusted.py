"""The route `trusted`: whatever happens, nobody but trusted peers hears of the prompt."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from coordinator.answer import AnswerEvent, Completed, Delta, Resumed, Route, Routed
from protocols import versions
from protocols.errors import DslmError, NoCapacity, UnknownModel
from protocols.ids import PeerId
from protocols.ports import Stream
from tests.simulation.fake_node import BASE, FakeNode, Speed
from tests.simulation.test_coordinator import Few, check_right, request, run_few

Test = Callable[["Some"], Awaitable[None]]


class Some:
    """Nodes of a `Few`, of whom only `trusted` may be asked; who else is asked is in `betrayed`.

    The strangers seem to be the quickest, so that nothing but their standing keeps them out.
    """

    def __init__(self, few: Few, trusted: list[FakeNode], strangers: list[FakeNode]) -> None:
        self.few = few
        self.trusted = trusted
        self.strangers = strangers
        self.betrayed: list[PeerId] = []

    @property
    def peers(self) -> set[PeerId]:
        return {node.identity.peer_id for node in self.trusted}

    async def watch(self) -> None:
        self.few.client.trusted = self.peers
        for stranger in self.strangers:
            await stranger.peer.transport.serve(versions.ASK, self._spy(stranger))
            self.few.client.coordinator.measurements.first_token(stranger.identity.peer_id, 0.001)

    def _spy(self, stranger: FakeNode) -> Callable[[Stream], Awaitable[None]]:
        async def hear(stream: Stream) -> None:
            self.betrayed.append(stranger.identity.peer_id)
            await stranger.serve_ask(stream)

        return hear

    async def ask(
        self, on_event: Callable[[AnswerEvent], None] | None = None, **rest: object
    ) -> list[AnswerEvent]:
        return await self.few.collect(request(route=Route.TRUSTED, **rest), on_event)  # type: ignore[arg-type]


def run_some(test: Test, trusted: int, speed: Speed = Speed()) -> None:  # noqa: B008 - frozen
    """With the first `trusted` of the three servers."""

    async def with_few(few: Few) -> None:
        some = Some(few, few.nodes[1 : 1 + trusted], few.nodes[1 + trusted :])
        await some.watch()
        await test(some)
        await asyncio.sleep(5.0)
        assert some.betrayed == []

    run_few(with_few, speed)


def test_the_spies_hear_of_what_may_go_anywhere() -> None:
    async def test(some: Some) -> None:
        check_right(await some.few.collect(request()))
        assert some.betrayed
        some.betrayed.clear()

    run_some(test, 1)


def test_only_trusted_peers_are_asked() -> None:
    async def test(some: Some) -> None:
        for _ in range(20):
            events = await some.ask()
            check_right(events)
            assert {one.peer for one in events if isinstance(one, Delta)} <= some.peers

    run_some(test, 2)


def test_the_plan_names_trusted_peers_only() -> None:
    async def test(some: Some) -> None:
        for model, specialist in (("law", "law"), ("auto", BASE)):
            plan = await some.few.client.coordinator.plan(request(model, route=Route.TRUSTED))
            assert plan.specialist == specialist
            assert {plan.peer, plan.second_choice} == some.peers

    run_some(test, 2)


def test_the_only_trusted_peer_has_no_second_choice() -> None:
    async def test(some: Some) -> None:
        plan = await some.few.client.coordinator.plan(request(route=Route.TRUSTED))
        assert (plan.peer, plan.second_choice) == (some.trusted[0].identity.peer_id, None)

    run_some(test, 1)


@pytest.mark.parametrize("fault", ["kill", "freeze"])
@pytest.mark.parametrize("at", [0, 8])
def test_another_trusted_peer_carries_on(fault: str, at: int) -> None:
    async def test(some: Some) -> None:
        struck: list[PeerId] = []

        def strike(event: AnswerEvent) -> None:
            if isinstance(event, Delta) and event.position >= at and not struck:
                struck.append(event.peer)
                network = some.few.network
                network.kill(event.peer) if fault == "kill" else network.freeze(event.peer)

        events = await some.ask(strike)
        check_right(events)
        assert any(isinstance(event, Resumed) for event in events)
        completed = events[-1]
        assert isinstance(completed, Completed)
        assert {share.peer for share in completed.shares} == some.peers

    run_some(test, 2, Speed(token=0.1))


def test_with_the_last_trusted_peer_the_answer_ends() -> None:
    """Looking again finds only strangers who could carry on."""

    async def test(some: Some) -> None:
        def strike(event: AnswerEvent) -> None:
            if isinstance(event, Delta) and event.position >= 5:
                some.few.network.kill(event.peer)

        with pytest.raises(NoCapacity, match="law"):
            await some.ask(strike)

    run_some(test, 1, Speed(token=0.1))


def test_a_late_first_token_is_hedged_with_trusted_peers_only() -> None:
    async def test(some: Some) -> None:
        slow = some.trusted[0]
        slow.answerer.speed = Speed(prefill=1_000.0)
        measurements = some.few.client.coordinator.measurements
        measurements.first_token(slow.identity.peer_id, 0.001)
        check_right(await some.ask())
        assert slow.answerer.asked == 1
        assert slow.answerer.running == 0

    run_some(test, 2)


def test_nobody_is_hedged_with_when_one_is_trusted() -> None:
    async def test(some: Some) -> None:
        some.trusted[0].answerer.speed = Speed(prefill=1_000.0)
        with pytest.raises(NoCapacity, match="no sign of life"):
            await some.ask(budget=20.0)
        assert some.trusted[0].answerer.asked

    run_some(test, 1)


def test_a_full_trusted_peer_is_waited_for() -> None:
    async def test(some: Some) -> None:
        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(some.ask()) for _ in range(4)]
        for answer in answers:
            check_right(answer.result())

    run_some(test, 1, Speed(slots=1))


def test_trust_that_ends_during_an_answer_counts_at_the_next_peer() -> None:
    async def test(some: Some) -> None:
        struck: list[PeerId] = []

        def strike(event: AnswerEvent) -> None:
            if isinstance(event, Delta) and not struck:
                struck.append(event.peer)
                some.few.client.trusted = set()
                some.few.network.kill(event.peer)

        with pytest.raises(DslmError):
            await some.ask(strike)
        assert [node.answerer.asked for node in some.trusted].count(0) == 1

    run_some(test, 2, Speed(token=0.1))


def test_without_a_trusted_peer_the_error_says_so() -> None:
    async def test(some: Some) -> None:
        with pytest.raises(NoCapacity, match="law is known, but no peer that counts as trusted"):
            await some.ask()
        with pytest.raises(NoCapacity, match="trusted hosts it"):
            await some.few.client.coordinator.plan(request(route=Route.TRUSTED))
        stranger = some.strangers[0].identity.peer_id
        with pytest.raises(NoCapacity, match=f"{stranger} does not .* count as trusted"):
            await some.ask(node=stranger)
        with pytest.raises(UnknownModel):
            await some.few.collect(request("lax", route=Route.TRUSTED))

    run_some(test, 0)


def test_we_are_trusted_ourselves() -> None:
    async def test(some: Some) -> None:
        events = await some.few.collect(request("own", route=Route.TRUSTED))
        check_right(events)
        me = some.few.client.identity.peer_id
        assert isinstance(events[0], Routed)
        assert events[0].peer == me

    run_some(test, 0)


def test_auto_takes_what_trusted_peers_host() -> None:
    async def test(some: Some) -> None:
        events = await some.few.collect(request("auto", route=Route.TRUSTED))
        check_right(events)
        assert isinstance(events[0], Routed)
        assert {events[0].peer} == some.peers

    run_some(test, 1)
