"""The quickstart's ends: usage, interruption at any moment, nothing left behind."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.cli.trial_swarm import TrialSwarm
from protocols.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "node.cli.quickstart"]


def _started_in(folder: Path) -> list[str]:
    """Command lines of the processes that have something to do with `folder`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line:
            found.append(line)
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short temporary folder for the nodes' homes."""
    assert tmp_path.is_dir()  # Made before, where pytest keeps its own.
    with tempfile.TemporaryDirectory(prefix="dq") as name:
        monkeypatch.setenv("TMPDIR", name)
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield Path(name)
    tempfile.tempdir = None


@pytest.mark.parametrize("arguments", [[], [""], ["  "], ["a", "b"], ["--nonsense", "a"]])
def test_usage(arguments: list[str]) -> None:
    done = subprocess.run(  # noqa: S603
        [*COMMAND, *arguments], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: " in done.stderr


def test_the_verb_checks_its_prompt_too() -> None:
    command = [sys.executable, "-m", "node", "quickstart", "  "]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert (done.returncode, done.stdout) == (2, "")
    assert "the prompt is empty" in done.stderr


def test_the_script_checks_its_arguments_before_it_sets_anything_up() -> None:
    for arguments, code in (([], 2), (["a", "b"], 2), (["--help"], 0)):
        done = subprocess.run(  # noqa: S603
            [str(ROOT / "scripts" / "quickstart"), *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (code, "")
        assert "usage: " in done.stderr


@pytest.mark.integration
@pytest.mark.parametrize(
    ("number", "ended"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)],
)
def test_an_interrupted_start_leaves_no_process(
    folder: Path, smollm2_path: Path, number: signal.Signals, ended: int
) -> None:
    """Interrupted as soon as the first node's process is there."""
    assert smollm2_path.is_file()
    process = subprocess.Popen(  # noqa: S603
        [*COMMAND, "hello"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=os.environ
    )
    give_up = time.monotonic() + 60
    while not _started_in(folder):
        assert time.monotonic() < give_up
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    out, _ = process.communicate(timeout=40)
    assert (process.returncode, out) == (ended, b"")
    give_up = time.monotonic() + (30 if number == signal.SIGKILL else 1)
    while left := _started_in(folder):
        assert time.monotonic() < give_up, left
        time.sleep(0.05)
    if number != signal.SIGKILL:
        assert not list(folder.iterdir())


def test_a_node_that_ends_at_once_is_reported_with_its_log(folder: Path, tmp_path: Path) -> None:
    variables = {"PATH": "/usr/bin:/bin"}
    with TrialSwarm(tmp_path, variables) as swarm:
        node = swarm.start("alder", "/nowhere/x.gguf")
        with pytest.raises(UserError, match=r"alder has ended(.|\n)*no model at /nowhere/x\.gguf"):
            swarm.wait_ready([node], 60)
    assert not list(folder.iterdir())


def test_settings_of_the_person_do_not_leak_into_the_trial(folder: Path, tmp_path: Path) -> None:
    variables = {"PATH": "/usr/bin:/bin", "DSLM_API_LISTEN": "nonsense"}
    with TrialSwarm(tmp_path, variables) as swarm:
        node = swarm.start("alder", "/nowhere/x.gguf")
        node.process.wait(60)
        assert "nonsense" not in node.log.read_text()
    assert folder.is_dir()
