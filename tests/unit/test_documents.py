"""Documents say what is so: generated ones are up to date, tests that are named exist."""

import re
from pathlib import Path

from node.cli.reference import reference

ROOT = Path(__file__).resolve().parents[2]
_NAMED = re.compile(r"`(?P<file>[\w/.]+\.py)?::(?P<test>\w+)`")
"""A test, in the file named before it on the same line unless it names one."""


def test_the_command_line_reference_is_up_to_date() -> None:
    written = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert written == reference(), "run scripts/fix"


def test_each_verb_has_examples() -> None:
    sections = reference().split("\n## ")[2:]
    assert len(sections) >= 19
    bare = [part.splitlines()[0] for part in sections if "Examples:" not in part]
    assert not bare


def named_tests(text: str) -> list[tuple[str, str]]:
    """File (empty if there is none) and name of each test, as a document gives them."""
    found = []
    for line in text.splitlines():
        file = ""
        for named in _NAMED.finditer(line):
            file = named["file"] or file
            found.append((file, named["test"]))
    return found


def has_test(file: str, test: str) -> bool:
    path = ROOT / "tests" / file
    defined = re.compile(rf"^((async def|def|class) {test}\b|{test} = )", re.MULTILINE)
    return path.is_file() and defined.search(path.read_text(encoding="utf-8")) is not None


def test_the_tests_that_the_threat_model_names_exist() -> None:
    text = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
    named = named_tests(text)
    assert len(named) >= 80
    assert len(named) == len(re.findall(r"::\w+", text)), "written in another way than the others"
    missing = [f"{file}::{test}" for file, test in named if not has_test(file, test)]
    assert not missing


def test_the_tests_that_the_engine_page_names_exist() -> None:
    text = (ROOT / "docs" / "engine.md").read_text(encoding="utf-8")
    named = named_tests(text)
    assert len(named) == len(re.findall(r"::\w+", text)) >= 14
    assert not [f"{file}::{test}" for file, test in named if not has_test(file, test)]


def test_a_test_that_is_not_there_would_be_noticed() -> None:
    here = "unit/test_documents.py"
    text = f"`{here}::has_test`, `::test_nothing`\n`::has_test`"
    named = named_tests(text)
    assert named == [(here, "has_test"), (here, "test_nothing"), ("", "has_test")]
    assert [has_test(*one) for one in named] == [True, False, False]
