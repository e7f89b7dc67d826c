"""What a benchmark prints, for people and for programs."""

import json

import pytest

from report import Row, line, print_report

MET = Row("decode", 150.0, "tokens/s", "theirs", 1.25, "at least 1.1x", True)
MISSED = Row("prefill", 300.0, "tokens/s", "theirs", 0.6, "at least 1.2x", False)
ABSENT = Row("cuda", None, "", note="no CUDA device here")


def test_a_row_says_figure_ratio_target_and_verdict() -> None:
    assert line(MET, 8).split("  ")[1] == "decode"
    for part in ("150 tokens/s", "1.25x theirs", "target at least 1.1x", " met"):
        assert part in line(MET, 8)
    assert "MISSED" in line(MISSED, 8)


def test_a_row_that_was_not_run_says_why() -> None:
    assert line(ABSENT, 8).split() == ["cuda", "not", "run", "no", "CUDA", "device", "here"]


def test_small_ratios_keep_their_digits() -> None:
    assert "0.0437x cold" in line(Row("prefix", 1.0, "ms", "cold", 0.0437), 8)


def test_what_was_not_run_is_no_failure_and_a_missed_target_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert print_report("some", [MET, ABSENT]) == 0
    assert print_report("some", [MET, MISSED]) == 1
    assert print_report("some", []) == 0
    capsys.readouterr()


def test_the_last_line_is_everything_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    print_report("some", [MET, ABSENT], ["version 7"])
    printed = capsys.readouterr().out
    assert "  with version 7\n" in printed
    document = json.loads(printed.splitlines()[-1])
    assert document["about"] == ["version 7"]
    assert [row["met"] for row in document["rows"]] == [True, None]
    assert document["rows"][1]["note"] == "no CUDA device here"


def test_programs_can_have_that_line_alone(capsys: pytest.CaptureFixture[str]) -> None:
    print_report("some", [MET], is_table_wanted=False)
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == 1
    assert json.loads(printed)["benchmark"] == "some"
