"""A model in memory, ready to answer, and how it gets there.

Knows files, memory and the engine; must not know peers or protocols. `HostedModel` is the
`ServedModel` of the services.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import torch

from node.engine.base import EngineRequest, EngineStatistics
from node.engine.config import LlamaConfig
from node.engine.loop import EngineLoop, Generation
from node.engine.model import LlamaModel
from node.engine.pages import PAGE_SIZE, pages_for
from node.engine.torch_engine import EngineOptions, TorchEngine
from node.hosting.read import read_model
from node.hosting.tokenizer import ChatTokenizer
from protocols.errors import ModelFileError
from protocols.ids import Digest, SpecialistId, parse_specialist_id

Precision = Literal["fp32", "bf16"]
Progress = Callable[[float], None]
"""Hears the fraction of the weights that is in memory; called from a worker thread."""

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_WORKING_BYTES = 64 * 1024 * 1024
"""Activations and logits of one step, roughly; small beside weights and cache."""


@dataclass(frozen=True, slots=True)
class HostedSpec:
    """What to host and how.

    An empty `specialist` takes the file's own name. `slots` answers run at a time, each of up to
    `context_length` tokens (0, or more than the model was made for: as many as that). `threads` 0
    leaves torch's choice.
    """

    path: Path
    specialist: SpecialistId
    precision: Precision = "fp32"
    slots: int = 8
    context_length: int = 2048
    threads: int = 0


@dataclass(frozen=True, slots=True)
class HostedModel:
    """A running model. `size` is in bytes, reserved cache included."""

    specialist: SpecialistId
    model_digest: Digest
    base: str
    precision: Precision
    context_length: int
    parameters: int
    size: int
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
    await hosted.loop.start()
    return hosted


def _load(spec: HostedSpec, progress: Progress) -> HostedModel:
    weights = read_model(spec.path)
    config = weights.config
    specialist = parse_specialist_id(spec.specialist or weights.name)
    context_length = min(spec.context_length or config.context_length, config.context_length)
    _check_memory(spec, config, context_length, psutil.virtual_memory().available)
    dtype = _DTYPES[spec.precision]
    model = LlamaModel(config, weights.tensors, dtype, context_length, progress)
    cache_tokens = _cache_tokens(spec, context_length)
    options = EngineOptions(
        context_length=context_length,
        cache_tokens=cache_tokens,
        running=spec.slots,
        threads=spec.threads,
        model=f"{weights.digest} {spec.precision} layers 0-{config.layers}",
    )
    return HostedModel(
        specialist=specialist,
        model_digest=weights.digest,
        base=weights.name,
        precision=spec.precision,
        context_length=context_length,
        parameters=config.parameters,
        size=model.size + cache_bytes(config, cache_tokens, spec.precision),
        licence=weights.licence,
        slots=spec.slots,
        tokenizer=weights.tokenizer,
        loop=EngineLoop(TorchEngine(model, options), name=f"engine {specialist}"),
    )


def cache_bytes(config: LlamaConfig, tokens: int, precision: Precision) -> int:
    """Bytes of the keys and values of `tokens` tokens."""
    return tokens * config.cache_values_per_token * _DTYPES[precision].itemsize


def _cache_tokens(spec: HostedSpec, context_length: int) -> int:
    """Whole pages for each slot, so that full contexts in all of them fit."""
    return spec.slots * pages_for(context_length) * PAGE_SIZE


def _check_memory(
    spec: HostedSpec, config: LlamaConfig, context_length: int, available: int
) -> None:
    """`ModelFileError` if weights, cache and one step do not fit into `available` bytes."""
    weights = config.parameters * _DTYPES[spec.precision].itemsize
    cache = cache_bytes(config, _cache_tokens(spec, context_length), spec.precision)
    # While reading, the largest tensor is there in fp32 beside what is kept of it.
    reading = 4 * config.vocabulary_size * config.hidden_size
    needed = weights + cache + reading + _WORKING_BYTES
    if needed > available:
        raise ModelFileError(
            f"{spec.path} needs {_gib(needed)} of memory ({_gib(weights)} for weights in "
            f"{spec.precision}, {_gib(cache)} for {spec.slots} answers of {context_length} "
            "tokens), "
            f"but {_gib(available)} is free. Use bf16, fewer slots or a shorter context."
        )


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
