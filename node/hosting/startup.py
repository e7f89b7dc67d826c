"""What a node loads before it goes on the network: its models and the sentence encoder.

Knows settings, fetching and loading; must not know peers.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from node.config import EngineConfig, ModelConfig
from node.hosting.encoder import MiniLmEncoder
from node.hosting.fetch import default_encoder_paths, resolve
from node.hosting.hosted import HostedModel, HostedSpec, load_model
from node.quantities import format_size
from protocols.errors import ModelFileError
from protocols.ids import SpecialistId

_log = logging.getLogger(__name__)


async def load_models(
    settings: Sequence[ModelConfig], models_dir: Path, engine: EngineConfig
) -> Mapping[SpecialistId, HostedModel]:
    """All models that the settings name, fetched if need be, running; by specialist id.

    `UserError` with the cause and what to do when one cannot be had. Models loaded before are
    closed then.
    """
    loaded: dict[SpecialistId, HostedModel] = {}
    try:
        for one in settings:
            path = await asyncio.to_thread(resolve, one.path, models_dir)
            spec = HostedSpec(
                path=path,
                specialist=SpecialistId(one.id),
                precision=one.precision or engine.precision,
                slots=one.slots,
                context_length=one.context,
                threads=engine.threads,
                speculation=engine.speculation,
            )
            model = await load_model(spec)
            loaded[model.specialist] = model
            _log.info("hosting %s from %s", describe_model(model), path)
    except BaseException:
        for model in loaded.values():
            await model.close()
        raise
    return loaded


def describe_model(model: HostedModel) -> str:
    """A model and what it takes: `smollm2 (int4, 95.5 MB, 189 MB for 8 answers of 2048 tokens)`."""
    weights, cache = model.weights_size, model.size - model.weights_size
    return (
        f"{model.specialist} ({model.precision}, {format_size(weights)}, {format_size(cache)} "
        f"for {model.slots} answers of {model.context_length} tokens)"
    )


async def load_encoder(models_dir: Path) -> MiniLmEncoder | None:
    """The sentence encoder; None where there is none or it is damaged: the plain base answers."""
    paths = default_encoder_paths(models_dir)
    if not paths.exist:
        _log.warning("no sentence encoder in %s: `auto` always means the plain base", models_dir)
        return None
    try:
        return await asyncio.to_thread(MiniLmEncoder, paths.model, paths.tokenizer)
    except ModelFileError as error:
        _log.warning("%s. `auto` always means the plain base", error)
        return None
