from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from node.hosting.read import read_model
from node.hosting.weights import ModelWeights
from node.training.base import FrozenBase, load_base
from tests.unit.node.hosting.conftest import GgufRecipe, tiny_llama, write_gguf


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    write_gguf(path, tiny_llama(max_position_embeddings=256), GgufRecipe())
    return path


@pytest.fixture(scope="session")
def tiny(tiny_file: Path) -> ModelWeights:
    return read_model(tiny_file)


@pytest.fixture(scope="session")
def tiny_base(tiny: ModelWeights) -> FrozenBase:
    return load_base(tiny.config, tiny.tensors, torch.device("cpu"), torch.float32)


@pytest.fixture
def sums() -> Callable[[int], list[tuple[str, str]]]:
    """Made-up rows: questions whose answers follow a rule."""

    def make(count: int) -> list[tuple[str, str]]:
        return [(f"the cat {number % 7}?", f"mat {number % 7}") for number in range(count)]

    return make
