import asyncio
from pathlib import Path

import numpy as np
import pytest

from node.hosting.encoder import MiniLmEncoder
from node.hosting.fetch import default_encoder_paths
from protocols.errors import ModelFileError


@pytest.fixture(scope="module")
def encoder(models_dir: Path) -> MiniLmEncoder:
    paths = default_encoder_paths(models_dir)
    if not paths.exist:
        pytest.skip(f"no sentence encoder in {models_dir}: run scripts/test, which fetches it")
    return MiniLmEncoder(paths.model, paths.tokenizer)


@pytest.mark.integration
async def test_near_sentences_have_near_directions(encoder: MiniLmEncoder) -> None:
    vectors = await encoder.encode(
        ["How do I bake bread?", "A recipe for a loaf of bread", "The theorem has a short proof"]
    )
    assert vectors.shape == (3, 384)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    near, far = float(vectors[0] @ vectors[1]), float(vectors[0] @ vectors[2])
    assert near > 0.6
    assert far < 0.2


@pytest.mark.integration
async def test_a_direction_depends_on_its_text_only(encoder: MiniLmEncoder) -> None:
    texts = ["short", "a much longer sentence about trains " * 60, "日本語", ""]
    together = await encoder.encode(texts)
    apart = await asyncio.gather(*(encoder.encode([text]) for text in texts))
    assert np.array_equal(together, np.concatenate(apart))


@pytest.mark.integration
async def test_only_the_beginning_of_a_long_text_counts(encoder: MiniLmEncoder) -> None:
    start = "word " * 254
    first, second = await encoder.encode([start + "and this", start + "and that"])
    assert np.array_equal(first, second)


@pytest.mark.integration
def test_the_digest_is_a_sha256(encoder: MiniLmEncoder) -> None:
    assert len(bytes.fromhex(encoder.digest)) == 32


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    model, tokenizer = tmp_path / "model.onnx", tmp_path / "tokenizer.json"
    with pytest.raises(ModelFileError, match=r"model\.onnx"):
        MiniLmEncoder(model, tokenizer)
    model.write_bytes(b"not a model")
    tokenizer.write_text("{}")
    with pytest.raises(ModelFileError, match="Get it again"):
        MiniLmEncoder(model, tokenizer)
