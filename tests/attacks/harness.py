"""Starts victims, attackers and honest peers as processes, and measures what becomes of whom.

Knows processes, time and memory; must not know what an attack consists of. Idle and attacked
windows take turns, so that whatever else the machine does hits both alike.
"""

import math
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self, TypeVar

import msgspec
import psutil

from tests.attacks.programs import Answer, Command, Ready

ROOT = Path(__file__).resolve().parents[2]
READY_SECONDS = 60.0
ANSWER_SECONDS = 90.0
TABLE_BYTES = 16 * 1024 * 1024
SAMPLE_SECONDS = 0.2
MEBIBYTE = 1 << 20

_AnswerT = TypeVar("_AnswerT", bound=msgspec.Struct)


class Died(Exception):
    """A program ended before it answered; `returncode` is negative for a signal."""

    def __init__(self, name: str, returncode: int, errors: str) -> None:
        super().__init__(f"{name} ended with {returncode}: {errors}")
        self.returncode = returncode


class Worker:
    """A program of the suite in a process of its own, which leads a session of its own."""

    def __init__(self, program: str, *arguments: str) -> None:
        self.name, self.arguments = program, arguments
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._process = subprocess.Popen(  # noqa: S603 - our own programs
            [sys.executable, "-W", "ignore", "-m", f"tests.attacks.{program}", *arguments],
            cwd=ROOT,
            env={
                "PYTHONPATH": str(ROOT),
                "PATH": "/usr/bin:/bin",
                "HIVEMIND_LOGLEVEL": "CRITICAL",
                "OMP_NUM_THREADS": "1",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
        )
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        self.ready = self.receive(Ready, READY_SECONDS)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(OSError):
            self._input.close()
        try:
            self._process.wait(3.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
        with suppress(ProcessLookupError):  # what a crashed victim left behind
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        self._output.close()
        self._errors.close()

    @property
    def pid(self) -> int:
        """The program's process, without its daemons."""
        return self._process.pid

    def wait_ended(self, seconds: float) -> int | None:
        """The exit status, if it ends in that time."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds)
        return None

    def tell(self, command: Command) -> None:
        """Begin something; `receive` its answer later."""
        try:
            self._input.write(msgspec.json.encode(command) + b"\n")
            self._input.flush()
        except OSError as error:
            raise self._died() from error

    def receive(self, kind: type[_AnswerT], seconds: float = ANSWER_SECONDS) -> _AnswerT:
        """The next answer; `Died`, or `TimeoutError`."""
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError(f"{self.name} does not answer: {self._last_words()}") from None
        if not line:
            raise self._died()
        return msgspec.json.decode(line, type=kind)

    @property
    def has_answered(self) -> bool:
        """Whether there is something to receive."""
        return not self._lines.empty()

    def ask(self, command: Command, seconds: float = ANSWER_SECONDS) -> Answer:
        """A command and its answer."""
        self.tell(command)
        return self.receive(Answer, seconds)

    @property
    def _input(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def _output(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout

    def _read(self) -> None:
        for line in self._output:
            self._lines.put(line)
        self._lines.put(b"")

    def _died(self) -> Died:
        return Died(self.name, self._process.wait(), self._last_words())

    def _last_words(self) -> str:
        self._errors.seek(0)
        return self._errors.read()[-2000:].decode(errors="replace")


def memory_of(pid: int) -> int:
    """Bytes that a process has in memory now; 0 if it is gone."""
    with suppress(psutil.NoSuchProcess):
        return int(psutil.Process(pid).memory_info().rss)
    return 0


class MemoryWatch:
    """The most memory that each of some processes had while the watch ran, in bytes."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.peaks = [memory_of(pid) for pid in pids]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            now = [memory_of(pid) for pid in self._pids]
            self.peaks = [max(pair) for pair in zip(self.peaks, now, strict=True)]


def percentile(values: Sequence[float], fraction: float) -> float:
    """The value that `fraction` of all are not above (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)]
