"""What tests with the real model and the real data share."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from node.engine.native.library import NativeLibrary
    from node.hosting.weights import ModelWeights


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Threads that spin for each other crawl on a machine that is busy with other things."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def kernels_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the compiled step is kept, by all processes of a test run."""
    own = tmp_path_factory.getbasetemp()
    return (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "kernels"


@pytest.fixture(scope="session")
def library(kernels_folder: Path) -> "NativeLibrary":
    """The compiled step for this machine."""
    from tests.integration.native_models import built

    return built(kernels_folder)


@pytest.fixture(scope="module")
def weights(smollm2_path: Path) -> "ModelWeights":
    """The real model's, as its file has them."""
    from node.hosting.read import read_model

    return read_model(smollm2_path)
