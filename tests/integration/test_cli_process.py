"""The pid file's lock and the ending of processes, with real processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.cli import app
from node.process import AlreadyRunning, RunningNode, find, hold, stop, tail

HOLDER = """
import signal, sys, time
from pathlib import Path
from node.process import RunningNode, hold
import os
stubborn = sys.argv[2] == "stubborn"
signal.signal(signal.SIGTERM, signal.SIG_IGN if stubborn else lambda *_: sys.exit(0))
with hold(Path(sys.argv[1]), RunningNode(os.getpid(), "http://127.0.0.1:1", "0")):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def pid_file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "dslm.pid"


class Holders:
    """Starts processes that hold a pid file."""

    def __init__(self, pid_file: Path) -> None:
        self._pid_file = pid_file
        self.started: list[subprocess.Popen[str]] = []

    def start(self, manner: str = "kind") -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", HOLDER, str(self._pid_file), manner]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603
        self.started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process


@pytest.fixture
def holders(pid_file: Path) -> Iterator[Holders]:
    made = Holders(pid_file)
    yield made
    for process in made.started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_nothing_runs_at_first(pid_file: Path) -> None:
    assert find(pid_file) is None
    assert stop(pid_file) is False


def test_a_running_node_is_found_and_a_second_one_is_refused(
    pid_file: Path, holders: Holders
) -> None:
    process = holders.start()
    assert find(pid_file) == RunningNode(process.pid, "http://127.0.0.1:1", "0")
    with (
        pytest.raises(AlreadyRunning, match=f"pid {process.pid} at http://127.0.0.1:1"),
        hold(pid_file, RunningNode(os.getpid(), "", "")),
    ):
        pytest.fail("two nodes of one home")


def test_a_killed_node_leaves_no_lock(pid_file: Path, holders: Holders) -> None:
    process = holders.start()
    process.kill()
    process.wait()
    assert pid_file.read_bytes() != b""
    assert find(pid_file) is None
    with hold(pid_file, RunningNode(os.getpid(), "", "")):
        found = find(pid_file)
        assert found is not None
        assert found.pid == os.getpid()
    assert find(pid_file) is None


def test_sigterm_is_enough_for_a_kind_one(pid_file: Path, holders: Holders) -> None:
    process = holders.start("kind")
    assert stop(pid_file, grace=10) is False
    assert process.wait(5) == 0


def test_a_stubborn_one_is_killed(pid_file: Path, holders: Holders) -> None:
    process = holders.start("stubborn")
    began = time.monotonic()
    assert stop(pid_file, grace=0.5) is True
    assert time.monotonic() - began < 5
    assert process.wait(5) == -signal.SIGKILL


def test_looking_does_not_get_in_the_way_of_a_start(pid_file: Path, holders: Holders) -> None:
    """`find` holds the lock for a moment; a start at that moment must not fail."""
    pid_file.parent.mkdir()
    pid_file.touch()
    watcher = subprocess.Popen(  # noqa: S603
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from node.process import find\n"
            "while True: find(Path(sys.argv[1]))",
            str(pid_file),
        ]
    )
    try:
        for _ in range(5):
            process = holders.start()
            process.kill()
            process.wait()
    finally:
        watcher.kill()
        watcher.wait()


def test_the_end_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert tail(path, 3) == []
    path.write_bytes(b"one\ntwo\n\xff\nfour\n")
    assert tail(path, 3) == ["two", "\ufffd", "four"]


def test_a_home_that_is_a_file_is_an_error_of_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DSLM_MODELS_DIR", raising=False)
    home = tmp_path / "file"
    home.touch()
    assert find(home / "state" / "dslm.pid") is None
    assert app.main(["down", "--home", str(home)]) == 3
    capsys.readouterr()
    source = tmp_path / "model.gguf"
    source.write_bytes(b"GGUF")
    assert app.main(["pull", str(source), "--home", str(home)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert "--home FOLDER" in said
