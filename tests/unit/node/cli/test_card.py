"""`dslm card` without a node and without an encoder: what it says, and how it ends."""

import json
from pathlib import Path

import pytest

from node.card_file import CardFile, format_card_file, parse_card_file
from node.cli.app import main
from node.cli.exits import Exit


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is here: no settings, no models, no node."""
    monkeypatch.setenv("DSLM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DSLM_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("DSLM_URL", "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def examples(folder: Path) -> str:
    path = folder / "examples.txt"
    path.write_text("Why is the sky blue?\nHow far is the moon?\n")
    return str(path)


def test_new_says_what_is_missing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_of = examples(home)
    assert main(["card", "new", made_of]) == Exit.FAILED
    assert "dslm pull minilm" in capsys.readouterr().err
    assert not (home / "card.toml").exists()
    assert main(["card", "new", made_of, "--adapter", "none"]) == Exit.USAGE
    assert "there is no such folder" in capsys.readouterr().err
    assert main(["card", "new", made_of, "--id", "No Good"]) == Exit.USAGE
    assert "no specialist id" in capsys.readouterr().err
    assert main(["card", "new", made_of, "--description", "x" * 601]) == Exit.USAGE
    assert "600" in capsys.readouterr().err
    assert main(["card", "new", "nowhere", "--out", "x.toml"]) == Exit.FAILED
    assert "no file or folder nowhere" in capsys.readouterr().err


def test_new_does_not_write_over_a_card(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "card.toml").write_text("mine")
    assert main(["card", "new", examples(home)]) == Exit.FAILED
    assert "--force writes over it" in capsys.readouterr().err
    assert (home / "card.toml").read_text() == "mine"


def test_a_file_is_shown_and_checked_as_far_as_it_can_be(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = CardFile("Stars and planets.", ("Astronomy",), sources=("a book",), exemplars=("Why?",))
    (home / "card.toml").write_text(format_card_file(card))
    assert main(["card", "show", "card.toml"]) == Exit.OK
    shown = capsys.readouterr().out
    assert "description  Stars and planets.\ndomains      Astronomy\n" in shown
    assert "source       a book" in shown
    assert "exemplar     Why?" in shown
    assert main(["card", "show", ".", "--json"]) == Exit.OK
    (one,) = json.loads(capsys.readouterr().out)["cards"]
    assert one["card"]["exemplars"] == ["Why?"]
    assert main(["card", "check", "card.toml", "--json"]) == Exit.FAILED
    checks = {one["name"]: one for one in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["size"]["ok"]
    assert checks["domains"]["fix"].startswith("write astronomy")
    assert "dslm pull minilm" in checks["prototypes"]["detail"]
    assert parse_card_file((home / "card.toml").read_bytes()) == card


@pytest.mark.usefixtures("home")
def test_neither_a_file_nor_a_specialist(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["card", "show", "lab/tax"]) == Exit.NOT_RUNNING
    assert "there is no file lab/tax, and no node runs here" in capsys.readouterr().err
    assert main(["card", "check", "none.toml"]) == Exit.FAILED
    assert "none.toml cannot be read" in capsys.readouterr().err
