"""What tests with the real model and the real data share."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from node.hosting.weights import ModelWeights


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Threads that spin for each other crawl on a machine that is busy with other things."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def weights(smollm2_path: Path) -> "ModelWeights":
    """The real model's, as its file has them."""
    from node.hosting.read import read_model

    return read_model(smollm2_path)
