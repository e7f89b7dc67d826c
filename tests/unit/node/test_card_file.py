"""Card files: what is written is read back, what is none is said, the documents' example is one."""

import re
from pathlib import Path

import msgspec
import pytest

from node.card_file import (
    FILE_BYTES_MAX,
    CardFile,
    FilePrototypes,
    format_card_file,
    parse_card_file,
    read_card_file,
)
from protocols.errors import ModelFileError
from protocols.records import MeasuredScore, Prototype

ROOT = Path(__file__).resolve().parents[3]
FULL = CardFile(
    description='Tax, "quoted" \\ and\nbroken \x7f é',
    domains=("law/tax",),
    languages=("en", "de"),
    modalities=("text",),
    licence="cc-by-4.0",
    sources=("https://example.org",),
    activated=True,
    exemplars=("What is owed?", "'''", '"""', "#[x]\t="),
    scores=(MeasuredScore("set", "accuracy", 1e-05, 7, "ab" * 32, "me"),),
    encoded=FilePrototypes("e" * 64, (Prototype(b"\x80\x00\x7f", 0.01),)),
)


@pytest.mark.parametrize("card", [FULL, CardFile()])
def test_what_is_written_is_read_back(card: CardFile) -> None:
    assert parse_card_file(format_card_file(card).encode()) == card


@pytest.mark.parametrize(
    ("text", "about"),
    [
        ("description = ", "end of document"),
        ("\x00", "line 1"),
        ("descripton = 'x'", "descripton"),
        ("description = 5", "str"),
        ("description = '" + "x" * 601 + "'", "600"),
        ("domains = 'law'", "array"),
        ("exemplars = ['']", "length"),
        ("modalities = ['a', 'b', 'c', 'd', 'e']", "length"),
        ("[[scores]]\nprobe = 'x'", "metric"),
        ("[[scores]]\nprobe = 'x'\nmetric = 'y'\nscore = nan\nexamples = 1", "score"),
        ("[encoded]\nencoder = 'x'\nprototypes = []", "length"),
        ("[[encoded.prototypes]]\nvector = '%'\nscale = 0.1", "base64"),
        ("x" * (FILE_BYTES_MAX + 1), "bytes"),
        ("x = " + "[" * 5_000, "recursion|nest|depth"),
        ("x = " + "9" * 6_000, "digits"),
    ],
)
def test_what_is_none_is_refused_with_the_reason(text: str, about: str) -> None:
    with pytest.raises(ModelFileError, match=about):
        parse_card_file(text.encode())


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(ModelFileError, match="utf-8"):
        parse_card_file(b"\xff")


def test_a_file_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="cannot be read"):
        read_card_file(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("x = 1")
    with pytest.raises(ModelFileError, match=r"bad\.toml is no card file"):
        read_card_file(tmp_path / "bad.toml")


def test_too_much_is_not_written() -> None:
    many = msgspec.structs.replace(FULL, exemplars=("x" * 4_000,) * 20)
    with pytest.raises(ModelFileError, match="leave some out"):
        format_card_file(many)


def test_the_example_in_the_documents_is_a_card_file() -> None:
    text = (ROOT / "docs" / "specialist-howto.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(description.*?)```", text, re.DOTALL)
    without_prototypes = example.partition("[encoded]")[0]
    card = parse_card_file(without_prototypes.encode())
    assert card.domains == ("law/tax",)
    assert card.scores[0].examples == 682
