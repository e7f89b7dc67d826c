"""How the benchmark gets the engine that a node would have.

Knows hosting's way of loading a model; must not know what is measured. What this version of dslm
has no setting for is left alone, and said to be missing.
"""

import importlib
import importlib.util
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import torch

from node.engine.base import Engine, EngineRequest
from node.engine.config import LlamaConfig
from node.engine.weights.scheme import Precision
from node.hosting.hosted import HostedModel, HostedSpec
from node.hosting.read import read_model
from protocols.ids import SpecialistId

SLOTS = 32
CONTEXT = 2048


def precision_of(text: str) -> Precision:
    """`ValueError` for one that there is not."""
    found: Precision
    for found in get_args(Precision):
        if found == text:
            return found
    raise ValueError(f"{text} is no precision")


def spec_of(path: Path, precision: Precision, threads: int, speculation: str) -> HostedSpec:
    """What to host: with compiled kernels where there are any, speculation as asked for."""
    spec = HostedSpec(path, SpecialistId("benchmark"), precision, SLOTS, CONTEXT, threads)
    wanted: dict[str, Any] = {"speculation": speculation}
    if has_module("node.hosting.kernels"):
        kernels = importlib.import_module("node.hosting.kernels")
        wanted["kernels"] = kernels.KernelSettings("auto", _kernel_folder(), threads)
    known = {one.name for one in fields(HostedSpec)}
    return replace(spec, **{name: value for name, value in wanted.items() if name in known})


def lacking() -> dict[str, str]:
    """The orders that need what this version does not have, and what that is."""
    found = {}
    if "speculation" not in {one.name for one in fields(HostedSpec)}:
        found["Continue"] = "HostedSpec has no speculation"
    if "adapter" not in {one.name for one in fields(EngineRequest)}:
        found["Adapted"] = "EngineRequest has no adapter"
    return found


def engine_of(hosted: HostedModel) -> Engine:
    """The engine inside; its own thread sleeps for as long as nobody asks through the loop."""
    return hosted.loop._engine  # nobody but a benchmark needs a door to it


def has_module(name: str) -> bool:
    """Whether there is such a module; its package must exist."""
    return importlib.util.find_spec(name) is not None


def _kernel_folder() -> Path:
    """Where a node keeps compiled kernels."""
    config = importlib.import_module("node.config_reader")
    return Path(config.load_process_config(config.Overrides()).config.paths.kernels)


def load_adapters(
    hosted: HostedModel, path: Path, count: int, rank: int, *, is_a_shared: bool
) -> list[str]:
    """Random adapters that change every matrix, on a running model; their digests."""
    config = read_model(path).config
    known = {one.name for one in fields(HostedModel)}
    assert "adapters" in known
    digests = []
    for number in range(count):
        adapter = _random_adapter(config, number, rank, is_a_shared=is_a_shared)
        hosted.adapters.load(adapter)  # type: ignore[attr-defined, unused-ignore]
        digests.append(str(adapter.digest))
    return digests


def adapted(request: EngineRequest, digest: str) -> EngineRequest:
    """`request` for an adapter that applies from its first token on."""
    base = importlib.import_module("node.engine.base")
    changes: dict[str, Any] = {"adapter": base.AdapterUse(digest)}
    return replace(request, **changes)


def _random_adapter(config: LlamaConfig, number: int, rank: int, *, is_a_shared: bool) -> Any:  # noqa: ANN401
    weights = importlib.import_module("node.engine.adapters.weights")
    random = torch.Generator().manual_seed(number)
    shared = torch.Generator().manual_seed(1000)
    shapes = config.tensor_shapes()
    parts = {}
    for layer in range(config.layers):
        for product in weights.PRODUCTS.values():
            _, columns = shapes[f"layers.{layer}.{product[0]}"]
            source = shared if is_a_shared else random
            a = torch.randn(rank, columns, generator=source) / columns**0.5
            for part in product:
                rows, _ = shapes[f"layers.{layer}.{part}"]
                b = torch.randn(rows, rank, generator=random) * 0.01
                parts[layer, part] = weights.LowRank(a, b, 1.0)
    kind = "shared" if is_a_shared else "own"
    return weights.Adapter(f"random {number} {rank} {kind}", parts)
