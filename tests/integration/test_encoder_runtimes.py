"""The encoder's file by torch in bf16 and by onnxruntime: who made a card must not matter."""

from pathlib import Path

import numpy as np
import pytest
import torch

from node.hosting.bert import TorchBert
from node.hosting.encoder import MiniLmEncoder
from node.hosting.encoder_file import read_bert
from node.hosting.encoder_session import OnnxStates
from node.hosting.fetch import EncoderPaths, default_encoder_paths

pytestmark = [pytest.mark.integration, pytest.mark.slow]

TEXTS = (
    "Is a verbal agreement a binding contract?",
    "hi",
    "",
    "Solve 3x + 7 = 22 for x. Then explain, step by step, why dividing by zero is not allowed.",
    "def reverse(text):\n    return text[::-1]\n\nWhy does this work for 日本語 too?",
    "A patient has fever and chest pain. What is the likely diagnosis? " * 60,
)


@pytest.fixture(scope="module")
def paths(models_dir: Path) -> EncoderPaths:
    found = default_encoder_paths(models_dir)
    if not found.exist:
        pytest.skip(f"no sentence encoder in {models_dir}: run scripts/test, which fetches it")
    return found


async def test_both_runtimes_give_the_same_directions(paths: EncoderPaths) -> None:
    quick = MiniLmEncoder(paths.model, paths.tokenizer)
    referee = MiniLmEncoder(paths.model, paths.tokenizer, runtime="onnx")
    assert quick.digest == referee.digest
    assert referee.about == "onnxruntime, fp32"
    for text in TEXTS:
        parts = [(0, len(text) // 3), (len(text) // 3, len(text))]
        found, wanted = [await one.encode_prompt(text, parts) for one in (quick, referee)]
        assert float(found.whole @ wanted.whole) > 0.9995
        seen = wanted.parts.any(axis=1)
        assert np.array_equal(found.parts.any(axis=1), seen)
        assert ((found.parts * wanted.parts).sum(axis=1)[seen] > 0.9995).all()


def test_in_fp32_torch_computes_what_onnxruntime_does(paths: EncoderPaths) -> None:
    exact = TorchBert(read_bert(paths.model.read_bytes()), 12, torch.float32)
    referee = OnnxStates(paths.model)
    for tokens in (1, 40, 512):
        ids = np.random.default_rng(tokens).integers(1000, 30_000, tokens)
        np.testing.assert_allclose(exact(ids), referee(ids), atol=5e-5)
