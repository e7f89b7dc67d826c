"""What peers get of a node's models by their allowance, and that the greedy gain nothing.

The simulation runs the service on the fake engine in virtual time: ten peers, one of which always
asks for all that its allowance lets it have.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

import pytest
from msgspec.structs import replace as struct_replace

from node.engine.base import Ended, EngineRequest, Matcher, StepOutput
from node.engine.fake import FakeEngine, FakeOptions
from node.services.ask import AskService
from protocols.adapters.virtual import LoopClock, run_virtual
from protocols.allowances import KNOWN, MEMBER, NEWCOMER, NOBODY
from protocols.errors import Busy, TooLong
from protocols.ids import PeerId, SpecialistId
from protocols.messages.ask import (
    Accepted,
    Ask,
    ChatMessage,
    Constraint,
    Finished,
    Progress,
    Sampling,
    ServerMessage,
    Text,
    Tokens,
)
from protocols.ports import Allowance

TALE = SpecialistId("tale")
ANN, BEN = PeerId("ann"), PeerId("ben")
STEP_SECONDS = 0.04


class Numbers:
    """A decoder that writes ids as numbers."""

    def push(self, token_id: int) -> str:
        return f"{token_id} "

    def flush(self) -> str:
        return ""


class NumberTokenizer:
    stop_ids = frozenset({256})

    def encode_chat(
        self,
        messages: Sequence[ChatMessage],
        tools: str = "",  # noqa: ARG002
    ) -> tuple[int, ...]:
        return tuple(range(len(messages)))

    def encode_text(self, text: str) -> tuple[int, ...]:
        return tuple(text.encode())

    def decoder(self) -> Numbers:
        return Numbers()

    def spelling(self, token_id: int) -> bytes:
        return str(token_id).encode()

    def matcher(self, constraint: Constraint) -> Matcher:
        raise NotImplementedError(constraint)


@dataclass
class Generation:
    outputs: "asyncio.Queue[StepOutput]"
    forget: Callable[[], None]

    async def next(self) -> StepOutput:
        return await self.outputs.get()

    def close(self) -> None:
        self.forget()


@dataclass
class SteppedModel:
    """A `FakeEngine` that takes a step every `STEP_SECONDS` on the event loop."""

    slots: int = 2
    specialist: SpecialistId = TALE
    model_digest: str = "d" * 64
    context_length: int = 2_048
    healthy: bool = True
    tokenizer: NumberTokenizer = field(default_factory=NumberTokenizer)
    inside: dict[str, "asyncio.Queue[StepOutput]"] = field(default_factory=dict)

    @property
    def plain(self) -> "SteppedModel":
        return self

    def __post_init__(self) -> None:
        self.engine = FakeEngine(
            FakeOptions(
                context_length=self.context_length,
                running=self.slots,
                cache_tokens=self.slots * self.context_length,
            )
        )

    def generate(self, request: EngineRequest) -> Generation:
        assert request.request_id not in self.inside
        self.engine.submit(request)
        self.inside[request.request_id] = asyncio.Queue()
        assert len(self.inside) <= self.slots, "the service lets in no more than there are slots"

        def forget() -> None:
            self.engine.cancel(request.request_id)
            self.inside.pop(request.request_id, None)

        return Generation(self.inside[request.request_id], forget)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(STEP_SECONDS)
            for output in self.engine.step():
                if output.request_id in self.inside:
                    self.inside[output.request_id].put_nowait(output)
                    if isinstance(output, Ended):
                        self.engine.cancel(output.request_id)


@asynccontextmanager
async def served(
    allowance: Callable[[PeerId], Allowance] | None, slots: int = 2
) -> AsyncIterator[AskService]:
    model = SteppedModel(slots)
    async with asyncio.TaskGroup() as tasks:
        engine = tasks.create_task(model.run())
        service = AskService({TALE: model}, LoopClock(), allowance)
        yield service
        assert service.inside == 0
        assert model.inside == {}
        engine.cancel()


ASK = Ask("r", 0, "tale", Text("tell"), Sampling(), max_tokens=40, budget=600.0)


async def answer(service: AskService, ask: Ask, peer: PeerId | None) -> list[ServerMessage]:
    async with aclosing(service.answer(ask, peer)) as messages:
        return [message async for message in messages]


def finished(messages: list[ServerMessage]) -> Finished:
    last = messages[-1]
    assert isinstance(last, Finished)
    return last


@pytest.mark.parametrize(
    ("allowance", "asked", "made"),
    [
        (NEWCOMER, 1_000, 256),
        (NEWCOMER, 0, 256),
        (NEWCOMER, 255, 255),
        (KNOWN, 1_200, 1_024),
        (MEMBER, 1_200, 1_200),
        (MEMBER, 0, 2_044),
        (None, 0, 2_044),
    ],
)
def test_an_answer_is_cut_at_what_the_peer_may_have(
    allowance: Allowance | None, asked: int, made: int
) -> None:
    async def main() -> None:
        async with served((lambda _: allowance) if allowance else None) as service:
            messages = await answer(service, struct_replace(ASK, max_tokens=asked), ANN)
        last = finished(messages)
        assert (last.reason, last.completion_tokens) == ("length", made)
        assert sum(len(one.ids) for one in messages if isinstance(one, Tokens)) == made

    run_virtual(main())


def test_the_nodes_own_requests_have_no_limit() -> None:
    async def main() -> None:
        async with served(lambda _: NOBODY) as service:
            last = finished(await answer(service, struct_replace(ASK, max_tokens=2_000), None))
            assert last.completion_tokens == 2_000
            with pytest.raises(Busy):
                await answer(service, ASK, ANN)

    run_virtual(main())


def test_what_is_cut_need_not_fit_and_the_rest_must() -> None:
    async def main() -> None:
        async with served(lambda _: NEWCOMER) as service:
            huge = struct_replace(ASK, max_tokens=5_000)
            assert finished(await answer(service, huge, ANN)).completion_tokens == 256
            with pytest.raises(TooLong) as refused:
                await answer(service, struct_replace(huge, prompt=Text("x" * 2_000)), ANN)
            assert refused.value.requested == 2_256

    run_virtual(main())


def test_a_peer_that_carries_on_beyond_its_allowance_only_ends() -> None:
    async def main() -> None:
        async with served(lambda _: NEWCOMER) as service:
            resumed = struct_replace(ASK, max_tokens=900, delivered=tuple(range(300)))
            messages = await answer(service, resumed, ANN)
        assert [type(one) for one in messages] == [Accepted, Finished]
        assert (finished(messages).reason, finished(messages).completion_tokens) == ("length", 300)

    run_virtual(main())


def test_over_its_quota_a_peer_is_told_when_to_come_again() -> None:
    async def main() -> None:
        async with served(lambda _: NEWCOMER) as service, asyncio.TaskGroup() as tasks:
            first = tasks.create_task(answer(service, ASK, ANN))
            await asyncio.sleep(0.1)
            with pytest.raises(Busy) as refused:
                await answer(service, struct_replace(ASK, request_id="r2"), ANN)
            assert 0 < refused.value.retry_after <= 60
            other = tasks.create_task(answer(service, struct_replace(ASK, request_id="b"), BEN))
            await first
            assert finished(await other).completion_tokens == 40
            again = struct_replace(ASK, request_id="r3")
            assert finished(await answer(service, again, ANN)).completion_tokens == 40

    run_virtual(main())


def test_a_cancelled_answer_gives_its_place_and_its_quota_back() -> None:
    async def main() -> None:
        async with served(lambda _: NEWCOMER, slots=1) as service:
            async with aclosing(service.answer(ASK, ANN)) as messages:
                await anext(messages)
                async with aclosing(service.answer(struct_replace(ASK, request_id="b"), BEN)) as b:
                    assert isinstance(await anext(b), Accepted)
                    assert await anext(b) == Progress("queued", 0)
            assert finished(await answer(service, ASK, ANN)).completion_tokens == 40

    run_virtual(main())


def test_a_client_that_does_not_read_the_end_keeps_nobody_waiting() -> None:
    async def main() -> None:
        async with served(lambda _: MEMBER, slots=1) as service:
            async with aclosing(service.answer(ASK, ANN)) as unread:
                async for message in unread:
                    if isinstance(message, Finished):
                        break
                assert service.inside == 1
                other = struct_replace(ASK, request_id="b")
                assert finished(await answer(service, other, BEN)).queue == 0.0
                assert service.inside == 1
            assert service.inside == 0
            await service.wait_idle()

    run_virtual(main())


def test_waiting_is_told_and_counted() -> None:
    async def main() -> None:
        async with served(lambda _: MEMBER, slots=1) as service, asyncio.TaskGroup() as tasks:
            asks = [struct_replace(ASK, request_id=f"r{n}", max_tokens=100) for n in range(3)]
            runs = [tasks.create_task(answer(service, ask, ANN)) for ask in asks]
        last = runs[2].result()
        ahead = [one.ahead for one in last if isinstance(one, Progress) and one.phase == "queued"]
        assert ahead[0] == 1
        assert ahead[-1] == 0
        assert sorted(ahead, reverse=True) == ahead
        assert finished(last).queue == pytest.approx(8.0, abs=0.4)
        assert finished(runs[0].result()).queue == 0.0

    run_virtual(main())


def jain(shares: Sequence[float]) -> float:
    """Jain, Chiu and Hawe 1984: 1 when all are equal, 1/n when one has all."""
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


@dataclass
class Crowd:
    """Nine peers that ask one thing after another, and one that asks for all it can get."""

    service: AskService
    has_names: bool = True
    answers: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    async def ask_for_ever(self, peer: str, number: int, max_tokens: int) -> None:
        count = 0
        while True:
            count += 1
            name = f"{peer}-{number}-{count}"
            ask = struct_replace(ASK, request_id=name, max_tokens=max_tokens, prompt=Text(name))
            try:
                await answer(self.service, ask, PeerId(peer) if self.has_names else None)
                self.answers[peer] += 1
            except Busy as busy:
                self.refused[peer] += 1
                await asyncio.sleep(0.25 if peer == "greedy" else busy.retry_after)

    async def live(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as tasks:
                for number in range(20):
                    tasks.create_task(self.ask_for_ever("greedy", number, 200))
                for number in range(9):
                    tasks.create_task(self.ask_for_ever(f"normal{number}", 0, 20))

    @property
    def normal(self) -> list[float]:
        return [self.answers[f"normal{number}"] for number in range(9)]


def crowd_of(*, has_names: bool) -> Crowd:
    async def main() -> Crowd:
        async with served(lambda _: replace(MEMBER, answers=16)) as service:
            crowd = Crowd(service, has_names)
            await crowd.live(200)
            return crowd

    return run_virtual(main())


def test_a_greedy_peer_takes_nothing_from_the_others() -> None:
    crowd = crowd_of(has_names=True)
    assert jain(crowd.normal) >= 0.95, crowd
    assert crowd.answers["greedy"] <= 1.1 * min(crowd.normal), crowd
    assert crowd.refused["greedy"] > 0
    # Ten places for ten peers: the first rush may find one with two that run, which none loses.
    assert sum(crowd.refused.values()) - crowd.refused["greedy"] <= 1, crowd


def test_without_queues_by_peer_it_would_take_most() -> None:
    """The measure measures: the same crowd, told apart by nothing."""
    crowd = crowd_of(has_names=False)
    assert crowd.answers["greedy"] > 2 * max(crowd.normal), crowd
