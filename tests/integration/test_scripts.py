"""Each script says what it is for when asked, and does nothing else."""

import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    """The scripts, beside a set-up that nobody may call, and without what they need to work."""
    folder = tmp_path / "scripts"
    shutil.copytree(SCRIPTS, folder)
    (folder / "setup").write_text(f"#!/bin/sh\ntouch {tmp_path}/worked\nexit 97\n")
    return folder


def asked_for_help(script: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603  (our own script)
        [script, "--help"], capture_output=True, text=True, timeout=20, check=True
    )


@pytest.mark.parametrize(
    "name", sorted(one.name for one in SCRIPTS.iterdir() if one.name != "setup")
)
def test_a_script_answers_help_and_does_nothing(copies: Path, name: str) -> None:
    done = asked_for_help(copies / name)
    assert len((done.stdout + done.stderr).strip()) > 20
    assert not (copies.parent / "worked").exists()


def test_so_does_the_set_up() -> None:
    assert asked_for_help(SCRIPTS / "setup").stdout.startswith("usage:")
