"""Each family of models with adapters and with drafts, in chunks and from the cache: fp32.

One batch has an adapter on every matrix, another one and none, as transformers has them merged.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from node.engine.adapters.registry import AdapterSet
from node.engine.base import AdapterUse, EngineRequest
from node.engine.model import LlamaModel
from node.engine.torch_engine import EngineOptions, TorchEngine
from node.hosting.read import read_model
from protocols.messages.ask import Sampling
from tests.unit.node.engine.adapters.adapter_referee import merged_greedy, random_adapter
from tests.unit.node.engine.test_speculated_identity import Oracle, generated, ids
from tests.unit.node.hosting.family_models import CASES, build
from tests.unit.node.hosting.test_families import CONTEXT, assert_greedy, prompts

QUICK = {"qwen3"}
TOKENS = 32


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=() if one in QUICK else pytest.mark.slow) for one in CASES]
)
def test_adapters_and_drafts_in_one_batch(name: str, tmp_path: Path, small_bpe: Any) -> None:
    judge = build(CASES[name])
    judge.save_pretrained(tmp_path)
    small_bpe.save(str(tmp_path / "tokenizer.json"))
    weights = read_model(tmp_path)
    model = LlamaModel(weights.config, weights.tensors, torch.float32, CONTEXT)
    loaded = AdapterSet(weights.config, torch.float32)
    both = [random_adapter(weights.config, seed, shared_a=7) for seed in (1, 2)]
    for adapter in both:
        loaded.load(adapter)
    short, _, long, alike = prompts()
    asked = [(both[0], short), (both[0], long), (both[1], alike), (None, alike), (None, short)]
    batch = [
        EngineRequest(
            str(number),
            prompt,
            TOKENS,
            Sampling(),
            frozenset(),
            adapter=AdapterUse(adapter.digest, 0) if adapter else None,
        )
        for number, (adapter, prompt) in enumerate(asked)
    ]
    wanted = {
        one.request_id: merged_greedy(judge, adapter, one.prompt, TOKENS)
        for one, (adapter, _) in zip(batch, asked, strict=True)
        if adapter is not None
    }
    options = EngineOptions(CONTEXT, 2048, 16, step_tokens=29)
    plain = TorchEngine(model, options, loaded)
    wanted = ids(generated(plain, batch)) | wanted
    for one in batch[3:]:
        assert_greedy(judge, one.prompt, wanted[one.request_id])
    assert len({tuple(answer) for answer in wanted.values()}) == len(batch)
    guessing = TorchEngine(model, options, loaded, drafters=[Oracle(wanted)], clock=lambda: 0.0)
    for engine in (plain, guessing, guessing):
        assert ids(generated(engine, batch)) == wanted
        assert engine.statistics().prefix_hit_tokens > 0 or engine is guessing
    statistics = guessing.statistics()
    assert statistics.prefix_hit_tokens > 0
    assert 0 < statistics.accepted_tokens < statistics.drafted_tokens
