"""Client verbs start fast, which means: without what only the node needs."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.effort import few

HEAVY = ("torch", "hivemind", "transformers", "numpy", "onnxruntime", "aiohttp", "huggingface_hub")
CODE = """
import sys
from node.cli import app
code = app.main(sys.argv[1:])
sys.stdout.flush()
loaded = sorted(set(%r) & set(sys.modules))
sys.stderr.write("loaded:" + ",".join(loaded) + "\\n")
"""
VERBS = [
    *("--help", "status", "run auto hi", "ps", "peers", "ls", "ping x", "version", "config show"),
    *("swarm ls", "swarm info", "swarm members", "swarm use x", "swarm revoke x", "invite"),
    *("key ls", "swarm create lab --private", "chat"),
    *("down", "logs", "join /ip4/127.0.0.1/tcp/9/p2p/12D3KooW", "doctor", "ls --files"),
]


def _run(home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env={"DSLM_HOME": str(home), "PATH": "/usr/bin:/bin", "DSLM_API_LISTEN": "127.0.0.1:9"},
    )


@pytest.mark.parametrize("verb", few(VERBS, 4))
def test_no_verb_loads_what_only_the_node_needs(tmp_path: Path, verb: str) -> None:
    done = _run(tmp_path, "-c", CODE % (HEAVY,), *verb.split())
    assert done.stderr.rstrip().splitlines()[-1] == "loaded:", done.stderr
