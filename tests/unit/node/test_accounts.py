"""Sums and metrics over answers by one, by several, by none."""

from collections.abc import AsyncGenerator, Callable

import pytest

from coordinator.answer import (
    AnswerEvent,
    AnswerRequest,
    Completed,
    Delta,
    Evidence,
    OtherAnswer,
    Resumed,
    Routed,
    StepEnded,
)
from coordinator.routing.plan import Plan, Step
from node.accounts import OTHERS, SPECIALISTS_MAX, Accounts
from node.gateway.debate import Debate, Turn
from node.gateway.fake import Speech
from node.metrics import Metrics
from protocols.adapters.virtual import LoopClock
from protocols.errors import NoCapacity
from protocols.ids import PeerId, RequestId, SpecialistId
from protocols.messages.ask import Sampling, Text

A, B = PeerId("a"), PeerId("b")
LAW = SpecialistId("law")
REQUEST = AnswerRequest(RequestId("r"), "auto", Text("x"), Sampling(), 9, 9.0)
NOTHING: tuple[AnswerEvent, ...] = ()
Script = Callable[[AnswerRequest], AsyncGenerator[AnswerEvent, None]]


class Books:
    """What is kept of answers."""

    def __init__(self) -> None:
        self.accounts = Accounts()
        self.metrics = Metrics(LoopClock())

    async def hear(self, script: Script, most: int = 1_000) -> None:
        """An answer, of which `most` events are listened to."""
        answer = self.accounts.observed(self.metrics.observed(script))(REQUEST)
        count = 0
        try:
            async for _ in answer:
                count += 1
                if count == most:
                    break
        finally:
            await answer.aclose()

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"dslm_{name}_total", labels)


async def test_an_answer_by_several() -> None:
    books = Books()
    await books.hear(Debate([Turn("medicine", A, ["70", "mg"]), Turn("law", B, ["Y"], "gone")]))
    state = books.accounts.state()
    assert (state.answers, state.failed, state.steps, state.tokens) == (1, 0, 2, 3)
    assert state.plans == {"chain": 1}
    assert (state.specialists, state.specialists_known) == (2, 5)
    assert (state.parameters, state.parameters_known) == (140_000_000, 160_000_000)
    assert (state.peers, state.bytes_sent, state.bytes_received) == (2, 1_000, 9_000)
    medicine, law = state.by_specialist
    assert (medicine.id, medicine.answers, medicine.failed, medicine.tokens) == (
        "medicine",
        1,
        0,
        2,
    )
    assert (law.id, law.answers, law.failed, law.tokens) == ("law", 0, 1, 1)
    assert books.metric("plans", kind="chain") == 1
    assert books.metric("steps", model_name="law", outcome="failed") == 1
    assert books.metric("steps", model_name="medicine", outcome="whole") == 1
    assert books.metric("effort", what="parameters") == 140_000_000
    assert books.metric("effort", what="bytes_received") == 9_000


async def test_an_answer_by_one_that_another_peer_carried_on() -> None:
    async def script(request: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:  # noqa: ARG001
        yield Routed(LAW, A, "by name")
        yield Delta(A, 0, (1,), "x")
        yield Resumed(A, B, 1, "peer_lost")
        yield Completed(LAW, "stop", "", 5, 1, 0.1, 1.5)

    books = Books()
    await books.hear(script)
    state = books.accounts.state()
    assert (state.answers, state.steps, state.resumed, state.plans) == (1, 1, 1, {"named": 1})
    assert [(work.answers, work.seconds) for work in state.by_specialist] == [(1, 1.5)]
    assert books.metric("plans", kind="named") == 1


async def test_a_plan_of_several_that_one_carried_out() -> None:
    plan = Plan("chain", (Step(LAW), Step(SpecialistId("tax"))), "why")

    async def script(request: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:  # noqa: ARG001
        yield Routed(LAW, A, "why", plan=plan)
        yield Completed(LAW, "stop", "", 5, 0, 0.1, 1.5)

    books = Books()
    await books.hear(script)
    assert books.accounts.state().plans == {"single": 1}


async def test_doubted_words_are_counted_as_such() -> None:
    low = OtherAnswer(SpecialistId("tax"), "law was surer", 16, Evidence(-2.5, 0.1, 16, -1.5))

    async def script(request: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:
        async for event in Debate([Turn("law", A, ["Yes"])])(request):
            if isinstance(event, StepEnded):
                yield StepEnded(0, LAW, None, 1.0, 1, others=(low,))
            else:
                yield event

    books = Books()
    await books.hear(script)
    by_name = {work.id: work for work in books.accounts.state().by_specialist}
    assert (by_name["tax"].doubted, by_name["tax"].answers, by_name["tax"].tokens) == (1, 0, 16)
    assert books.metric("steps", model_name="tax", outcome="doubted") == 1


async def test_answers_that_fail_or_are_left_count_as_failed() -> None:
    async def refuse(request: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:  # noqa: ARG001
        for event in NOTHING:
            yield event
        raise NoCapacity("nobody")

    books = Books()
    with pytest.raises(NoCapacity):
        await books.hear(refuse)
    await books.hear(Speech(A, ["One", "two"]), most=2)
    state = books.accounts.state()
    assert (state.answers, state.failed) == (0, 2)
    assert sum(work.failed for work in state.by_specialist) == 1


def test_names_are_bounded() -> None:
    accounts = Accounts()
    for at in range(SPECIALISTS_MAX + 50):
        accounts.work_of(SpecialistId(f"s{at}")).answers += 1
    rows = accounts.state().by_specialist
    assert len(rows) == SPECIALISTS_MAX + 1
    assert next(row.answers for row in rows if row.id == OTHERS) == 50
