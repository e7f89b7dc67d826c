"""A model in memory, ready to answer, and how it gets there.

Knows files, memory and the engine; must not know peers or protocols. `HostedModel` is the
`ServedModel` of the services.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from node.engine.base import EngineRequest, EngineStatistics
from node.engine.loop import EngineLoop, Generation
from node.engine.model import LlamaModel
from node.engine.torch_engine import EngineOptions, SpeculationChoice, TorchEngine
from node.engine.weights.scheme import Precision, QuantisedSource, activation_type
from node.hosting.memory import (
    Load,
    PrecisionChoice,
    cache_bytes,
    choose_precision,
    return_free_memory,
)
from node.hosting.read import read_model
from node.hosting.tokenizer import ChatTokenizer
from node.hosting.weights import ModelWeights
from protocols.ids import Digest, SpecialistId, parse_specialist_id

Progress = Callable[[float], None]
"""Hears the fraction of the weights that is in memory; called from a worker thread."""


@dataclass(frozen=True, slots=True)
class HostedSpec:
    """What to host and how.

    An empty `specialist` takes the file's own name. `slots` answers run at a time, each of up to
    `context_length` tokens (0, or more than the model was made for: as many as that). `threads` 0
    leaves torch's choice. `precision` `auto` is the best that fits into free memory.
    `speculation` is that of `EngineOptions`.
    """

    path: Path
    specialist: SpecialistId
    precision: PrecisionChoice = "fp32"
    slots: int = 8
    context_length: int = 2048
    threads: int = 0
    speculation: SpeculationChoice = "auto"


@dataclass(frozen=True, slots=True)
class HostedModel:
    """A running model. `size` is in bytes, reserved cache included; `weights_size` is not."""

    specialist: SpecialistId
    model_digest: Digest
    base: str
    precision: Precision
    context_length: int
    parameters: int
    size: int
    weights_size: int
    licence: str
    slots: int
    tokenizer: ChatTokenizer
    loop: EngineLoop

    @property
    def healthy(self) -> bool:
        """As `EngineLoop.healthy`."""
        return self.loop.healthy

    def generate(self, request: EngineRequest) -> Generation:
        """As `EngineLoop.submit`."""
        return self.loop.submit(request)

    def statistics(self) -> EngineStatistics:
        """As `EngineLoop.statistics`."""
        return self.loop.statistics()

    async def close(self) -> None:
        """As `EngineLoop.close`."""
        await self.loop.close()


async def load_model(spec: HostedSpec, progress: Progress = lambda _fraction: None) -> HostedModel:
    """Read a model in a worker thread and start its engine.

    `ModelFileError` when it cannot be read, is of no kind we can compute, or needs more memory
    than is free (with the figures); nothing of it stays in memory then.
    """
    hosted = await asyncio.to_thread(_load, spec, progress)
    await asyncio.to_thread(return_free_memory)
    await hosted.loop.start()
    return hosted


def _load(spec: HostedSpec, progress: Progress) -> HostedModel:
    weights = read_model(spec.path)
    config = weights.config
    specialist = parse_specialist_id(spec.specialist or weights.name)
    context_length = min(spec.context_length or config.context_length, config.context_length)
    available = psutil.virtual_memory().available
    load = Load(spec.path, config, spec.slots, context_length)
    precision = choose_precision(spec.precision, weights.kept_as, load, available)
    model = _model(weights, precision, context_length, progress)
    cache_tokens = load.cache_tokens
    options = EngineOptions(
        context_length=context_length,
        cache_tokens=cache_tokens,
        running=spec.slots,
        threads=spec.threads,
        speculation=spec.speculation,
        model=f"{weights.digest} {precision} layers 0-{config.layers}",
    )
    return HostedModel(
        specialist=specialist,
        model_digest=weights.digest,
        base=weights.name,
        precision=precision,
        context_length=context_length,
        parameters=config.parameters,
        size=model.size + cache_bytes(config, cache_tokens, precision),
        weights_size=model.size,
        licence=weights.licence,
        slots=spec.slots,
        tokenizer=weights.tokenizer,
        loop=EngineLoop(TorchEngine(model, options), name=f"engine {specialist}"),
    )


def _model(
    weights: ModelWeights, precision: Precision, positions: int, progress: Progress
) -> LlamaModel:
    source = QuantisedSource(weights.stored, weights.config, precision)
    return LlamaModel(weights.config, source, activation_type(precision), positions, progress)
