from collections.abc import Callable
from typing import Protocol

import pytest
import torch
from torch import Tensor

from node.engine.base import Engine
from node.engine.config import LlamaConfig
from node.engine.fake import FakeEngine, FakeOptions
from node.engine.model import LlamaModel
from node.engine.torch_engine import EngineOptions, TorchEngine

VOCABULARY = 61
CONTEXT = 128


class RandomWeights:
    """Weights large enough that the tokens of an answer differ and near-ties are rare."""

    def __init__(self, config: LlamaConfig, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._tensors = {
            name: torch.randn(shape, generator=generator) * 0.3 + (1.0 if len(shape) == 1 else 0.0)
            for name, shape in config.tensor_shapes().items()
        }

    def read(self, name: str) -> Tensor:
        return self._tensors[name].clone()


TINY = LlamaConfig(
    vocabulary_size=VOCABULARY,
    hidden_size=32,
    intermediate_size=48,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dimension=8,
    context_length=CONTEXT,
    norm_epsilon=1e-5,
    rope_theta=10_000.0,
)


class MakeEngine(Protocol):
    def __call__(
        self, *, cache_tokens: int = 2048, running: int = 32, step_tokens: int = 16
    ) -> Engine: ...


def make_fake(*, cache_tokens: int = 2048, running: int = 32, step_tokens: int = 16) -> Engine:
    return FakeEngine(FakeOptions(VOCABULARY, CONTEXT, cache_tokens, running, step_tokens))


def make_torch(*, cache_tokens: int = 2048, running: int = 32, step_tokens: int = 16) -> Engine:
    model = LlamaModel(TINY, RandomWeights(TINY, seed=7), torch.float32, CONTEXT)
    return TorchEngine(model, EngineOptions(CONTEXT, cache_tokens, running, step_tokens))


@pytest.fixture(params=[make_fake, make_torch], ids=["fake", "torch"])
def make_engine(request: pytest.FixtureRequest) -> MakeEngine:
    made: MakeEngine = request.param
    return made


@pytest.fixture
def random_weights() -> Callable[[LlamaConfig, int], RandomWeights]:
    return RandomWeights


@pytest.fixture
def tiny_config() -> LlamaConfig:
    return TINY
