"""Tables, numbers and ids for people."""

import pytest

from node.cli.output import optional, short_peer, show_json, show_table, table_lines, tell


def test_columns_line_up_and_nothing_is_cut() -> None:
    rows = [("NAME", "SIZE"), ("a" * 200, "1"), ("b", "22")]
    assert table_lines(rows) == [
        "NAME" + " " * 196 + "  SIZE",
        "a" * 200 + "  1",
        "b" + " " * 199 + "  22",
    ]


def test_an_empty_table_has_its_titles(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(("NAME", "SIZE"), [])
    assert capsys.readouterr().out == "NAME  SIZE\n"


def test_json_on_stdout_and_words_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    show_json({"a": [1, "é"]})
    tell("hm")
    captured = capsys.readouterr()
    assert captured.out == '{\n  "a": [\n    1,\n    "é"\n  ]\n}\n'
    assert captured.err == "hm\n"


def test_small_things() -> None:
    assert short_peer("12D3KooWKZZz7y5bxekH") == "..7y5bxekH"
    assert short_peer("short") == "short"
    assert optional(None) == "-"
    assert optional(1.26, " ms") == "1.3 ms"
