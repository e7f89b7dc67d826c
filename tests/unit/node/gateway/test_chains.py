"""Answers by several specialists over a real socket: one text, marks, notes, a report, failures."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import msgspec
import pytest

from coordinator.answer import (
    AnswerEvent,
    AnswerRequest,
    Completed,
    Delta,
    Evidence,
    Planned,
    Planning,
    Quality,
    StepEnded,
    StepStarted,
)
from coordinator.routing.plan import Plan, Step
from node.gateway.debate import Debate, Turn
from node.gateway.fake import Script, Speech
from node.gateway.reports import step_report
from node.gateway.trial import BOB, CAROL, open_trial
from protocols.errors import NoCapacity
from protocols.ids import SpecialistId

CHAT = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
TWO = Debate([Turn("medicine", BOB, ["70", " mg"]), Turn("lab/law", CAROL, ["Yes", "."])])
TEXT = "-- medicine (step 1 of 2) --\n\n70 mg\n\n-- lab/law (step 2 of 2) --\n\nYes."


async def ask(script: Script, **more: object) -> tuple[Any, aiohttp.ClientResponse]:
    """The body of an answer that is not streamed."""
    async with (
        open_trial(script) as trial,
        aiohttp.ClientSession(trial.gateway.url) as http,
        http.post("/v1/chat/completions", json=CHAT | more) as response,
    ):
        return await response.json(), response


async def frames(script: Script) -> list[str]:
    async with (
        open_trial(script) as trial,
        aiohttp.ClientSession(trial.gateway.url) as http,
        http.post("/v1/chat/completions", json=CHAT | {"stream": True}) as response,
    ):
        assert response.status == 200
        return (await response.text())[:-2].split("\n\n")


def chunks_of(found: list[str]) -> list[Any]:
    data = [frame.removeprefix("data: ") for frame in found if frame.startswith("data: ")]
    assert data.pop() == "[DONE]"
    return [json.loads(one) for one in data]


def notes_of(found: list[str]) -> list[Any]:
    return [json.loads(frame[7:]) for frame in found if frame.startswith(": dslm ")]


async def test_a_whole_answer_is_one_text_with_a_line_before_each_part() -> None:
    body, response = await ask(TWO)
    assert body["choices"][0]["message"]["content"] == TEXT
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["model"] == "auto"
    assert response.headers["x-dslm-model"] == "medicine, lab/law"
    assert body["usage"] == {"prompt_tokens": 28, "completion_tokens": 4, "total_tokens": 32}


async def test_the_report_has_plan_steps_and_activity() -> None:
    body, _ = await ask(TWO)
    report = body["dslm"]
    assert report["plan"]["kind"] == "chain"
    assert report["plan"]["scores"] == {"medicine": 0.5, "lab/law": 0.4}
    assert report["plan"]["steps"][1] == {
        "specialist": "lab/law",
        "prompt": "part 2",
        "after": [0],
        "alternatives": [],
    }
    first, second = report["steps"]
    assert first == {
        "step": 0,
        "specialist": "medicine",
        "prompt": "part 1",
        "peers": [{"peer": BOB, "tokens": 2}],
        "tokens": 2,
        "prompt_tokens": 14,
        "first_token_ms": 250.0,
        "seconds": 1.0,
        "evidence": {"logprob": -0.25, "margin": 1.5, "tokens": 2, "floor": -1.5},
        "memory": {
            "steps": [],
            "characters": 0,
            "dropped": 0,
            "pages_at": None,
            "pages_reused": 0,
            "pages_fetched": 0,
            "bytes_fetched": 0,
        },
        "others": [],
        "error": None,
        "text": "70 mg",
    }
    assert (second["memory"]["steps"], second["memory"]["characters"]) == ([0], 12)
    assert report["activity"] == {
        "specialists": ["medicine", "lab/law"],
        "specialists_known": 5,
        "parameters": 140_000_000,
        "parameters_known": 160_000_000,
        "peers": [BOB, CAROL],
        "bytes_sent": 1_000,
        "bytes_received": 9_000,
        "bytes_of_pages": 0,
    }


async def test_a_stream_says_in_each_chunk_whose_words_it_has() -> None:
    found = await frames(TWO)
    opening, *chunks, last = chunks_of(found)
    assert opening["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    told = [(chunk["choices"][0]["delta"]["content"], chunk["dslm"]) for chunk in chunks]
    first, second = {"step": 0, "specialist": "medicine"}, {"step": 1, "specialist": "lab/law"}
    assert told == [
        ("-- medicine (step 1 of 2) --\n\n", first | {"heading": True}),
        ("70", first),
        (" mg", first),
        ("\n\n-- lab/law (step 2 of 2) --\n\n", second | {"heading": True}),
        ("Yes", second),
        (".", second),
    ]
    assert [chunk["model"] for chunk in (opening, *chunks, last)] == ["auto"] * 8
    assert len(last["dslm"]["steps"]) == 2
    assert "".join(text for text, _ in told) == TEXT


async def test_notes_tell_the_plan_and_each_beginning_and_end() -> None:
    notes = notes_of(await frames(TWO))
    assert [note["phase"] for note in notes] == ["planned", *["step", "step_ended"] * 2]
    assert notes[0]["plan"]["why"] == "several parts"
    assert notes[3] == {
        "phase": "step",
        "step": 1,
        "specialist": "lab/law",
        "peer": CAROL,
        "prompt": "part 2",
        "pages_at": None,
    }


async def test_a_failed_step_is_told_of_in_words_and_in_fields() -> None:
    broken = Debate(
        [
            Turn("medicine", BOB, ["70"], "its peer is gone"),
            Turn("maths", BOB, [], "nobody hosts it"),
            Turn("lab/law", CAROL, ["Yes."]),
        ]
    )
    body, _ = await ask(broken)
    assert body["choices"][0]["message"]["content"] == (
        "-- medicine (step 1 of 3) --\n\n70\n\n(medicine said no more: its peer is gone)\n\n"
        "-- maths (step 2 of 3) --\n\n(maths did not answer: nobody hosts it)\n\n"
        "-- lab/law (step 3 of 3) --\n\nYes."
    )
    assert body["choices"][0]["finish_reason"] == "length"
    assert [step["error"] for step in body["dslm"]["steps"]] == [
        "its peer is gone",
        "nobody hosts it",
        None,
    ]
    streamed = "".join(
        chunk["choices"][0]["delta"].get("content", "") for chunk in chunks_of(await frames(broken))
    )
    assert streamed == body["choices"][0]["message"]["content"]


async def test_a_failed_last_step_is_told_of_too() -> None:
    body, _ = await ask(
        Debate([Turn("medicine", BOB, ["70"]), Turn("maths", BOB, [], "nobody hosts it")])
    )
    assert body["choices"][0]["message"]["content"].endswith(
        "70\n\n-- maths (step 2 of 2) --\n\n(maths did not answer: nobody hosts it)"
    )


async def test_a_chain_of_which_nothing_came_has_an_error_status() -> None:
    """Lines about failures alone are no answer, so the status has not gone out with them."""

    async def script(request: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:  # noqa: ARG001
        yield Planned(TWO.plan())
        yield StepEnded(0, SpecialistId("medicine"), None, 1.0, 0, "nobody hosts it")
        raise NoCapacity("nobody hosts it")

    async with open_trial(script) as trial, aiohttp.ClientSession(trial.gateway.url) as http:
        for stream in (False, True):
            body = CHAT | {"stream": stream}
            async with http.post("/v1/chat/completions", json=body) as response:
                assert response.status == 503


async def test_two_in_parallel_are_one_answer_without_lines() -> None:
    law, tax = SpecialistId("law"), SpecialistId("tax")

    async def script(request: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:  # noqa: ARG001
        yield Planned(Plan("parallel", (Step(law), Step(tax)), "near"))
        yield StepStarted(0, tax, BOB, "")
        yield Delta(BOB, 0, (1,), "Yes.")
        yield StepEnded(0, tax, None, 1.0, 1)
        yield Completed(tax, "stop", "", 5, 1, 0.1, 1.0)

    body, response = await ask(script)
    assert body["choices"][0]["message"]["content"] == "Yes."
    assert body["model"] == "tax"
    assert response.headers["x-dslm-model"] == "tax"
    chunks = chunks_of(await frames(script))
    assert all("dslm" not in chunk for chunk in chunks[:-1])


@pytest.mark.parametrize(
    ("own", "planning", "quality"),
    [
        ({}, Planning.AUTO, Quality.NORMAL),
        ({"plan": "single", "quality": "best"}, Planning.SINGLE, Quality.BEST),
        ({"plan": "auto", "quality": "normal"}, Planning.AUTO, Quality.NORMAL),
    ],
)
async def test_what_a_client_wants_reaches_the_coordinator(
    own: dict[str, str], planning: Planning, quality: Quality
) -> None:
    async with (
        open_trial(Speech(BOB, ["One"])) as trial,
        aiohttp.ClientSession(trial.gateway.url) as http,
    ):
        async with http.post("/v1/chat/completions", json=CHAT | {"dslm": own}) as response:
            assert response.status == 200
        (asked,) = trial.source.asked
        assert (asked.planning, asked.quality) == (planning, quality)


@pytest.mark.parametrize("own", [{"plan": "many"}, {"quality": 1}])
async def test_what_is_no_such_wish_is_refused(own: dict[str, object]) -> None:
    body, response = await ask(TWO, dslm=own)
    assert response.status == 400
    assert body["error"]["param"] == f"dslm.{next(iter(own))}"


async def test_the_sums_can_be_read() -> None:
    async with (
        open_trial(TWO) as trial,
        aiohttp.ClientSession(trial.gateway.url) as http,
        http.get("/api/v1/stats") as response,
    ):
        assert (await response.json())["plans"] == {"one": 1}


def test_what_was_gained_on_the_base_is_reported_where_the_base_was_asked() -> None:
    evidence = Evidence(-0.25, 1.5, 2, -1.5, gain=2.00004, gain_floor=1.5)
    ended = StepEnded(0, SpecialistId("law"), evidence, 1.0, 2)
    told = msgspec.to_builtins(step_report(ended, None, "", "").evidence)
    assert (told["gain"], told["gain_floor"]) == (2.0, 1.5)
