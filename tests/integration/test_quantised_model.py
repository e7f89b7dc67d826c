"""The real model, packed: what it says, how well it predicts a text, and what it takes."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from node.engine.batch import Chunk, build_batch
from node.engine.cache import KeyValueCache
from node.engine.model import LlamaModel
from node.engine.pages import pages_for
from node.engine.weights.scheme import Precision, QuantisedSource, weight_bytes
from node.hosting.kernels import KernelSettings
from node.hosting.memory import Load, footprint
from node.hosting.precisions import measure_precisions
from node.hosting.weights import ModelWeights
from protocols.messages.ask import ChatMessage

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.usefixtures("one_thread"),
]

PROMPTS = ("Why is the sky blue?", "Write a haiku about the sea.")
TOKENS = 24
AGREEMENT = 0.9
"""The share of positions of a text at which the likeliest token must be the referee's. Dense bf16
has about as many near-ties that fall the other way."""


def model_of(weights: ModelWeights, precision: Precision, dtype: torch.dtype) -> LlamaModel:
    source = QuantisedSource(weights.stored, weights.config, precision)
    return LlamaModel(weights.config, source, dtype, 512)


def greedy(model: LlamaModel, prompt: Sequence[int]) -> list[int]:
    cache = KeyValueCache(model.config, 512, model.dtype)
    ids, done = list(prompt), 0
    for _ in range(TOKENS):
        chunk = Chunk(ids[done:], done, range(32), True)
        logits = model.forward(build_batch([chunk], model.dtype), cache)
        done = len(ids)
        ids.append(int(logits[0].argmax()))
    return ids[len(prompt) :]


def test_packed_as_in_the_file_the_referee_says_what_transformers_says(
    weights: ModelWeights, smollm2_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    prompts = [weights.tokenizer.encode_chat([ChatMessage("user", text)]) for text in PROMPTS]
    reference: Any = AutoModelForCausalLM.from_pretrained(
        smollm2_path.parent, gguf_file=smollm2_path.name, dtype=torch.float32
    )
    wanted = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        output = reference.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOKENS, do_sample=False,
            pad_token_id=2,
        )  # fmt: skip
        wanted.append(output[0, len(prompt) :].tolist())
    del reference
    model = model_of(weights, "int4", torch.float32)
    assert model.size < 0.3 * 4 * weights.config.parameters
    for prompt, answer in zip(prompts, wanted, strict=True):
        assert greedy(model, prompt)[: len(answer)] == answer


def all_logits(model: LlamaModel, ids: Sequence[int], step: int) -> Tensor:
    """After each token of `ids`, fed `step` at a time."""
    cache = KeyValueCache(model.config, len(ids), model.dtype)
    rows = []
    for start in range(0, len(ids), step):
        chunks = [Chunk(ids[start : start + step], start, range(pages_for(len(ids))), True)]
        batch = build_batch(chunks, model.dtype)
        object.__setattr__(batch, "logit_rows", torch.arange(len(batch.token_ids)))
        rows.append(model.forward(batch, cache))
    return torch.cat(rows)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_the_fast_kernels_agree_with_the_referee(
    weights: ModelWeights, precision: Precision
) -> None:
    text = Path(__file__).read_text("utf-8")
    ids = weights.tokenizer.encode_text(text)[:192]
    wanted = all_logits(model_of(weights, precision, torch.float32), ids, 96)
    fast = model_of(weights, precision, torch.bfloat16)
    for step in (96, 16, 1):
        got = all_logits(fast, ids, step)
        agreement = float((got.argmax(-1) == wanted.argmax(-1)).float().mean())
        relative = float((got - wanted).norm() / wanted.norm())
        print(f"{precision}, {step} at a time: top-1 {agreement:.3f}, error {relative:.4f}")  # noqa: T201
        assert agreement > AGREEMENT
        assert relative < 0.03


def text_of(folder: Path, name: str, field: str, rows: int) -> str:
    with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return "\n".join(
            json.loads(line)[field] for _, line in zip(range(rows), lines, strict=False)
        )


def test_four_bits_predict_a_text_as_well_as_the_file(
    smollm2_path: Path, data_folder: Path, tmp_path: Path
) -> None:
    """fp32 computes with the numbers of the file itself; the others as a node computes them."""
    text = text_of(data_folder, "medquad", "a", 60)
    kernels = KernelSettings("auto", tmp_path / "kernels")
    costs = {
        one.precision: one
        for one in measure_precisions(smollm2_path, text, 2048, ["int8", "int4"], kernels)
    }
    assert costs["fp32"].computed_by.startswith("torch")
    for cost in costs.values():
        print(cost)  # noqa: T201
    assert 1 < costs["fp32"].perplexity < 100
    assert 0.98 < costs["int4"].ratio < 1.01
    assert 0.98 < costs["int8"].ratio < 1.01
    assert costs["int4"].weights < 0.38 * 2 * 134_515_008


_CHILD = """
import json, sys
from pathlib import Path
import psutil, torch
torch.set_num_threads(1)
from node.engine.model import LlamaModel
from node.engine.pages import pages_for
from node.engine.weights.scheme import QuantisedSource, activation_type
from node.hosting.memory import return_free_memory
from node.hosting.read import read_model

def own():
    memory = psutil.Process().memory_info()
    return memory.rss - memory.shared

path, precision = Path(sys.argv[1]), sys.argv[2]
weights = read_model(path)
return_free_memory()
before, peaks = own(), []
source = QuantisedSource(weights.stored, weights.config, precision)
model = LlamaModel(weights.config, source, activation_type(precision), 2048,
    lambda _: peaks.append(own() - before))
return_free_memory()
print(json.dumps([own() - before, max(peaks)]))
"""
WITHIN = 0.05


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count pages differently")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8", "int4"])
def test_what_was_predicted_is_resident(
    smollm2_path: Path, weights: ModelWeights, precision: Precision
) -> None:
    """The process's own pages; those of the mapped file, 98 MB, go back when memory is short."""
    done = subprocess.run(  # noqa: S603  (our own interpreter and text)
        [sys.executable, "-c", _CHILD, str(smollm2_path), precision],
        capture_output=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    resident, peak = json.loads(done.stdout)
    predicted = weight_bytes(weights.config, precision, 2048)
    figures = [f"{size / 1e6:.0f} MB" for size in (predicted, resident, peak)]
    print(precision, "predicted, resident, while loading:", *figures)  # noqa: T201
    assert abs(resident - predicted) < WITHIN * predicted
    assert peak < predicted + footprint_work(weights)


def footprint_work(weights: ModelWeights) -> int:
    return footprint(Load(Path(), weights.config, 1, 1), "int4").work
