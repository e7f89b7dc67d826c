"""Nodes that host specialists of a few prompts each, and what came of asking them with `auto`."""

from pathlib import Path

import msgspec
import pytest

from node.cli.trial_swarm import TrialNode
from node.hosting.fetch import default_encoder_paths

BASE = """
[[models]]
id = "base"
path = "smollm2"
context = 512
slots = 1
"""
LAW = """
[[models]]
id = "lab/law"
path = "smollm2"
context = 512
slots = 1
domains = ["law"]
description = "Contracts, court rulings, statutes and legal rights"
examples = [
    "Is a verbal agreement a binding contract?",
    "Does this clause limit the liability of the seller?",
    "What must a plaintiff prove to win a negligence case?",
    "Can a tenant be evicted without notice?",
]
"""


class Ours(msgspec.Struct):
    specialist: str
    why: str


class Completion(msgspec.Struct):
    model: str
    dslm: Ours


def route(node: TrialNode, prompt: str, model: str = "auto") -> Completion:
    """Two tokens of an answer, and who gave it."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": 2,
        "temperature": 0,
    }
    return node.client.post("/v1/chat/completions", body, Completion)


def need_models(smollm2_path: Path, models_dir: Path) -> None:
    """Skips where there is no encoder; the model's own fixture has skipped before."""
    assert smollm2_path.exists()
    if not default_encoder_paths(models_dir).exist:
        pytest.skip("the sentence encoder is not there: run scripts/test, which fetches it")
