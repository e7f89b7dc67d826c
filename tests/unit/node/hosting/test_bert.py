"""BERT by torch against transformers, on a small random model."""

import threading
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import BertConfig, BertModel

from node.hosting.bert import TorchBert, bf16_bert, threads_of
from node.hosting.encoder_file import Affine, BertLayer, BertWeights, Norm

HEADS, TOKENS = 4, 13


@pytest.fixture(scope="module")
def reference() -> Any:
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=HEADS,
        intermediate_size=64,
        max_position_embeddings=TOKENS,
        layer_norm_eps=1e-12,
        initializer_range=0.3,
    )
    model: Any = BertModel(config, add_pooling_layer=False)
    model.eval()
    for one in model.parameters():  # biases and norms are 0 and 1 when they are new
        one.data += 0.1 * torch.randn_like(one)
    return model


def array(tensor: torch.Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = tensor.detach().numpy()
    return found


def affine(linear: Any) -> Affine:
    return Affine(array(linear.weight).T, array(linear.bias))


def norm(one: Any) -> Norm:
    return Norm(array(one.weight), array(one.bias))


def weights(model: Any) -> BertWeights:
    front = model.embeddings
    words = array(front.word_embeddings.weight)
    return BertWeights(
        words=words,
        word_scales=np.ones((len(words), 1), np.float32),
        positions=array(front.position_embeddings.weight)
        + array(front.token_type_embeddings.weight)[0],
        norm=norm(front.LayerNorm),
        layers=tuple(
            BertLayer(
                query=affine(one.attention.self.query),
                key=affine(one.attention.self.key),
                value=affine(one.attention.self.value),
                output=affine(one.attention.output.dense),
                attended=norm(one.attention.output.LayerNorm),
                up=affine(one.intermediate.dense),
                down=affine(one.output.dense),
                done=norm(one.output.LayerNorm),
            )
            for one in model.encoder.layer
        ),
        epsilon=1e-12,
    )


@pytest.mark.parametrize("tokens", [1, 2, TOKENS])
def test_fp32_states_are_those_of_transformers(reference: Any, tokens: int) -> None:
    ids = np.random.default_rng(tokens).integers(0, 50, tokens)
    with torch.inference_mode():
        wanted = reference(torch.from_numpy(ids)[None]).last_hidden_state[0].numpy()
    found = TorchBert(weights(reference), HEADS, torch.float32)(ids)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_bf16_states_are_near(reference: Any) -> None:
    ids = np.arange(TOKENS)
    exact = TorchBert(weights(reference), HEADS, torch.float32)(ids)
    found = TorchBert(weights(reference), HEADS, torch.bfloat16)(ids)
    assert found.dtype == np.float32
    cosines = (exact * found).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(found, axis=1)
    assert cosines.min() > 0.99


def test_words_in_eight_bits_count_with_their_scales(reference: Any) -> None:
    plain = weights(reference)
    scales = np.abs(plain.words).max(axis=1, keepdims=True) / 127
    words = np.round(plain.words / scales).astype(np.int8)
    names = {name: getattr(plain, name) for name in ("positions", "norm", "layers", "epsilon")}
    ids = np.arange(TOKENS)
    found = TorchBert(BertWeights(words, scales, **names), HEADS, torch.float32)(ids)
    same = TorchBert(
        BertWeights(words * scales, np.ones_like(scales), **names), HEADS, torch.float32
    )(ids)
    np.testing.assert_allclose(found, same, atol=1e-6)


def test_heads_that_do_not_fit_are_refused(reference: Any) -> None:
    with pytest.raises(ValueError, match="5 heads"):
        TorchBert(weights(reference), 5, torch.float32)


def test_the_worker_has_its_own_number_of_threads() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        pool = threads_of(2)
        seen: list[int] = []
        other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        other.start()
        other.join()
        assert (torch.get_num_threads(), seen) == (3, [3])
        torch.set_num_threads(4)
        assert pool.submit(torch.get_num_threads).result() == 2
    finally:
        torch.set_num_threads(before)


def test_without_instructions_for_bf16_nothing_is_even_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read() -> BertWeights:
        raise AssertionError("the file was read in vain")

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "amx_bf16": False})
    assert bf16_bert(read, HEADS, 1) is None
