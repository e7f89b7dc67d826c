"""What is trained is what is served: the trainer's forward pass and the engine's are the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from node.engine.adapters.frozen import frozen_a
from node.engine.adapters.registry import BASE, AdapterSet
from node.engine.batch import Chunk, build_batch
from node.engine.cache import KeyValueCache
from node.engine.model import LlamaModel
from node.engine.pages import pages_for
from node.hosting.adapters import read_adapter
from node.hosting.compact_adapter import CompactConfig, compact_a
from node.hosting.weights import ModelWeights
from node.training.base import FrozenBase
from node.training.batches import make_batch, scoring_batches, training_batches
from node.training.examples import ChatFormat, Example, TokenRow
from node.training.export import load_adapter, round_to_bytes, save_adapter
from node.training.fit import Progress, Settings, Trainer, rate
from node.training.forward import applied, hidden_states
from node.training.generate import generate
from node.training.low_rank import AdapterShape, LowRankParameters
from node.training.score import score

Sums = Callable[[int], list[tuple[str, str]]]
SHAPE = AdapterShape(seed=7, rank=4)


def some_rows(tiny: ModelWeights, sums: Sums, count: int = 32) -> list[TokenRow]:
    return ChatFormat(tiny.tokenizer).rows([Example(q, a) for q, a in sums(count)], 128)


def random_b(base: FrozenBase, shape: AdapterShape) -> LowRankParameters:
    adapter = LowRankParameters(base.config, shape, base.device, base.dtype)
    torch.manual_seed(3)
    for b in adapter:
        b.data.normal_(0, 0.3)
    return adapter


def engine_logits(
    tiny: ModelWeights, folder: Path | None, ids: list[int], start: int = 0
) -> torch.Tensor:
    """Of all positions, by the engine in fp32, the adapter from token `start` on."""
    model = LlamaModel(tiny.config, tiny.tensors, torch.float32, 256)
    adapters = AdapterSet(tiny.config, torch.float32)
    column = [BASE] * len(ids)
    if folder is not None:
        adapter = read_adapter(folder, tiny.config)
        adapters.load(adapter)
        column[start:] = [adapters.acquire(adapter.digest)] * (len(ids) - start)
    cache = KeyValueCache(tiny.config, len(ids), torch.float32)
    chunk = Chunk(ids, 0, range(pages_for(len(ids))), logits=len(ids))
    batch = build_batch([chunk], torch.float32)
    return model.forward(batch, cache, adapters.plan(column))


@pytest.mark.parametrize("a_for", ["input", "weight"])
@pytest.mark.parametrize("activated", [False, True])
def test_the_engine_computes_what_was_trained(
    tiny: ModelWeights,
    tiny_base: FrozenBase,
    sums: Sums,
    tmp_path: Path,
    a_for: Any,
    activated: bool,
) -> None:
    adapter = random_b(tiny_base, AdapterShape(seed=7, rank=4, a_for=a_for))
    round_to_bytes(adapter)
    save_adapter(tmp_path, adapter, base_digest=tiny.digest, licence="Apache-2.0")
    rows = some_rows(tiny, sums, 3)
    batch = make_batch(rows, "token", 1.0)
    begins = batch.begins if activated else None
    on = applied(adapter, begins, batch.ids.shape[1])
    logits = hidden_states(tiny_base, batch.ids, on) @ tiny_base.head.t()
    logits = logits.detach().view(*batch.ids.shape, -1)
    for index, row in enumerate(rows):
        ids = row.ids.tolist()
        served = engine_logits(tiny, tmp_path, ids, row.header if activated else 0)
        torch.testing.assert_close(logits[index, : len(ids)], served, rtol=1e-3, atol=2e-3)
        assert torch.equal(logits[index, : len(ids)].argmax(-1), served.argmax(-1))
    plain = hidden_states(tiny_base, batch.ids) @ tiny_base.head.t()
    assert not torch.allclose(plain.view_as(logits), logits, atol=0.1)


def test_a_is_the_engines(tiny: ModelWeights) -> None:
    adapter = LowRankParameters(tiny.config, SHAPE, torch.device("cpu"), torch.float32)
    settings = CompactConfig(format="dslm-adapter-1", seed=7, rank=4, scale=2.0)
    for part, product in (("key", "query_key_value"), ("up", "gate_up"), ("down", "down")):
        served = compact_a(settings, tiny.config, 1, part)  # type: ignore[arg-type]
        assert torch.equal(adapter.a[1, product], 2 * served)  # type: ignore[index]
    down = compact_a(settings, tiny.config, 1, "down")
    assert torch.equal(down, frozen_a(7, "layers.1.down", 4, 96))


@pytest.mark.parametrize("a_for", ["input", "weight"])
def test_an_adapter_survives_its_folder(tiny_base: FrozenBase, tmp_path: Path, a_for: str) -> None:
    adapter = random_b(tiny_base, AdapterShape(seed=7, rank=4, a_for=a_for))  # type: ignore[arg-type]
    round_to_bytes(adapter)
    save_adapter(tmp_path, adapter, base_digest="", licence="MIT")
    again = load_adapter(tmp_path, tiny_base)
    assert again.shape == adapter.shape
    for before, after in zip(adapter.masked().values(), again.masked().values(), strict=True):
        torch.testing.assert_close(before, after)


def test_gradients_are_those_of_plain_lora(
    tiny_base: FrozenBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = torch.arange(40).view(2, 20) + 5
    begins = torch.tensor([3, 11])
    wanted = torch.randn(40, 64, generator=torch.Generator().manual_seed(1))

    def gradients() -> list[torch.Tensor]:
        adapter = random_b(tiny_base, AdapterShape(seed=7, rank=4, a_for="weight"))
        hidden = hidden_states(tiny_base, ids, applied(adapter, begins, 20))
        (hidden * wanted).sum().backward()  # type: ignore[no-untyped-call]
        return [b.grad for b in adapter if b.grad is not None]

    ours = gradients()
    monkeypatch.setattr(
        "node.training.forward.adapted_product",
        lambda rows, weight, pair, gate: (
            rows @ weight.t() + ((rows @ pair[0].t()) * gate) @ pair[1].t()
        ),
    )
    plain = gradients()
    assert len(ours) == len(plain) == 8
    for own, reference in zip(ours, plain, strict=True):
        torch.testing.assert_close(own, reference, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_training_learns_and_is_repeatable(
    tiny: ModelWeights, tiny_base: FrozenBase, sums: Sums
) -> None:
    rows = some_rows(tiny, sums)
    settings = Settings(
        learning_rate=4e-2, epochs=4, batch=8, shape=SHAPE, dropped=0.1, decay="cosine"
    )
    heard: list[Progress] = []
    trainer = Trainer(tiny_base, SHAPE, is_captured=False)
    adapter = trainer.fit(lambda _: rows, settings, 1, lambda p, _: heard.append(p))
    again = trainer.fit(lambda _: rows, settings, 1)
    before = score(tiny_base, None, rows).per_token
    after = score(tiny_base, adapter, rows).per_token
    assert after < before - 1
    assert [one.step for one in heard] == [4, 8, 12, 16]
    assert all(torch.equal(a, b) for a, b in zip(adapter, again, strict=True))


def test_scores_are_the_engines(tiny: ModelWeights, tiny_base: FrozenBase, sums: Sums) -> None:
    rows = some_rows(tiny, sums, 7)
    found = score(tiny_base, None, rows, tokens=100)
    ids = rows[5].ids.tolist()
    surprise = -engine_logits(tiny, None, ids).log_softmax(-1)
    at = range(rows[5].answer, len(ids))
    expected = sum(float(surprise[i - 1, ids[i]]) for i in at)
    assert found.nats[5] == pytest.approx(expected, rel=1e-3)
    assert found.tokens.tolist() == [row.answer_tokens for row in rows]


def test_greedy_answers_are_those_of_one_row_alone(
    tiny: ModelWeights, tiny_base: FrozenBase, sums: Sums
) -> None:
    rows = some_rows(tiny, sums, 4)
    adapter = random_b(tiny_base, SHAPE)
    together = generate(tiny_base, adapter, rows, end=2, longest=9, activated=True)
    for row, answer in zip(rows, together, strict=True):
        ids = row.ids[: row.answer].tolist()
        alone: list[int] = []
        while len(alone) < 9:
            on = applied(adapter, torch.tensor([row.header]), len(ids))
            hidden = hidden_states(tiny_base, torch.tensor([ids]), on)[-1].detach()
            token = int((hidden @ tiny_base.head.t()).argmax())
            if token == 2:
                break
            alone.append(token)
            ids.append(token)
        assert answer == alone


def test_every_row_comes_once_an_epoch(tiny: ModelWeights, sums: Sums) -> None:
    rows = some_rows(tiny, sums, 40)
    rng = np.random.default_rng(0)
    batches = list(training_batches(rows, 8, "example", rng))
    assert sum(len(batch.ids) for batch in batches) == 40
    assert [round(float(batch.weights.sum()), 4) for batch in batches] == [1.0] * 5
    seen = np.concatenate([order for order, _ in scoring_batches(rows, 200)])
    assert sorted(seen.tolist()) == list(range(40))


def test_padding_to_few_shapes_changes_nothing(
    tiny: ModelWeights, tiny_base: FrozenBase, sums: Sums
) -> None:
    rows = some_rows(tiny, sums, 5)
    plain = make_batch(rows, "token", 3.0)
    padded = make_batch(rows, "token", 3.0, few_shapes=True)
    assert padded.shape[1] % 32 == 0
    assert len(padded.where) * 4 % padded.ids.numel() == 0
    losses = []
    for batch in (plain, padded):
        hidden = hidden_states(tiny_base, batch.ids)[batch.where]
        surprise = torch.nn.functional.cross_entropy(
            hidden @ tiny_base.head.t(), batch.targets, reduction="none"
        )
        losses.append(float((surprise * batch.weights).sum()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_rows_are_the_chat_format_and_are_cut_where_they_are_long(tiny: ModelWeights) -> None:
    form = ChatFormat(tiny.tokenizer)
    short, long = form.rows([Example("the cat", "mat"), Example("the cat " * 90, "mat")], 64)
    text = tiny.tokenizer.tokenizer.decode(short.ids.tolist(), skip_special_tokens=False)
    assert text == "<|im_start|>user\nthe cat<|im_end|>\n<|im_start|>assistant\nmat<|im_end|>"
    assert tuple(short.ids[short.header : short.answer]) == form.header
    assert len(long.ids) == 64
    assert long.ids[long.answer :].tolist() == short.ids[short.answer :].tolist()


def test_the_rate_rises_and_falls() -> None:
    for decay in ("linear", "cosine"):
        settings = Settings(decay=decay)
        rates = [rate(step, 100, settings) for step in range(100)]
        assert rates.index(max(rates)) in (7, 8)
        assert rates[0] == pytest.approx(1 / 8)
        assert 0 < rates[99] < 0.02
