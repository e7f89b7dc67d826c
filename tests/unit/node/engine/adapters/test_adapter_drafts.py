"""Adapters and drafts in one batch: every answer is what transformers says with the adapter, fp32.

Drafts come from somebody who knows the answers and errs now and then; with each feature of the
cache and the scheduler, and with all at once.
"""

from itertools import combinations

import pytest
import torch

from node.engine.adapters.registry import AdapterSet
from node.engine.base import AdapterUse, EngineRequest
from node.engine.torch_engine import EngineOptions, TorchEngine
from protocols.messages.ask import Sampling
from tests.effort import few
from tests.unit.node.engine.adapters.test_adapter_identity import (
    KINDS,
    TOKENS,
    Case,
    adapters,
    cases,
    model,
)
from tests.unit.node.engine.conftest import TINY
from tests.unit.node.engine.test_paged_identity import scatter
from tests.unit.node.engine.test_speculated_identity import Oracle, generated, ids

FEATURES = ("scattered", "chunked", "cached", "preempted", "packed")
SETS = [set(names) for size in (4, 5, 0, 1, 2) for names in combinations(FEATURES, size)]


def requests(batch: list[Case]) -> list[EngineRequest]:
    return [
        EngineRequest(
            str(number),
            case.prompt,
            TOKENS,
            Sampling(),
            frozenset(),
            adapter=AdapterUse(case.adapter.digest, case.start) if case.adapter else None,
        )
        for number, case in enumerate(batch)
    ]


@pytest.mark.parametrize(
    ("kind", "features"),
    [
        pytest.param(
            kind,
            features,
            id="-".join((kind, "+".join(sorted(features)) or "plain")),
            # What transformers says takes most of the time: one kind in the default run.
            marks=() if kind == "activated" and features == SETS[0] else pytest.mark.slow,
        )
        for kind in KINDS
        for features in few(SETS, 4)
    ],
)
def test_drafts_change_no_answer_of_an_adapter(
    kind: str, features: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "scattered" in features:
        scatter(monkeypatch)
    is_packed = "packed" in features
    batch = cases(kind, is_packed)
    wanted = {str(number): case.answer for number, case in enumerate(batch)}
    loaded = AdapterSet(TINY, torch.float32)
    for adapter in adapters(kind):
        loaded.load(adapter)
    engine = TorchEngine(
        model(is_packed),
        EngineOptions(128, 1024, 16, 24 if "chunked" in features else 256),
        loaded,
        drafters=[Oracle(wanted)],
        clock=lambda: 0.0,
    )
    for _ in range(2 if "cached" in features else 1):
        found = generated(engine, requests(batch), preempts="preempted" in features)
        assert ids(found) == wanted
    statistics = engine.statistics()
    assert 0 < statistics.accepted_tokens < statistics.drafted_tokens
    assert statistics.prefix_hit_tokens > 0 or "cached" not in features
