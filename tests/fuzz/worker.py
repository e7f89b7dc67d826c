"""The child process of a fuzz run: `python -m tests.fuzz.worker`, a job as JSON on stdin.

Knows one job and reports it as one line of JSON for each target on stdout. Every input is written
to a slot, a file in memory, before it is run: what kills or hangs the process can be read there.
"""

import gc
import mmap
import os
import resource
import struct
import sys
import time
import traceback
from pathlib import Path

import msgspec

from tests.fuzz.corpora import corpus_of
from tests.fuzz.mutator import Mutator, mutator_of
from tests.fuzz.registry import make_target
from tests.fuzz.target import Target

SLOT = struct.Struct("<QI32s")
SLOT_BYTES = 1 << 20
HEADROOM_BYTES = 1 << 30
"""Address space that a target may take beyond what the process has after its imports."""
WARM_INPUTS = 1_000
_BATCH = 500
_FINDINGS_MAX = 20
_PAGE_BYTES = resource.getpagesize()


class Job(msgspec.Struct, frozen=True):
    """What one child process does: each target in turn, until inputs or seconds are used up."""

    targets: tuple[str, ...]
    seed: int
    inputs: int
    seconds: float
    folder: str
    slot: str
    reports_slow: bool = True
    """Whether an input that takes too long is a finding."""


class Finding(msgspec.Struct, frozen=True):
    """An input that did what no input may do."""

    target: str
    what: str
    where: str
    data: bytes


class Outcome(msgspec.Struct, frozen=True):
    """What became of one target. Times are seconds, sizes bytes.

    `slowest` is processor time of the slowest input, the best of three. `grown` is resident memory
    at the end beyond that after the first inputs; `peak_grown` the most it ever was.
    """

    target: str
    inputs: int
    refused: int
    seconds: float
    slowest: float
    slowest_bytes: int
    grown: int
    peak_grown: int
    findings: tuple[Finding, ...]


class Slot:
    """Where the input at work can be read from outside."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), SLOT_BYTES)
        self._count = 0
        self._name = b""

    def begin(self, target: str) -> None:
        """The inputs that follow are for `target`."""
        self._name = target.encode()

    def put(self, data: bytes) -> None:
        """The next input."""
        self._count += 1
        length = len(data)
        self._map[: SLOT.size + length] = SLOT.pack(self._count, length, self._name) + data


def read_slot(path: Path) -> tuple[int, str, bytes]:
    """How many inputs were begun, the target, and the last of them."""
    data = path.read_bytes()
    count, length, name = SLOT.unpack_from(data)
    return count, name.rstrip(b"\0").decode(), data[SLOT.size : SLOT.size + length]


class Run:
    """One target at work."""

    def __init__(self, name: str, target: Target, slot: Slot, reports_slow: bool) -> None:
        self._name = name
        self._target = target
        self._slot = slot
        self._reports_slow = reports_slow
        self._findings: dict[str, Finding] = {}
        self._refused = 0
        self._slowest = 0.0
        self._slowest_bytes = 0
        slot.begin(name)

    def repeat(self, mutator: Mutator, inputs: int, seconds: float) -> Outcome:
        """The corpus, then mutations of it, until `inputs` are done or `seconds` have passed."""
        begun = time.perf_counter()
        known = (*self._target.seeds, *corpus_of(self._name))
        for data in known:
            self._one(data)
        done = len(known)
        warm = min(WARM_INPUTS, inputs // 10)
        self._batch(mutator, warm)
        done += warm
        gc.collect()
        resident, peak = _resident_bytes(), _peak_bytes()
        batch = max(1, min(_BATCH, inputs // 40))
        while done < inputs and time.perf_counter() - begun < seconds:
            count = min(batch, inputs - done)
            self._batch(mutator, count)
            done += count
            if len(self._findings) >= _FINDINGS_MAX:
                break
        seconds_taken = time.perf_counter() - begun
        gc.collect()
        return Outcome(
            target=self._name,
            inputs=done,
            refused=self._refused,
            seconds=seconds_taken,
            slowest=self._slowest,
            slowest_bytes=self._slowest_bytes,
            grown=max(0, _resident_bytes() - resident),
            peak_grown=max(0, _peak_bytes() - peak),
            findings=tuple(self._findings.values()),
        )

    def _batch(self, mutator: Mutator, count: int) -> None:
        draw, one = mutator.draw, self._one
        for _ in range(count):
            one(draw())

    def _one(self, data: bytes) -> None:
        self._slot.put(data)
        begun = time.perf_counter()
        try:
            self._target.run(data)
        except self._target.allowed:
            self._refused += 1
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            self._note(data, error)
        if time.perf_counter() - begun > self._slowest:
            self._time_again(data, time.perf_counter() - begun)

    def _time_again(self, data: bytes, first: float) -> None:
        """Only what is slow each time is slow: a shared machine stops a process now and then."""
        best = first
        for _ in range(3):
            begun = time.thread_time()
            try:
                self._target.run(data)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
            best = min(best, time.thread_time() - begun)
        if best <= self._slowest:
            return
        self._slowest, self._slowest_bytes = best, len(data)
        if best > self._target.seconds_max and self._reports_slow:
            what = f"{best * 1000:.0f} ms for {len(data)} bytes"
            self._findings.setdefault("slow", Finding(self._name, what, "", data))

    def _note(self, data: bytes, error: BaseException) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if "/tests/fuzz/" not in frame.filename] or frames
        last = own[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        ours = [f"{Path(f.filename).name}:{f.lineno}" for f in frames if _is_ours(f.filename)]
        path = " > ".join([*ours, where])[:300]
        key = f"{type(error).__name__} {path}"
        if key not in self._findings:
            what = f"{type(error).__name__}: {str(error)[:200]}"
            self._findings[key] = Finding(self._name, what, path, data)


def _is_ours(file: str) -> bool:
    return any(f"/{package}/" in file for package in ("protocols", "coordinator", "node")) and (
        "site-packages" not in file
    )


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def limit_memory() -> None:
    """From here on, memory errors instead of a machine without memory."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * _PAGE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (taken + HEADROOM_BYTES, taken + HEADROOM_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Do the job on stdin."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    slot = Slot(Path(job.slot))
    made = {}
    for name in job.targets:
        folder = Path(job.folder) / name
        folder.mkdir()
        made[name] = make_target(name, folder)
    gc.collect()
    gc.freeze()
    limit_memory()
    for name, target in made.items():
        mutator = mutator_of(target, corpus_of(name), job.seed)
        outcome = Run(name, target, slot, job.reports_slow).repeat(mutator, job.inputs, job.seconds)
        sys.stdout.buffer.write(msgspec.json.encode(outcome) + b"\n")
        sys.stdout.buffer.flush()
    os._exit(0)  # libraries' threads and exit handlers are no part of this


if __name__ == "__main__":
    main()
