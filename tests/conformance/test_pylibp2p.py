"""The client half of the transport suite over py-libp2p, in a process without hivemind."""

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
ONLY_PYLIBP2P = "DSLM_CONFORMANCE_PYLIBP2P"
OPTIONS = (
    "-q",
    "-m",
    "",
    # py-libp2p leaves its sockets to the garbage collector
    "-W",
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "-W",
    "ignore::ResourceWarning",
)


@pytest.mark.slow
@pytest.mark.integration
def test_the_client_half_of_the_suite() -> None:
    if importlib.util.find_spec("libp2p") is None:
        pytest.skip(
            "py-libp2p is not installed: apt-get install -y build-essential python3-dev "
            "libgmp-dev && pip install 'dslm[interop]'"
        )
    with tempfile.TemporaryDirectory() as folder, peer_process(folder) as address:
        run = subprocess.run(  # noqa: S603 - our own test suite
            [sys.executable, "-m", "pytest", *OPTIONS, str(HERE / "test_transport.py")],
            env={**os.environ, ONLY_PYLIBP2P: address, "DSLM_ALLOWED_SKIPS": ""},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    assert " passed" in run.stdout


@contextmanager
def peer_process(folder: str) -> Iterator[str]:
    """A libp2p peer that serves all behaviours in a process of its own; its address."""
    with subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-W", "ignore", str(HERE / "peer_process.py"), folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
            process.wait(20)
