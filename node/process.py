"""The node as a process of this machine: who holds the pid file, starting it apart, stopping it.

Knows locks, sessions and signals; must not know what the process does.
"""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec
from msgspec import Struct

from protocols.errors import UserError

_POLL_SECONDS = 0.05
_LOCK_PATIENCE_SECONDS = 1.0
_LOG_BYTES_MAX = 10 * 1000 * 1000
STOP_SECONDS = 15.0
"""How long `stop` waits for a node to end by itself."""


class RunningNode(Struct, frozen=True):
    """What the pid file says while a node runs."""

    pid: int
    api_url: str
    software: str


class AlreadyRunning(UserError):
    """A node of this home runs already."""

    code = "already_running"

    def __init__(self, running: RunningNode | None) -> None:
        who = f"as pid {running.pid} at {running.api_url}" if running else "in another process"
        super().__init__(
            f"a node of this home is already running {who}. `dslm status` shows it, `dslm down` "
            "stops it, `--home FOLDER` starts another one"
        )


@dataclass(frozen=True, slots=True)
class Waiting:
    """How time passes while waiting for processes."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@contextmanager
def hold(pid_file: Path, running: RunningNode, waiting: Waiting = Waiting()) -> Iterator[None]:
    """Be the node of this pid file while the block runs; `AlreadyRunning` if another one is.

    The lock goes with the process, however that ends, so a stale file never blocks a start.
    """
    pid_file.parent.mkdir(parents=True, exist_ok=True)
    with pid_file.open("a+b") as file:
        _lock(file, pid_file, waiting)
        _write(file, msgspec.json.encode(running))
        try:
            yield
        finally:
            _write(file, b"")


def find(pid_file: Path, waiting: Waiting = Waiting()) -> RunningNode | None:
    """The running node of this pid file, or None."""
    give_up = waiting.now() + _LOCK_PATIENCE_SECONDS
    while True:
        try:
            with pid_file.open("rb") as file:
                if _try_lock(file, fcntl.LOCK_SH):
                    return None
                return msgspec.json.decode(file.read(), type=RunningNode)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except msgspec.DecodeError as error:  # Locked and not yet written, or just emptied.
            if waiting.now() > give_up:
                raise UserError(f"{pid_file} is locked but says nothing: {error}") from error
            waiting.sleep(_POLL_SECONDS)


def start_background(arguments: Sequence[str], log_file: Path) -> "subprocess.Popen[bytes]":
    """`python -m node ARGUMENTS` in a session of its own, writing to `log_file`.

    A log that has grown large is set aside as `NAME.old` first.
    """
    log_file.parent.mkdir(parents=True, exist_ok=True)
    if log_file.exists() and log_file.stat().st_size > _LOG_BYTES_MAX:
        log_file.replace(log_file.with_name(f"{log_file.name}.old"))
    with log_file.open("ab") as log:
        return subprocess.Popen(  # noqa: S603  (our own interpreter and arguments)
            [sys.executable, "-m", "node", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def stop(pid_file: Path, grace: float = STOP_SECONDS, waiting: Waiting = Waiting()) -> bool:
    """End the node of this pid file; whether it had to be killed.

    SIGTERM first; SIGKILL after `grace` seconds. The node is gone when this returns.
    """
    running = find(pid_file, waiting)
    if running is None:
        return False
    _signal(running.pid, signal.SIGTERM)
    if _wait_gone(pid_file, grace, waiting):
        return False
    _signal(running.pid, signal.SIGKILL)
    if not _wait_gone(pid_file, grace, waiting):
        raise UserError(f"process {running.pid} cannot be ended, not even by SIGKILL")
    return True


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a text file; empty if there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        return []


def _lock(file: IO[bytes], pid_file: Path, waiting: Waiting) -> None:
    """Tries for a while: `find` takes the lock for a moment to see whether it is free."""
    give_up = waiting.now() + _LOCK_PATIENCE_SECONDS
    while not _try_lock(file, fcntl.LOCK_EX):
        if waiting.now() > give_up:
            raise AlreadyRunning(find(pid_file, waiting))
        waiting.sleep(_POLL_SECONDS)


def _try_lock(file: IO[bytes], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(file: IO[bytes], content: bytes) -> None:
    """In place: the lock belongs to this very file, so it cannot be replaced by another."""
    file.truncate(0)
    file.write(content)
    file.flush()


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise UserError(f"process {pid} belongs to another user, who must stop it") from error


def _wait_gone(pid_file: Path, patience: float, waiting: Waiting) -> bool:
    give_up = waiting.now() + patience
    while find(pid_file, waiting) is not None:
        if waiting.now() > give_up:
            return False
        waiting.sleep(_POLL_SECONDS)
    return True
