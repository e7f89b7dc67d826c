"""An adapter as a specialist of its own on a running base: its names, its size, where it begins.

Knows files and memory; must not know the engine's thread.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import psutil

from node.engine.adapters.frozen import MakeA, frozen_a
from node.engine.adapters.weights import Adapter, start_of
from node.engine.base import AdapterUse
from node.engine.config import LlamaConfig
from node.engine.weights.scheme import Precision, activation_type
from node.hosting.adapters import read_adapter
from node.hosting.weights import name_from
from node.quantities import format_size
from protocols.errors import ModelFileError
from protocols.ids import Digest


@dataclass(frozen=True, slots=True)
class HostedAdapter:
    """What is known of a loaded adapter. `size` in bytes counts an A that others share too."""

    name: str
    digest: Digest
    invocation: tuple[int, ...]
    parameters: int
    size: int

    def use_for(self, prompt: tuple[int, ...]) -> AdapterUse | None:
        """How a request with `prompt` uses it; an activated one that is not invoked, not at all."""
        start = start_of(self.invocation, prompt)
        return None if start is None else AdapterUse(self.digest, start)


@dataclass(frozen=True, slots=True)
class FittingAdapter:
    """An adapter that was read, and for which there is room."""

    weights: Adapter
    hosted: HostedAdapter


def fit_adapter(
    folder: Path, config: LlamaConfig, precision: Precision, make_a: MakeA = frozen_a
) -> FittingAdapter:
    """The adapter in `folder` for a base in `precision`; `ModelFileError` if there is no room."""
    adapter = read_adapter(folder, config, make_a)
    size = adapter.parameters * activation_type(precision).itemsize
    available = psutil.virtual_memory().available
    if size > available:
        raise ModelFileError(
            f"{folder} needs {format_size(size)} of memory, but {format_size(available)} is free."
        )
    hosted = HostedAdapter(
        name=name_from(folder.resolve().name),
        digest=Digest(adapter.digest),
        invocation=adapter.invocation,
        parameters=adapter.parameters,
        size=size,
    )
    return FittingAdapter(adapter, hosted)


def adapted_digest(base: Digest, adapter: Digest) -> Digest:
    """Names a base with an adapter: replicas that have both continue each other's answers."""
    return Digest(hashlib.sha256(f"dslm-adapted-1 {base} {adapter}".encode()).hexdigest())
