from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from node.engine.config import LlamaConfig
from node.hosting.chat_template import ChatTemplate
from node.hosting.tokenizer import ChatTokenizer
from node.hosting.weights import ModelWeights
from node.training.base import FrozenBase, load_base
from protocols.ids import Digest
from tests.unit.node.hosting.conftest import TEMPLATE, trained_bpe

CONFIG = LlamaConfig(
    vocabulary_size=320,
    hidden_size=64,
    intermediate_size=96,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dimension=16,
    context_length=256,
    norm_epsilon=1e-6,
    rope_theta=10_000.0,
)


class _Random:
    """Weights from their names; large enough that answers vary."""

    def read(self, name: str) -> Tensor:
        shape = CONFIG.tensor_shapes()[name]
        if len(shape) == 1:
            return torch.ones(shape)
        generator = torch.Generator().manual_seed(sum(name.encode()))
        return torch.randn(shape, generator=generator) * 0.16


@pytest.fixture(scope="session")
def tiny() -> ModelWeights:
    return ModelWeights(
        config=CONFIG,
        tensors=_Random(),
        stored=_Random(),
        kept_as=None,
        tokenizer=ChatTokenizer(trained_bpe(), ChatTemplate(TEMPLATE, {}), frozenset({2})),
        digest=Digest("0" * 64),
        name="tiny",
        licence="",
    )


@pytest.fixture(scope="session")
def tiny_base(tiny: ModelWeights) -> FrozenBase:
    return load_base(tiny.config, tiny.tensors, torch.device("cpu"), torch.float32)


@pytest.fixture
def sums() -> Callable[[int], list[tuple[str, str]]]:
    """Made-up rows: questions whose answers follow a rule."""

    def make(count: int) -> list[tuple[str, str]]:
        return [(f"the cat {number % 7}?", f"mat {number % 7}") for number in range(count)]

    return make
