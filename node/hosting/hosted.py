"""A model in memory, ready to answer, and how it gets there.

Knows files, memory and the engine; must not know peers or protocols. `HostedModel` is the
`ServedModel` of the services.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from node.engine.adapters.frozen import MakeA, frozen_a
from node.engine.adapters.registry import AdapterSet
from node.engine.base import EngineRequest, EngineStatistics, PageOwner
from node.engine.batch import CPU
from node.engine.config import LlamaConfig
from node.engine.device import DeviceChoice, device_kind, free_memory
from node.engine.loop import EngineLoop, Generation
from node.engine.native.model import NativeModel
from node.engine.page_exchange import PageExchange
from node.engine.torch_engine import EngineOptions, SpeculationChoice, TorchEngine
from node.engine.weights.scheme import Precision
from node.hosting.draft_model import DraftModel, load_draft_model, read_draft_model
from node.hosting.hosted_adapter import HostedAdapter, adapted_digest, fit_adapter
from node.hosting.kernels import KernelSettings, build_model, choose_kernels, device_for
from node.hosting.memory import (
    Load,
    PrecisionChoice,
    choose_precision,
    footprint,
    require_draft_room,
    return_free_memory,
)
from node.hosting.read import read_model
from node.hosting.tokenizer import ChatTokenizer
from node.hosting.weights import ModelWeights
from protocols.ids import Digest, SpecialistId, parse_specialist_id

_log = logging.getLogger(__name__)

Progress = Callable[[float], None]
"""Hears the fraction of the weights that is in memory; called from a worker thread."""

GPU_STEP_TOKENS = 1024
"""A GPU reads so many tokens of prompts in the time of a few steps."""
TILED_PROMPT_TOKENS = 512
"""Of a step without answers, where tile registers make it quick: weights are widened once for all
of it. Without them 512 tokens at once take as long as four times 128, and whoever cancels, or comes
meanwhile, waits for all of it."""
TILED_PROMPT_WORK = TILED_PROMPT_TOKENS * 135_000_000
"""Tokens times parameters, for larger models: half a second to a second of one core."""


@dataclass(frozen=True, slots=True)
class HostedSpec:
    """What to host and how.

    An empty `specialist` takes the file's own name. `slots` answers run at a time, each of up to
    `context_length` tokens (0, or more than the model was made for: as many as that). `threads` 0
    leaves torch's choice. `precision` `auto` is the best that fits into free memory.
    `speculation` is that of `EngineOptions`; `draft` is a model that guesses besides.
    """

    path: Path
    specialist: SpecialistId
    precision: PrecisionChoice = "fp32"
    slots: int = 8
    context_length: int = 2048
    threads: int = 0
    kernels: KernelSettings = field(default_factory=KernelSettings)
    speculation: SpeculationChoice = "auto"
    draft: Path | None = None
    is_cache_quantised: bool = False
    is_cache_shared: bool = False


@dataclass(frozen=True, slots=True)
class HostedModel:
    """A running model. `size` is in bytes, reserved cache included; `weights_size` is not.

    `kernels` says who computes it, for people; `kernels_file` has the compiled code, if any.
    Specialists that are adapters on one base share its `loop`, and with it weights, pages and
    slots; `adapters` are all that are loaded on the base, `adapter` is this specialist's.
    `exchange` gives the base's pages of a prompt, in the thread of `loop`.
    """

    specialist: SpecialistId
    model_digest: Digest
    base_digest: Digest
    base: str
    precision: Precision
    context_length: int
    parameters: int
    size: int
    weights_size: int
    licence: str
    slots: int
    kernels: str
    config: LlamaConfig
    tokenizer: ChatTokenizer
    loop: EngineLoop
    adapters: AdapterSet
    exchange: Callable[[PageOwner, Sequence[int]], PageExchange]
    adapter: HostedAdapter | None = None
    kernels_file: str = ""

    @property
    def plain(self) -> "HostedModel":
        """The base without this specialist's adapter, under its name; itself if it has none."""
        if self.adapter is None:
            return self
        return replace(self, model_digest=self.base_digest, adapter=None)

    @property
    def healthy(self) -> bool:
        """As `EngineLoop.healthy`."""
        return self.loop.healthy

    def generate(self, request: EngineRequest) -> Generation:
        """As `EngineLoop.submit`, with this specialist's adapter if it has one."""
        use = self.adapter.use_for(request.prompt) if self.adapter else None
        return self.loop.submit(replace(request, adapter=use))

    def statistics(self) -> EngineStatistics:
        """As `EngineLoop.statistics`."""
        return self.loop.statistics()

    async def close(self) -> None:
        """As `EngineLoop.close`; it ends the other specialists on the same base too."""
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


async def host_adapter(
    base: HostedModel, specialist: str, folder: Path, make_a: MakeA = frozen_a
) -> HostedModel:
    """Load the adapter in `folder` onto a running `base`, as a specialist of its own.

    Requests go on meanwhile. `make_a` as in `read_compact`. `ModelFileError` as `read_adapter`, or
    if there is too little memory.
    """
    adapter = await asyncio.to_thread(fit_adapter, folder, base.config, base.precision, make_a)
    await asyncio.to_thread(base.adapters.load, adapter.weights)
    hosted = adapter.hosted
    return replace(
        base,
        specialist=parse_specialist_id(specialist or hosted.name),
        model_digest=adapted_digest(base.model_digest, hosted.digest),
        parameters=base.parameters + hosted.parameters,
        size=base.size + hosted.size,
        weights_size=base.weights_size + hosted.size,
        adapter=hosted,
    )


def unload_adapter(specialist: HostedModel) -> None:
    """Let no new request have the adapter of `specialist`; those inside end undisturbed."""
    if specialist.adapter is not None:
        specialist.adapters.unload(specialist.adapter.digest)


def _drafts(weights: ModelWeights | None, precision: Precision, load: Load) -> Sequence[DraftModel]:
    """The model that guesses, if there shall be one."""
    if weights is None:
        return ()
    return (load_draft_model(weights, precision, load.context_length, load.cache_tokens),)


def prompt_tokens(parameters: int, *, has_tiles: bool) -> int:
    """The tokens of prompts in a step without answers; 0: as many as in any step."""
    return min(TILED_PROMPT_TOKENS, TILED_PROMPT_WORK // parameters) if has_tiles else 0


def _options(spec: HostedSpec, load: Load, model: str, *, has_tiles: bool) -> EngineOptions:
    return EngineOptions(
        context_length=load.context_length,
        cache_tokens=load.cache_tokens,
        running=spec.slots,
        step_tokens=GPU_STEP_TOKENS if load.is_on_gpu else 128,
        prompt_tokens=prompt_tokens(load.config.parameters, has_tiles=has_tiles),
        threads=spec.threads,
        speculation=spec.speculation,
        is_cache_quantised=spec.is_cache_quantised,
        is_cache_shared=spec.is_cache_shared,
        model=model,
    )


def _kernel_settings(spec: HostedSpec, device: DeviceChoice) -> KernelSettings:
    return replace(
        spec.kernels,
        threads=spec.threads,
        is_cache_quantised=spec.is_cache_quantised,
        device=device,
    )


def _load(spec: HostedSpec, progress: Progress) -> HostedModel:
    weights = read_model(spec.path)
    config = weights.config
    context_length = min(spec.context_length or config.context_length, config.context_length)
    draft = read_draft_model(spec.draft, weights, context_length) if spec.draft else None
    device = device_for(spec.kernels.device)
    settings = _kernel_settings(spec, device_kind(device))
    load = Load(
        path=spec.path,
        config=config,
        slots=spec.slots,
        context_length=context_length,
        may_be_native=settings.may_be_native,
        is_cache_quantised=spec.is_cache_quantised,
        is_on_gpu=device != CPU,
        draft=draft.config if draft else None,
    )
    precision = choose_precision(spec.precision, weights.kept_as, load, free_memory(device))
    require_draft_room(load, precision, free_memory(CPU))
    kernels = choose_kernels(settings, config, precision, _log.info)
    model, computed_by = build_model(weights, kernels, precision, context_length, progress)
    adapters = AdapterSet(config, model.dtype, model.device)
    name = f"{weights.digest} {precision} {computed_by} layers 0-{config.layers}"
    library = kernels.library
    has_tiles = isinstance(model, NativeModel) and model.has_tiles
    options = _options(spec, load, name, has_tiles=has_tiles)
    drafts = _drafts(draft, precision, load)
    engine = TorchEngine(model, options, adapters, drafters=[one.drafter for one in drafts])
    return HostedModel(
        specialist=parse_specialist_id(spec.specialist or weights.name),
        model_digest=weights.digest,
        base_digest=weights.digest,
        base=weights.name,
        precision=precision,
        context_length=context_length,
        parameters=config.parameters,
        size=model.size + footprint(load, precision).cache + sum(one.size for one in drafts),
        weights_size=model.size,
        licence=weights.licence,
        slots=spec.slots,
        kernels=computed_by,
        config=config,
        tokenizer=weights.tokenizer,
        loop=EngineLoop(engine, name=f"engine {weights.name}"),
        adapters=adapters,
        exchange=engine.exchange,
        kernels_file=str(library.path) if library and isinstance(model, NativeModel) else "",
    )
