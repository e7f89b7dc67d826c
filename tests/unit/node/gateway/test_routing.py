"""`POST /api/v1/route`: the plan of a chat request, and who would begin."""

from collections.abc import AsyncGenerator

import aiohttp
import pytest

from coordinator.answer import AnswerEvent, AnswerRequest, Planned, Planning, Route, Routed, Score
from coordinator.routing.plan import Plan, Step
from node.gateway.fake import TRIAL_PEER
from node.gateway.trial import BOB, CAROL, open_trial
from protocols.errors import NoCapacity
from protocols.ids import SpecialistId

LAW, MATH = SpecialistId("law"), SpecialistId("math")
PLAN = Plan(
    "chain",
    (Step(MATH, "How much?", (), (LAW,)), Step(LAW, "Is it fair?", (0,))),
    "several parts",
    (Score(MATH, 0.61234), Score(LAW, 0.3)),
    0.31234,
    fit=0.98765,
    chain=0.87654,
)
BODY = {
    "model": "auto",
    "messages": [{"role": "user", "content": "How much? Is it fair?"}],
    "dslm": {"plan": "single", "route": "local"},
}


async def planned(_: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:
    yield Planned(PLAN)


async def test_the_plan_is_told_and_nothing_is_answered() -> None:
    async with open_trial(planned) as trial, aiohttp.ClientSession(trial.gateway.url) as http:
        async with http.post("/api/v1/route", json=BODY) as response:
            assert response.status == 200
            report = await response.json()
        assert trial.source.asked == []
        (asked,) = trial.source.routed
    assert (asked.planning, asked.route) == (Planning.SINGLE, Route.LOCAL)
    assert report.pop("seconds") >= 0
    assert report == {
        "schema_version": 1,
        "specialist": "math",
        "peer": TRIAL_PEER,
        "second_choice": None,
        "why": "several parts",
        "plan": {
            "kind": "chain",
            "why": "several parts",
            "margin": 0.3123,
            "scores": {"math": 0.6123, "law": 0.3},
            "steps": [
                {"specialist": "math", "prompt": "How much?", "after": [], "alternatives": ["law"]},
                {"specialist": "law", "prompt": "Is it fair?", "after": [0], "alternatives": []},
            ],
            "fit": 0.9877,
            "chain": 0.8765,
        },
    }


async def test_without_a_plan() -> None:
    async def routed(_: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:
        yield Routed(LAW, BOB, "it was named", second_choice=CAROL)

    async with (
        open_trial(routed) as trial,
        aiohttp.ClientSession(trial.gateway.url) as http,
        http.post("/api/v1/route", json=BODY) as response,
    ):
        report = await response.json()
    assert (report["peer"], report["second_choice"], report["plan"]) == (BOB, CAROL, None)


@pytest.mark.parametrize(("body", "status"), [(BODY, 503), ({"model": "auto"}, 400)])
async def test_a_refusal_is_one_of_the_chat_endpoint(body: dict[str, object], status: int) -> None:
    async def nobody(_: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:
        if body:
            raise NoCapacity("nobody is there")
        yield Planned(PLAN)

    async with (
        open_trial(nobody) as trial,
        aiohttp.ClientSession(trial.gateway.url) as http,
        http.post("/api/v1/route", json=body) as response,
    ):
        assert response.status == status
        assert "message" in (await response.json())["error"]
