"""A coordinator among a few fake nodes: kills, freezes, liars, cancels, names, routes, pings."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from coordinator.answer import AnswerEvent, AnswerRequest, Completed, Delta, Resumed, Route, Routed
from protocols import versions
from protocols.adapters.memory import Conditions, MemoryNetwork
from protocols.adapters.virtual import LoopClock, run_virtual
from protocols.codec import encode
from protocols.errors import (
    DeadlineExceeded,
    NoCapacity,
    PeerUnreachable,
    UnknownModel,
)
from protocols.ids import PeerId, RequestId
from protocols.messages.ask import Accepted, Prompt, Sampling, Text, Tokens
from protocols.ports import Stream
from protocols.signing import Identity
from tests.simulation.fake_node import (
    BASE,
    Character,
    FakeNode,
    Speed,
    digest_of,
    reference,
    text_of,
)

Test = Callable[["Few"], Awaitable[None]]
PROMPT = Text("why?")
RIGHT = reference("why?", 7, 20)


class Few:
    """Node 0 hosts `own`; nodes 1 to 3 host `law` and a plain base."""

    def __init__(self, network: MemoryNetwork, nodes: list[FakeNode]) -> None:
        self.network = network
        self.nodes = nodes

    @property
    def client(self) -> FakeNode:
        return self.nodes[0]

    def server(self, peer: PeerId) -> FakeNode:
        return next(node for node in self.nodes if node.identity.peer_id == peer)

    async def collect(
        self, request: AnswerRequest, on_event: Callable[[AnswerEvent], None] | None = None
    ) -> list[AnswerEvent]:
        events = []
        async for event in self.client.coordinator.answer(request):
            events.append(event)
            if on_event:
                on_event(event)
        return events


def request(
    model: str = "law", budget: float = 60.0, prompt: Prompt = PROMPT, **rest: object
) -> AnswerRequest:
    sampling = Sampling(seed=7)
    return AnswerRequest(RequestId("r"), model, prompt, sampling, 20, budget, **rest)  # type: ignore[arg-type]


def run_few(test: Test, speed: Speed = Speed()) -> None:  # noqa: B008 - frozen
    async def main() -> None:
        clock = LoopClock()
        conditions = Conditions(delay_min=0.005, delay_max=0.02)
        async with MemoryNetwork(5, clock, conditions) as network, asyncio.TaskGroup() as group:
            nodes = []
            for number in range(4):
                identity = Identity(bytes([number + 1]) * 32)
                character = Character(("law", BASE) if number else ("own",), 60.0, speed)
                node = FakeNode(identity, network.join(identity), clock, character, 1)
                nodes.append(node)
            lives = [group.create_task(node.run(lambda _n, _g: None)) for node in nodes]
            await asyncio.sleep(20.0)
            await test(Few(network, nodes))
            for life in lives:
                life.cancel()
            assert network.defects == []

    run_virtual(main())


def ids_of(events: list[AnswerEvent]) -> tuple[int, ...]:
    return tuple(token for event in events if isinstance(event, Delta) for token in event.ids)


def check_right(events: list[AnswerEvent]) -> None:
    assert isinstance(events[0], Routed)
    assert isinstance(events[-1], Completed)
    assert ids_of(events) == RIGHT
    assert "".join(e.text for e in events if isinstance(e, Delta)) == text_of(RIGHT)


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("at", [0, 1, 10, 19])
@pytest.mark.parametrize("fault", ["kill", "freeze", "both replicas"])
def test_an_answer_survives_faults_at_any_position(at: int, fault: str) -> None:
    async def test(few: Few) -> None:
        struck: list[float] = []
        gaps: list[float] = []

        def strike(event: AnswerEvent) -> None:
            if not isinstance(event, Delta):
                return
            if struck and len(gaps) < len(struck):
                gaps.append(now() - struck[-1])
            wanted = 2 if fault == "both replicas" else 1
            if event.position >= at and len(struck) < wanted:
                struck.append(now())
                peer = event.peer
                few.network.freeze(peer) if fault == "freeze" else few.network.kill(peer)

        events = await few.collect(request(), strike)
        check_right(events)
        assert struck
        if at < 15:  # in the last positions the rest may be on the way already
            assert any(isinstance(event, Resumed) for event in events)
        if gaps and fault == "kill":
            assert max(gaps) < 1.0
        if gaps and fault == "freeze":
            assert max(gaps) < 3.0

    run_few(test, Speed(token=0.1))


def test_nothing_is_left_running_anywhere() -> None:
    async def test(few: Few) -> None:
        answer = few.client.coordinator.answer(request())
        async for event in answer:
            if isinstance(event, Delta):
                break
        await answer.aclose()
        await asyncio.sleep(1.0)
        assert [node.answerer.running for node in few.nodes] == [0, 0, 0, 0]
        peers = [node.identity.peer_id for node in few.nodes]
        measured = [few.client.coordinator.measurement(peer) for peer in peers]
        assert [m.in_flight for m in measured] == [0, 0, 0, 0]
        assert [m.failures for m in measured] == [0, 0, 0, 0]

    run_few(test)


def test_a_late_first_token_is_hedged_and_the_loser_is_cancelled() -> None:
    async def test(few: Few) -> None:
        routed = await few.client.coordinator.plan(request())
        for node in few.nodes[1:]:
            node.answerer.speed = Speed(prefill=0.1)
        few.server(routed.peer).answerer.speed = Speed(prefill=1_000.0)
        pinned = request(node=routed.peer, budget=3.0)
        with pytest.raises(DeadlineExceeded):
            await few.collect(pinned)
        began = now()
        for _ in range(6):
            check_right(await few.collect(request()))
        assert now() - began < 6 * (0.8 + 0.1) + 5.0
        await asyncio.sleep(1.0)
        assert few.server(routed.peer).answerer.running == 0

    run_few(test)


def test_liars_are_replaced_and_blamed() -> None:
    async def lie(stream: Stream) -> None:
        await stream.receive()
        await stream.send(encode(Accepted(1, 10, digest_of("law"))))
        await stream.send(encode(Tokens(5, (1,), "lie")))
        await asyncio.Event().wait()

    async def babble(stream: Stream) -> None:
        await stream.receive()
        await stream.send(b"\xff" * 100)
        await asyncio.Event().wait()

    async def test(few: Few) -> None:
        await few.nodes[1].peer.transport.serve(versions.ASK, lie)
        await few.nodes[2].peer.transport.serve(versions.ASK, babble)
        coordinator = few.client.coordinator
        for liar in few.nodes[1:3]:  # known as fast, so they are asked first
            coordinator.measurements.first_token(liar.identity.peer_id, 0.01)
        check_right(await few.collect(request()))
        measured = [coordinator.measurement(node.identity.peer_id) for node in few.nodes]
        assert [m.failures for m in measured] == [0, 1, 1, 0]

    run_few(test)


def test_names_routes_and_pins() -> None:
    async def test(few: Few) -> None:
        with pytest.raises(UnknownModel) as unknown:
            await few.collect(request("lax"))
        assert unknown.value.nearest == ("law",)
        with pytest.raises(UnknownModel) as unknown:
            await few.collect(request("of-law"))
        assert unknown.value.nearest == ("law",)
        with pytest.raises(UnknownModel):
            await few.collect(request("Not A Name"))
        with pytest.raises(NoCapacity, match="this node does not host it"):
            await few.collect(request(route=Route.LOCAL))
        check_right(await few.collect(request("own", route=Route.LOCAL)))
        target = few.nodes[2].identity.peer_id
        events = await few.collect(request(node=target))
        assert {event.peer for event in events if isinstance(event, Delta)} == {target}
        with pytest.raises(NoCapacity, match="does not host"):
            await few.collect(request(node=few.client.identity.peer_id))

    run_few(test)


def test_auto_asks_a_base() -> None:
    async def test(few: Few) -> None:
        events = await few.collect(request("auto"))
        check_right(events)
        assert isinstance(events[0], Routed)
        assert events[0].specialist == BASE
        assert "encoder" in events[0].why

    run_few(test)


def test_a_full_swarm_is_waited_for_and_then_answers() -> None:
    async def test(few: Few) -> None:
        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(few.collect(request())) for _ in range(6)]
        for answer in answers:
            check_right(answer.result())

    run_few(test, Speed(slots=1))


def test_nobody_left_is_said_within_seconds() -> None:
    async def test(few: Few) -> None:
        for node in few.nodes[1:]:
            few.network.kill(node.identity.peer_id)
        began = now()
        with pytest.raises(NoCapacity, match="law"):
            await few.collect(request())
        assert now() - began < 20.0

    run_few(test)


def test_ping_measures_time_software_and_skew() -> None:
    async def test(few: Few) -> None:
        peer = few.nodes[1].identity.peer_id
        few.nodes[1].clock = LoopClock(1_700_000_000.0 + 42.0)
        pong = await few.client.coordinator.ping(peer)
        assert 0.01 <= pong.rtt <= 0.05
        assert pong.reply.software == versions.SOFTWARE
        assert pong.clock_skew == pytest.approx(42.0, abs=pong.rtt)
        assert few.client.coordinator.measurement(peer).rtt == pong.rtt
        few.network.freeze(peer)
        with pytest.raises((DeadlineExceeded, PeerUnreachable)):
            await few.client.coordinator.ping(peer)

    run_few(test)
