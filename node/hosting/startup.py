"""What a node loads before it goes on the network: its models and the sentence encoder.

Knows settings, fetching and loading; must not know peers.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from node.config import EngineConfig, ModelConfig
from node.engine.adapters.frozen import MakeA, frozen_a
from node.hosting.contained_encoder import ContainedEncoder
from node.hosting.encoder import MiniLmEncoder
from node.hosting.fetch import default_encoder_paths, resolve
from node.hosting.hosted import HostedModel, HostedSpec, host_adapter, load_model
from node.hosting.kernels import KernelSettings
from node.hosting.planner import HostedPlanner
from node.paths import Paths
from node.quantities import format_size
from protocols.errors import ModelFileError
from protocols.ids import SpecialistId

PLANNER = Path(__file__).resolve().parents[1] / "specialists" / "planner"
"""The adapter of the planning model, where it ships."""
_log = logging.getLogger(__name__)


async def load_models(
    settings: Sequence[ModelConfig], paths: Paths, engine: EngineConfig
) -> Mapping[SpecialistId, HostedModel]:
    """All models that the settings name, fetched if need be, running; by specialist id.

    Entries that say the same of a base, but for name and adapter, share one copy of it.

    `UserError` with the cause and what to do when one cannot be had. Models loaded before are
    closed then.
    """
    draft = None
    if engine.draft_model:
        draft = await asyncio.to_thread(resolve, engine.draft_model, paths.models)
    bases: dict[HostedSpec, HostedModel] = {}
    loaded: dict[SpecialistId, HostedModel] = {}
    make_a = cache(frozen_a)
    try:
        for one in settings:
            path = await asyncio.to_thread(resolve, one.path, paths.models)
            spec = HostedSpec(
                path=path,
                specialist=SpecialistId(""),
                precision=one.precision or engine.precision,
                slots=one.slots,
                context_length=one.context,
                threads=engine.threads,
                kernels=KernelSettings(
                    engine.kernels,
                    paths.kernels,
                    device=engine.device,
                    fallback=paths.own_kernels,
                ),
                speculation="off" if engine.speculation == "off" else "auto",
                draft=draft,
                is_cache_quantised=engine.cache == "int8",
                is_cache_shared=engine.share_prefixes,
            )
            base = bases[spec] = bases.get(spec) or await load_model(spec)
            model = await _specialist(base, one, make_a)
            loaded[model.specialist] = model
            _log.info("hosting %s from %s", describe_model(model), one.adapter or path)
    except BaseException:
        for model in bases.values():
            await model.close()
        raise
    return loaded


async def _specialist(base: HostedModel, settings: ModelConfig, make_a: MakeA) -> HostedModel:
    """`base` under the name that the settings give it, with the adapter that they name."""
    if settings.adapter:
        return await host_adapter(base, settings.id, Path(settings.adapter), make_a)
    return replace(base, specialist=SpecialistId(settings.id)) if settings.id else base


async def load_planner(
    models: Mapping[SpecialistId, HostedModel], folder: Path = PLANNER
) -> HostedPlanner | None:
    """The planning adapter of `folder` on one of the hosted `models`; None where neither fits.

    Nobody can ask for it by name: it is in no card.
    """
    for model in models.values():
        if model.adapter is not None:
            continue
        try:
            return HostedPlanner(await host_adapter(model, "planner", folder))
        except ModelFileError as error:
            _log.info("no planning model on %s: %s", model.specialist, error)
    return None


def describe_model(model: HostedModel) -> str:
    """A model and what it takes: `smollm2 (int4, 97.1 MB, 189 MB for 8 answers of 2048
    tokens; computed by native, AVX-512 and AMX)`.
    """
    weights, cache = model.weights_size, model.size - model.weights_size
    return (
        f"{model.specialist} ({model.precision}, {format_size(weights)}, {format_size(cache)} "
        f"for {model.slots} answers of {model.context_length} tokens; computed by {model.kernels})"
    )


async def load_encoder(models_dir: Path) -> ContainedEncoder | None:
    """The sentence encoder; None where there is none or it is damaged: the plain base answers."""
    paths = default_encoder_paths(models_dir)
    if not paths.exist:
        _log.warning("no sentence encoder in %s: `auto` always means the plain base", models_dir)
        return None
    try:
        encoder = await asyncio.to_thread(MiniLmEncoder, paths.model, paths.tokenizer)
    except ModelFileError as error:
        _log.warning("%s. `auto` always means the plain base", error)
        return None
    _log.info("the sentence encoder is computed by %s", encoder.about)
    return ContainedEncoder(encoder)
