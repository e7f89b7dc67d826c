"""Watching a download grow while pip makes and removes files."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from node.hosting.download import _largest_wheel


def test_the_largest_wheel_counts_wherever_it_lies(tmp_path: Path) -> None:
    (tmp_path / "pip" / "unpack").mkdir(parents=True)
    (tmp_path / "small.whl").write_bytes(b"1")
    (tmp_path / "pip" / "unpack" / "large.whl").write_bytes(b"123")
    (tmp_path / "pip" / "larger.txt").write_bytes(b"12345")
    assert _largest_wheel(tmp_path) == 3


def test_a_folder_that_vanishes_while_it_is_watched_counts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pip" / "gone").mkdir(parents=True)
    (tmp_path / "small.whl").write_bytes(b"1")
    real = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("gone"):
            shutil.rmtree(path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert _largest_wheel(tmp_path) == 1
    assert not (tmp_path / "pip" / "gone").exists()
