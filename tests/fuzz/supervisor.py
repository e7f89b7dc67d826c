"""The parent of fuzz workers: starts one, watches that it goes on, and reads what became of it.

Knows processes and the slot; a worker that dies or hangs is a finding, with the input that it was
at. Workers are started, never forked.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tests.fuzz.worker import SLOT_BYTES, Finding, Job, Outcome, read_slot

ROOT = Path(__file__).resolve().parents[2]
IMPORT_SECONDS = 120.0
SILENCE_SECONDS = 30.0
"""One input that takes so long hangs."""
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to do: for each target, `inputs` or `seconds`, whichever is used up first."""

    seed: int
    inputs: int
    seconds: float


def fuzz(targets: Sequence[str], plan: Plan) -> list[Outcome]:
    """One outcome for each target, worked on in one child process; in another after a death."""
    outcomes: list[Outcome] = []
    left = list(targets)
    while left:
        found = _one_worker(left, plan)
        outcomes += found
        left = left[len(found) :]
    return outcomes


def _one_worker(targets: Sequence[str], plan: Plan) -> list[Outcome]:
    with _memory_folder() as folder:
        slot, output = folder / "slot", folder / "output"
        slot.write_bytes(bytes(SLOT_BYTES))
        job = Job(tuple(targets), plan.seed, plan.inputs, plan.seconds, str(folder), str(slot))
        begun = time.monotonic()
        with output.open("wb") as stdout, (folder / "errors").open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.fuzz.worker"],
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=stderr,
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "RUST_BACKTRACE": "0"},
            )
            try:
                process.stdin.write(msgspec.json.encode(job))  # type: ignore[union-attr]
                process.stdin.close()  # type: ignore[union-attr]
                end = _watch(process, slot)
            finally:
                process.kill()
                process.wait()
        lines = output.read_bytes().splitlines()
        outcomes = [msgspec.json.decode(line, type=Outcome) for line in lines]
        if len(outcomes) < len(targets):
            said = (folder / "errors").read_text(errors="replace")[-500:]
            done = sum(outcome.inputs for outcome in outcomes)
            outcomes.append(_death(slot, end, said, done, time.monotonic() - begun))
        return outcomes


def _watch(process: "subprocess.Popen[bytes]", slot: Path) -> str:
    """How the worker ended."""
    count, since = 0, time.monotonic()
    while process.poll() is None:
        time.sleep(_POLL_SECONDS)
        now_at = read_slot(slot)[0]
        if now_at != count:
            count, since = now_at, time.monotonic()
        patience = SILENCE_SECONDS if count else IMPORT_SECONDS
        if time.monotonic() - since > patience:
            return f"hangs for over {patience:.0f} s"
    code = process.returncode
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


def _death(slot: Path, end: str, said: str, done: int, seconds: float) -> Outcome:
    count, target, data = read_slot(slot)
    if not target:
        raise RuntimeError(f"the fuzz worker did not start ({end}): {said}")
    return Outcome(
        target=target,
        inputs=max(0, count - done),
        refused=0,
        seconds=seconds,
        slowest=0.0,
        slowest_bytes=0,
        grown=0,
        peak_grown=0,
        findings=(Finding(target, f"the process ended: {end}: {said[-200:]}", "", data),),
    )


@contextmanager
def _memory_folder() -> Iterator[Path]:
    """A folder that need not reach a disk, where there is one."""
    memory = Path("/dev/shm")  # noqa: S108
    parent = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="dslm-fuzz-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
