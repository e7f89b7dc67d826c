"""`dslm perplexity` and what it measures, on a model of random weights."""

import gzip
import json
import math
from pathlib import Path

import pytest
import torch

from node.cli.app import main
from node.engine.config import LlamaConfig
from node.engine.model import LlamaModel
from node.engine.perplexity import perplexity
from tests.fuzz import model_files


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(model_files.gguf_bytes())
    return path


def run(*arguments: str) -> int:
    return main(["perplexity", *arguments])


def test_each_precision_is_told(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.gz"
    text.write_bytes(gzip.compress(b"ab a b ab " * 20))
    home = ("--home", str(tmp_path / "home"))
    assert run(str(model), str(text), "--json", *home) == 0
    costs = json.loads(capsys.readouterr().out)["costs"]
    assert [one["precision"] for one in costs] == ["fp32", "bf16", "int8", "int4"]
    assert costs[0]["ratio"] == 1.0
    assert costs[0]["computed_by"].startswith("torch")
    assert all(one["computed_by"] for one in costs)
    assert all(math.isfinite(one["perplexity"]) for one in costs)
    assert run(str(model), str(text), "--precision", "int8", *home) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["precision", "fp32", "int8"]


def test_mistakes_are_told(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = ("--home", str(tmp_path / "home"))
    short, binary = tmp_path / "short", tmp_path / "binary.gz"
    short.write_text("")
    binary.write_bytes(b"\x1f\x8b\x00")
    assert run(str(model), str(short), *home) == 1
    assert "too short" in capsys.readouterr().err
    for path in (binary, tmp_path / "none"):
        assert run(str(model), str(path), *home) == 1
        assert str(path) in capsys.readouterr().err
    assert run(str(model), str(short), "--precision", "int3", *home) == 2
    assert "int8 or int4" in capsys.readouterr().err


class Constant:
    """Weights that make every token equally likely."""

    def __init__(self, config: LlamaConfig) -> None:
        self._shapes = config.tensor_shapes()

    def read(self, name: str) -> torch.Tensor:
        return torch.zeros(self._shapes[name])


def test_who_knows_nothing_is_as_perplexed_as_there_are_tokens() -> None:
    config = LlamaConfig(50, 32, 32, 1, 2, 1, 16, 64, 1e-5, 1e4)
    model = LlamaModel(config, Constant(config), torch.float32, 64)
    for window in (64, 7):
        assert perplexity(model, [3, 1, 4, 1, 5] * 40, window) == pytest.approx(50, rel=1e-4)
    with pytest.raises(ValueError, match="two tokens"):
        perplexity(model, [3], 64)
