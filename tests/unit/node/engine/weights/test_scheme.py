"""Which weights are held how, and that what is predicted is what comes out."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from node.engine.batch import Chunk, build_batch
from node.engine.cache import KeyValueCache
from node.engine.config import LlamaConfig, Variant
from node.engine.model import LlamaModel, TensorSource
from node.engine.weights.packings import Int4Groups, Int8Rows, as_floats
from node.engine.weights.scheme import (
    PRECISIONS,
    Precision,
    QuantisedSource,
    activation_type,
    held_as,
    products,
    weight_bytes,
)

MakeWeights = Callable[[LlamaConfig, int], TensorSource]
IDS = list(range(40))
QWEN2 = Variant(has_input_biases=True)
QWEN3 = Variant(has_query_key_norms=True, has_output_bias=True)
GEMMA3 = Variant(
    has_query_key_norms=True,
    has_output_norms=True,
    has_wide_norms=True,
    activation="gelu_tanh",
    embedding_scale=8.0,
    sliding_window=12,
    sliding_layers=(0,),
    local_rope_theta=100.0,
)
SMOLLM2 = LlamaConfig(49152, 576, 1536, 30, 9, 3, 64, 8192, 1e-5, 1e5)


@pytest.fixture
def config(tiny_config: LlamaConfig) -> LlamaConfig:
    return replace(tiny_config, hidden_size=64, intermediate_size=96, head_dimension=16)


def model_of(
    config: LlamaConfig, source: TensorSource, precision: Precision, dtype: torch.dtype
) -> LlamaModel:
    return LlamaModel(config, QuantisedSource(source, config, precision), dtype, 128)


def logits_of(model: LlamaModel) -> Tensor:
    cache = KeyValueCache(model.config, 64, model.dtype)
    return model.forward(build_batch([Chunk(IDS, 0, range(4), True)], model.dtype), cache)[0]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"tied_embeddings": False},
        {"intermediate_size": 48},
        {"hidden_size": 40},
        {"heads": 2},
        {"variant": QWEN2},
        {"variant": QWEN3},
        {"variant": GEMMA3},
    ],
    ids=str,
)
def test_bytes_are_predicted_exactly(
    config: LlamaConfig, random_weights: MakeWeights, change: dict[str, Any], precision: Precision
) -> None:
    config = replace(config, **change)
    model = model_of(config, random_weights(config, 1), precision, activation_type(precision))
    assert model.size == weight_bytes(config, precision, 128)
    assert torch.isfinite(logits_of(model)).all()


def test_smollm2_takes_what_was_promised() -> None:
    sizes = {one: weight_bytes(SMOLLM2, one, 2048) for one in PRECISIONS}
    assert sizes["bf16"] == 2 * SMOLLM2.parameters + 2 * 2048 * 64 * 2
    assert sizes["int4"] < 0.36 * sizes["bf16"]
    assert sizes["int8"] < 0.51 * sizes["bf16"]


def test_what_has_no_kernel_of_four_bits_is_held_in_eight(config: LlamaConfig) -> None:
    assert {held_as(one, "int4") for one in products(config)} == {"int8", "int4"}
    assert [one.names for one in products(config) if held_as(one, "int4") == "int8"] == [
        ("embedding",)
    ]
    narrow = replace(config, intermediate_size=48)
    assert {one.names[0] for one in products(narrow) if held_as(one, "int4") == "int8"} == {
        "embedding",
        "layers.0.down",
        "layers.1.down",
    }


def test_a_source_packs_matrices_and_leaves_norms(
    config: LlamaConfig, random_weights: MakeWeights
) -> None:
    plain = random_weights(config, 1)
    source = QuantisedSource(plain, config, "int4")
    assert isinstance(source.read("embedding"), Int8Rows)
    assert isinstance(source.read("layers.1.key"), Int4Groups)
    norm = source.read("layers.1.attention_norm")
    assert isinstance(norm, Tensor)
    assert torch.equal(norm, plain.read("layers.1.attention_norm"))


def test_what_is_packed_as_wanted_is_not_packed_again(
    config: LlamaConfig, random_weights: MakeWeights
) -> None:
    once = QuantisedSource(random_weights(config, 1), config, "int4")
    kept: dict[str, object] = {}

    class Noting:
        def read(self, name: str) -> object:
            kept[name] = once.read(name)
            return kept[name]

    twice = QuantisedSource(Noting(), config, "int4")  # type: ignore[arg-type]
    for name in ("embedding", "layers.0.query", "layers.0.down"):
        assert twice.read(name) is kept[name]


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_the_referee_says_what_the_dequantised_weights_say(
    config: LlamaConfig, random_weights: MakeWeights, precision: Precision
) -> None:
    packed = QuantisedSource(random_weights(config, 1), config, precision)

    class Dequantised:
        def read(self, name: str) -> Tensor:
            return as_floats(packed.read(name))

    referee = LlamaModel(config, packed, torch.float32, 128)
    dense = LlamaModel(config, Dequantised(), torch.float32, 128)
    assert torch.equal(logits_of(referee), logits_of(dense))
    assert referee.size < 0.5 * dense.size


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_the_fast_kernels_say_nearly_what_the_referee_says(
    config: LlamaConfig, random_weights: MakeWeights, precision: Precision
) -> None:
    weights = random_weights(config, 1)
    fast = logits_of(model_of(config, weights, precision, torch.bfloat16))
    referee = logits_of(model_of(config, weights, precision, torch.float32))
    assert torch.nn.functional.cosine_similarity(fast, referee, dim=0) > 0.995
