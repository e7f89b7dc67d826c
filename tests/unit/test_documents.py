"""Generated documents are those that the code would generate now."""

from pathlib import Path

from node.cli.reference import reference

ROOT = Path(__file__).resolve().parents[2]


def test_the_command_line_reference_is_up_to_date() -> None:
    written = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert written == reference(), "run scripts/fix"


def test_each_verb_has_examples() -> None:
    sections = reference().split("\n## ")[2:]
    assert len(sections) >= 19
    bare = [part.splitlines()[0] for part in sections if "Examples:" not in part]
    assert not bare
