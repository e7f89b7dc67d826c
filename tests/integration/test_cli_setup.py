"""The set-up of a working copy, on a package of three lines."""

import sys
from pathlib import Path

import pytest

from node.cli import setup
from node.cli.setup import SetupError, fingerprint, set_up

PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "sample"
version = "1.0"
dependencies = {needed}
[project.optional-dependencies]
dev = []
"""
BACKEND = """
import zipfile
def get_requires_for_build_editable(settings=None): return []
def build_editable(folder, settings=None, metadata=None):
    name = "sample-1.0-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as archive:
        info = "sample-1.0.dist-info"
        text = "Metadata-Version: 2.1\\nName: sample\\nVersion: 1.0\\nProvides-Extra: dev\\n"
        archive.writestr(f"{info}/METADATA", text + REQUIRES)
        wheel = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        archive.writestr(f"{info}/WHEEL", wheel)
        archive.writestr(f"{info}/RECORD", "")
    return name
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    _write(tmp_path, "")
    return tmp_path


def _write(root: Path, requires: str) -> None:
    (root / "pyproject.toml").write_text(
        PROJECT.format(needed=f'["{requires}"]' if requires else [])
    )
    line = f"Requires-Dist: {requires}\\n" if requires else ""
    (root / "backend.py").write_text(f'REQUIRES = "{line}"\n' + BACKEND)
    (root / "constraints.txt").write_text("")


@pytest.mark.slow
def test_twice_is_once_and_a_failure_can_be_gone_on_from(
    root: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = root / ".venv"
    _write(root, "no-such-thing==1.0")
    with pytest.raises(SetupError, match="goes on from"):
        set_up(root, environment, "dev")
    assert not list(environment.glob("dslm-setup*"))
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "GB" in shown.err
    assert "no-such-thing" in shown.err

    _write(root, "")
    python = environment / "bin" / "python"
    made = python.lstat().st_mtime_ns
    set_up(root, environment, "dev")
    assert python.lstat().st_mtime_ns == made
    assert list(environment.glob("lib/python3*/site-packages/sample-1.0.dist-info"))
    capfd.readouterr()

    monkeypatch.setattr(setup, "_run", _never)
    set_up(root, environment, "dev")
    assert capfd.readouterr() == ("", "")


def _never(command: list[str], trouble: str) -> None:
    pytest.fail(f"{command} was run: {trouble}")


def test_any_change_of_what_decides_is_seen(root: Path) -> None:
    prints = [fingerprint(root, "dev"), fingerprint(root, "dev,interop")]
    for name in ("pyproject.toml", "constraints.txt"):
        with (root / name).open("a") as file:
            file.write("\n# changed\n")
        prints.append(fingerprint(root, "dev"))
    assert len(set(prints)) == 4


def test_too_little_room(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "_NEEDED_GB", 1e9)
    with pytest.raises(SetupError, match="make room first"):
        set_up(root, root / ".venv", "dev")
    assert not (root / ".venv").exists()


def test_an_old_python(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 1))
    with pytest.raises(SetupError, match=r"Python 3\.11 or newer"):
        set_up(root, root / ".venv", "dev")


def test_constraints_name_exact_versions_without_local_parts() -> None:
    lines = (setup.ROOT / "constraints.txt").read_text().splitlines()
    pinned = [line for line in lines if not line.startswith("#")]
    assert "torch==2.13.0" in pinned
    assert "hivemind==1.1.12" in pinned
    assert all(line.count("==") == 1 and "+" not in line and " " not in line for line in pinned)
    names = [line.split("==")[0].lower() for line in pinned]
    assert len(set(names)) == len(names)
