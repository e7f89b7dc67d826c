"""Plans, steps and sums as lines for people."""

from msgspec.structs import replace

from node.cli.answering import (
    Activity,
    Evidence,
    Memory,
    Other,
    Plan,
    PlannedStep,
    Report,
    StepReport,
)
from node.cli.explaining import plan_lines, report_lines
from node.cli.route import RouteReport, route_lines
from node.cli.stats import summary
from node.gateway.fake import FixedView

PLAN = Plan(
    "chain",
    "Parts lie near to two cards.",
    0.125,
    {"law": 0.4, "medicine": 0.6, **{f"other{at}": 0.1 for at in range(8)}},
    (
        PlannedStep("medicine", "How much?", (), ("pharmacy",)),
        PlannedStep("law", "Is that allowed " + "or not " * 20, (0,)),
    ),
)


def test_a_plan_with_its_scores() -> None:
    head, first, second, scores = plan_lines(PLAN)
    assert head == "plan: chain. Parts lie near to two cards. (margin 0.125)"
    assert first.split() == ["1", "medicine", '"How', 'much?"', "else", "pharmacy"]
    assert "after 1" in second
    assert '..."' in second
    assert len(second) < 120
    assert scores.startswith("scores: medicine 0.600, law 0.400, ")
    assert scores.endswith(" and 2 more")


def test_probabilities_are_told_where_a_head_judged() -> None:
    *_, last = plan_lines(replace(PLAN, fit=0.987, chain=0.25))
    assert last == "probabilities: any specialist fits 0.99, parts for several 0.25"


def test_what_would_be_asked_and_who_would_begin() -> None:
    report = RouteReport(1, "medicine", "P1", "P2", "why", 0.0123, PLAN)
    *plan, first, took = route_lines(report)
    assert plan == plan_lines(PLAN)
    assert (first, took) == ("first: medicine at P1, else P2", "decided in 12 ms")
    bare = RouteReport(1, "smollm2", "P1", None, "It was named.", 0.0)
    assert route_lines(bare)[:2] == ["It was named.", "first: smollm2 at P1"]


def test_a_plan_of_one_step_without_scores() -> None:
    lines = plan_lines(Plan("base", "Nobody is near.", 0.0, {}, (PlannedStep("smollm2"),)))
    assert [line.split() for line in lines[1:]] == [["1", "smollm2", "the", "whole", "prompt"]]


def test_what_a_step_gained_on_the_base_is_told_if_it_was_asked() -> None:
    evidence = Evidence(-0.5, 1.25, 20, -1.5, 2.345, 1.5)
    line, *_ = report_lines(Report(steps=(StepReport(0, "law", evidence=evidence),)))
    assert "margin 1.25; likelier than to the base by 2.35" in line


def test_what_became_of_each_step_and_what_worked() -> None:
    steps = (
        StepReport(
            0,
            "medicine",
            tokens=20,
            seconds=1.5,
            evidence=Evidence(-0.5, 1.25, 20, -1.5),
            others=(Other("pharmacy", "medicine was surer of its words"),),
        ),
        StepReport(1, "law", memory=Memory((0,), 80), error="nobody is there"),
    )
    done = Activity(("medicine", "law"), 8, 144_000_000, 171_000_000, ("P",), 400, 5_600)
    first, second, last = report_lines(Report(steps=steps, activity=done))
    assert first == (
        "step 1: medicine, 20 tokens in 1.50 s; -0.50 nats a token, margin 1.25; "
        "not kept: pharmacy (medicine was surer of its words)"
    )
    assert second == (
        "step 2: law, 0 tokens in 0.00 s; read 80 characters of step 1; failed: nobody is there"
    )
    assert last == (
        "at work: 2 of 8 specialists, 144.0 M of 171.0 M parameters, 1 peers, 6.0 kB moved"
    )


def test_the_sums_are_told_for_each_answer() -> None:
    rows = dict(summary(FixedView().stats()))
    assert rows["answers"] == "1 whole, 0 failed, 20 tokens"
    assert rows["specialists"] == "1.00 of 2.0 known worked on an answer"
    assert rows["moved"] == "300 B sent, 900 B received"
