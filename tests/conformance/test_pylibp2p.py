"""The client half of the transport suite over py-libp2p, in a process without hivemind."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.integration
def test_the_client_half_of_the_suite():
    if importlib.util.find_spec("libp2p") is None:
        pytest.skip(
            "py-libp2p is not installed: apt-get install -y build-essential python3-dev "
            "libgmp-dev && pip install 'dslm[interop]'"
        )
    run = subprocess.run(  # noqa: S603 - our own test suite
        [sys.executable, "-m", "pytest", "-q", "-m", "", str(HERE / "test_transport.py")],
        env={**os.environ, "DSLM_CONFORMANCE_PYLIBP2P": "1", "DSLM_ALLOWED_SKIPS": ""},
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    assert " passed" in run.stdout
