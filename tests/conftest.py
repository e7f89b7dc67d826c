"""Fixtures for all tests: where the real model is, and what to print when it is not there."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """The folder into which `scripts/test` fetches models; shared with daily use."""
    import platformdirs

    override = os.environ.get("DSLM_MODELS_DIR")
    return Path(override) if override else platformdirs.user_cache_path("dslm") / "models"


@pytest.fixture(scope="session")
def smollm2_path(models_dir: Path) -> Path:
    """SmolLM2-135M-Instruct as GGUF; skips when `scripts/test` has not fetched it."""
    from node.hosting.fetch import default_model_path

    path = default_model_path(models_dir)
    if not path.exists():
        pytest.skip(f"the default model is not at {path}: run scripts/test, which fetches it")
    return path
