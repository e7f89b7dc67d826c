"""Compiles the step for this machine, once, and keeps what comes out.

Knows compilers and folders; must not know models. Where nothing can be compiled or run, it says why
in words for people.
"""

import fcntl
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from node.engine.native.library import NativeLibrary
from node.engine.native.reasons import NativeUnfit

SOURCE = Path(__file__).parent / "source"
COMPILERS = ("g++", "clang++", "c++")
_FLAGS = (
    "-O3",
    "-march=native",
    "-std=c++17",
    "-shared",
    "-fPIC",
    "-pthread",
    # A product and a sum are merged where the source says so and nowhere else: results must not
    # depend on what an optimiser makes of a loop.
    "-ffp-contract=off",
    "-fno-math-errno",
    "-w",
)
_NEEDED = ("avx2", "fma", "f16c")
_TIMEOUT = 300.0
_LOCK_SECONDS = 120.0
"""A build takes some seconds, on a busy machine tens of them."""
_LOCK_PAUSE = 0.05
_WORDS_MAX = 200
_FoundT = TypeVar("_FoundT")


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """Where builds are kept (`folder`, private to its user), and by what they are made.

    They go to `fallback` where `folder` cannot be used, or others take longer than `lock_seconds`
    to make one there.
    """

    folder: Path
    fallback: Path | None = None
    compilers: Sequence[str] = COMPILERS
    flags: Sequence[str] = _FLAGS
    needed: Sequence[str] = _NEEDED
    lock_seconds: float = _LOCK_SECONDS


@dataclass(frozen=True, slots=True)
class Build:
    """The file that holds the compiled step, or will when it `is_made`."""

    path: Path
    is_made: bool


class FolderUnfit(NativeUnfit):
    """Builds cannot be kept in a folder; in another they may."""


def native_library(
    settings: BuildSettings, say: Callable[[str], None] = lambda _line: None
) -> NativeLibrary:
    """The compiled step for this machine, built first if it has not been.

    `say` hears one line before a build, which takes seconds. `NativeUnfit` with the reason if there
    is none. Of processes that need it at the same time one builds, and the others wait.
    """
    compiler, name = _names(settings)

    def made_in(folder: Path) -> Path:
        _make_private(folder)
        path = folder / name
        if not path.is_file():
            _require_writable(folder)
            say(f"compiling the engine's kernels for this CPU with {compiler} (some seconds, once)")
            with _one_at_a_time(folder, settings.lock_seconds):
                if not path.is_file():
                    _compile(settings, compiler, path)
        return path

    return NativeLibrary(_in_one_of(settings, made_in, say))


def find_build(settings: BuildSettings) -> Build:
    """Where the build for this machine is, or would be made; changes nothing.

    `NativeUnfit` if there can be none, as far as can be told without compiling.
    """
    _, name = _names(settings)

    def found_in(folder: Path) -> Build:
        path, nearest = folder / name, folder
        if folder.exists():
            _require_private(folder)
        while not nearest.exists():
            nearest = nearest.parent
        if not path.is_file():
            _require_writable(nearest)
        return Build(path, path.is_file())

    return _in_one_of(settings, found_in)


def _in_one_of(
    settings: BuildSettings,
    look: Callable[[Path], _FoundT],
    say: Callable[[str], None] = lambda _line: None,
) -> _FoundT:
    """What `look` finds in the first folder, else in the other; `FolderUnfit` tells of both."""

    def look_at(folder: Path) -> _FoundT:
        try:
            return look(folder)
        except OSError as error:
            raise FolderUnfit(f"{folder} cannot be used ({error.strerror})") from error

    try:
        return look_at(settings.folder)
    except FolderUnfit as reason:
        if settings.fallback is None:
            raise
        say(f"{reason}: compiled kernels are kept in {settings.fallback}")
        try:
            return look_at(settings.fallback)
        except FolderUnfit as other:
            raise FolderUnfit(f"{reason}; {other}") from other


def _names(settings: BuildSettings) -> tuple[str, str]:
    """The compiler, and the file that holds what it makes for this machine."""
    flags = _cpu_flags()
    if missing := [name for name in settings.needed if name not in flags]:
        raise NativeUnfit(f"this CPU has no {missing[0]}")
    compiler = _compiler(settings.compilers)
    return compiler, f"dslm-step-{_fingerprint(settings, compiler, flags)}.so"


@contextmanager
def _one_at_a_time(folder: Path, seconds: float) -> Iterator[None]:
    """The lock goes with the process, however that ends."""
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(place, folder, seconds)
        yield
    finally:
        os.close(place)


def _lock(place: int, folder: Path, seconds: float) -> None:
    for _ in range(1 + int(seconds / _LOCK_PAUSE)):
        try:
            return fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_PAUSE)
    raise FolderUnfit(
        f"another process has been compiling kernels in {folder} for more than {seconds:g} s"
    )


def _cpu_flags() -> frozenset[str]:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise NativeUnfit(f"there are no kernels for {platform.system()} {platform.machine()}")
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("flags"):
                return frozenset(line.partition(":")[2].split())
    except OSError:
        pass
    raise NativeUnfit("the system does not tell what this CPU can do")


def _compiler(names: Sequence[str]) -> str:
    for name in names:
        if found := shutil.which(name):
            return found
    raise NativeUnfit(f"there is no C++ compiler ({', '.join(names)})")


def _sources() -> list[Path]:
    return sorted(path for path in SOURCE.iterdir() if path.suffix in {".h", ".cpp"})


def _fingerprint(settings: BuildSettings, compiler: str, flags: frozenset[str]) -> str:
    """Changes with anything that decides what comes out."""
    digest = hashlib.sha256()
    parts = [_run([compiler, "--version"]), *settings.flags, " ".join(sorted(flags))]
    for part in (*parts, *(path.read_text("utf-8") for path in _sources())):
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()[:24]


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _require_private(folder)


def _require_private(folder: Path) -> None:
    """What lies there is run as our own code: nobody else may write it."""
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise FolderUnfit(f"{folder} is open to other users: make it private (chmod 700)")


def _require_writable(folder: Path) -> None:
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise FolderUnfit(f"{folder} cannot be written")


def _compile(settings: BuildSettings, compiler: str, path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as room:
        made = Path(room) / path.name
        _run([compiler, *settings.flags, "-o", str(made), str(SOURCE / "step.cpp")])
        made.replace(path)


def _run(command: Sequence[str]) -> str:
    """The output of a compiler; `NativeUnfit` with its first complaint if it fails."""
    try:
        done = subprocess.run(  # noqa: S603  (a compiler from the PATH, by its full name)
            command, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NativeUnfit(f"{command[0]} does not run ({error})") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or [done.stderr]
        raise NativeUnfit(f"{command[0]} cannot compile the kernels: {lines[0][:_WORDS_MAX]}")
    return done.stdout
