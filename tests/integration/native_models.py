"""Small random models for the compiled step, and the build that they run on."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from node.engine.batch import Chunk
from node.engine.config import LlamaConfig
from node.engine.model import LlamaModel
from node.engine.native.build import BuildSettings, native_library
from node.engine.native.library import NativeLibrary
from node.engine.native.model import NativeModel, NativeOptions, NativeRunner
from node.engine.native.reasons import NativeUnfit
from node.engine.pages import pages_for
from node.engine.weights.scheme import Precision, QuantisedSource

POSITIONS = 640
PAGES = pages_for(POSITIONS)


class RandomWeights:
    """Numbers as large as those of trained models, so that errors are too."""

    def __init__(self, config: LlamaConfig, seed: int) -> None:
        self._shapes = config.tensor_shapes()
        self._seed = seed

    def read(self, name: str) -> Tensor:
        shape = self._shapes[name]
        generator = torch.Generator().manual_seed(self._seed + sum(name.encode()))
        if len(shape) == 1:
            return 1 + 0.1 * torch.randn(shape, generator=generator)
        scale = 1.0 if name == "embedding" else 1 / math.sqrt(shape[1])
        return torch.randn(shape, generator=generator) * scale


def config_of(
    heads: int, kv_heads: int, dimension: int, hidden: int = 96, vocabulary: int = 509
) -> LlamaConfig:
    return LlamaConfig(
        vocabulary_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=160,
        layers=2,
        heads=heads,
        kv_heads=kv_heads,
        head_dimension=dimension,
        context_length=POSITIONS,
        norm_epsilon=1e-5,
        rope_theta=10_000.0,
    )


def built(folder: Path, *, is_wide: bool = True) -> NativeLibrary:
    """For this machine, or for one that has AVX2 and no more."""
    settings = BuildSettings(folder)
    if not is_wide:
        flags = [flag for flag in settings.flags if not flag.startswith("-march")]
        settings = BuildSettings(folder, flags=(*flags, "-mavx2", "-mfma", "-mf16c"))
    try:
        return native_library(settings)
    except NativeUnfit as reason:
        if "cannot compile" in str(reason):
            raise
        pytest.skip(f"no native kernels: {reason}")


def native(
    library: NativeLibrary,
    config: LlamaConfig,
    precision: Precision,
    *,
    threads: int = 2,
    may_use_tiles: bool = True,
) -> NativeModel:
    source = QuantisedSource(RandomWeights(config, 5), config, precision)
    options = NativeOptions(precision, POSITIONS, threads, may_use_tiles)
    return NativeModel(config, source, library, options)


def referee(config: LlamaConfig, precision: Precision) -> LlamaModel:
    """fp32 with the numbers that the packed weights stand for."""
    source = QuantisedSource(RandomWeights(config, 5), config, precision)
    return LlamaModel(config, source, torch.float32, POSITIONS)


def tokens_of(config: LlamaConfig, count: int, seed: int = 1) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(config.vocabulary_size, (count,), generator=generator).tolist()


def all_logits(
    runner: NativeRunner, ids: Sequence[int], steps: Sequence[int], pages: Sequence[int]
) -> Tensor:
    """After each token of `ids`, of which the next of `steps` are fed at a time."""
    rows, done = [], 0
    for step in steps:
        part = ids[done : done + step]
        rows.append(runner.logits([Chunk(part, done, pages, 1)], range(len(part))))
        done += len(part)
    assert done == len(ids)
    return torch.cat(rows)
