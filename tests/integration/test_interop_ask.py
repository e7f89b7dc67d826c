"""A stock py-libp2p host gets an answer from a real node through `/dslm/ask/1`."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from node.cli.trial_swarm import TrialSwarm, address_of
from node.config import environment

PROMPT = "Why is the sky blue?"
SWARM = "trial"
ASKER = Path(__file__).with_name("stock_libp2p_asker.py")
ROOT = Path(__file__).parent.parent.parent

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("libp2p") is None,
        reason="py-libp2p is not installed: apt-get install -y build-essential python3-dev "
        "libgmp-dev && pip install 'dslm[interop]'",
    ),
]


class Ours(msgspec.Struct):
    token_ids: list[int]


class Completion(msgspec.Struct):
    dslm: Ours


def test_a_stock_host_gets_the_same_answer_as_an_http_client(
    smollm2_path: Path, models_dir: Path
) -> None:
    assert smollm2_path.exists()
    with TrialSwarm(models_dir, environment(), precision="fp32") as swarm:
        host = swarm.start("host", "smollm2")
        swarm.wait_ready([host], 90)
        run = subprocess.run(  # noqa: S603  (our own program)
            [sys.executable, str(ASKER), address_of(host), PROMPT, SWARM],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert run.returncode == 0, run.stderr[-3000:]
        stock = json.loads(run.stdout.splitlines()[-1])
        body = {
            "model": "smollm2",
            "messages": [{"role": "user", "content": PROMPT}],
            "max_tokens": 16,
            "temperature": 0,
            "dslm": {"return_token_ids": True},
        }
        ours = host.client.post("/v1/chat/completions", body, Completion)
    assert stock["ids"] == ours.dslm.token_ids
    assert len(stock["ids"]) == 16
    assert stock["text"].strip()
