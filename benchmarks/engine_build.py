"""How the benchmark gets the engine that a node would have.

Knows hosting's way of loading a model; must not know what is measured.
"""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import torch

from node.config_reader import Overrides, load_process_config
from node.engine.adapters.weights import PRODUCTS, Adapter, LowRank, PartName
from node.engine.base import AdapterUse, Engine, EngineRequest
from node.engine.config import LlamaConfig
from node.engine.torch_engine import SpeculationChoice
from node.engine.weights.scheme import Precision
from node.hosting.hosted import HostedModel, HostedSpec
from node.hosting.kernels import KernelSettings
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
    folder = load_process_config(Overrides()).config.paths.kernels
    choice: SpeculationChoice = "auto" if speculation == "auto" else "off"
    return HostedSpec(
        path,
        SpecialistId("benchmark"),
        precision,
        SLOTS,
        CONTEXT,
        threads,
        kernels=KernelSettings("auto", folder, threads),
        speculation=choice,
    )


def engine_of(hosted: HostedModel) -> Engine:
    """The engine inside; its own thread sleeps for as long as nobody asks through the loop."""
    return hosted.loop._engine  # nobody but a benchmark needs a door to it


def load_adapters(hosted: HostedModel, count: int, rank: int, *, is_a_shared: bool) -> list[str]:
    """Random adapters that change every matrix, on a running model; their digests."""
    digests = []
    for number in range(count):
        adapter = _random_adapter(hosted.config, number, rank, is_a_shared=is_a_shared)
        hosted.adapters.load(adapter)
        digests.append(adapter.digest)
    return digests


def adapted(request: EngineRequest, digest: str) -> EngineRequest:
    """`request` for an adapter that applies from its first token on."""
    return replace(request, adapter=AdapterUse(digest))


def _random_adapter(config: LlamaConfig, number: int, rank: int, *, is_a_shared: bool) -> Adapter:
    random = torch.Generator().manual_seed(number)
    shared = torch.Generator().manual_seed(1000)
    shapes = config.tensor_shapes()
    parts: dict[tuple[int, PartName], LowRank] = {}
    for layer in range(config.layers):
        for product in PRODUCTS.values():
            _, columns = shapes[f"layers.{layer}.{product[0]}"]
            source = shared if is_a_shared else random
            a = torch.randn(rank, columns, generator=source) / columns**0.5
            for part in product:
                rows, _ = shapes[f"layers.{layer}.{part}"]
                b = torch.randn(rows, rank, generator=random) * 0.01
                parts[layer, part] = LowRank(a, b, 1.0)
    kind = "shared" if is_a_shared else "own"
    return Adapter(f"random {number} {rank} {kind}", parts)
