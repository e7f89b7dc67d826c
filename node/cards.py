"""Makes the capability cards of the models that this node hosts.

Knows settings, card files, facts of a loaded model and the encoder; must not know how cards are
published.
"""

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from coordinator.ports import Encoder
from node.card_content import NAME_MAX, fit_card, merged, portray
from node.card_file import CardFile, read_card_file
from node.config import ModelConfig
from node.hosting.hosted import HostedModel
from node.state import HostedState
from protocols.errors import ConfigError, RecordError
from protocols.records import CapabilityCard

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CardMaker:
    """Makes cards. Peer and swarm are a presence's to set, sequence and expiry the announcer's."""

    encoder: Encoder | None

    async def card(self, model: HostedModel, settings: ModelConfig) -> CapabilityCard:
        """The card of `model`, with prototypes if somebody says what it is good at.

        `ModelFileError` for a card file that is none, `ConfigError` for an adapter without domains
        and for what no card can hold.
        """
        file = CardFile()
        if settings.card:
            file = await asyncio.to_thread(read_card_file, Path(settings.card))
        said = merged(settings, file)
        if settings.adapter and not said.domains:
            raise ConfigError(
                f"{model.specialist} has an adapter, so it needs domains that it is for: name some "
                f"in {settings.card or 'its [[models]] table'}"
            )
        _warn_of_activation(model, said)
        portrait = await portray(said, self.encoder)
        card = replace(
            facts_of(model),
            domains=said.domains,
            description=said.description,
            encoder=portrait.encoder,
            prototypes=portrait.prototypes,
            exemplars=portrait.exemplars,
            licence=said.licence or model.licence[:NAME_MAX],
            modalities=said.modalities,
            languages=said.languages,
            scores=said.scores,
        )
        try:
            fitting, left_out = fit_card(card)
        except RecordError as error:
            raise ConfigError(str(error)) from error
        if left_out:
            _log.warning("card of %s: %s", model.specialist, left_out)
        return fitting


def facts_of(model: HostedModel) -> CapabilityCard:
    """The part of a card that the model itself decides."""
    adapter = model.adapter
    return CapabilityCard(
        peer="",
        swarm="",
        sequence=0,
        expires_at=0.0,
        specialist=model.specialist,
        model_digest=model.model_digest,
        base=model.base,
        precision=model.precision,
        context_length=model.context_length,
        parameters=model.parameters,
        adapter=adapter.digest if adapter else "",
        base_digest=model.base_digest,
        is_activated=bool(adapter and adapter.invocation),
    )


def hosted_state(model: HostedModel, card: CapabilityCard) -> HostedState:
    """What the node's owner sees of `model`; the load is filled in by whoever knows it."""
    return HostedState(
        id=model.specialist,
        model_digest=model.model_digest,
        precision=model.precision,
        context_length=model.context_length,
        parameters=model.parameters,
        size=model.size,
        domains=card.domains,
        running=0,
        waiting=0,
        slots=model.slots,
        weights=model.weights_size,
        kernels=model.kernels,
        kernels_file=model.kernels_file,
        copy=f"{id(model.loop):x}",
        own=model.adapter.size if model.adapter else 0,
    )


def _warn_of_activation(model: HostedModel, file: CardFile) -> None:
    is_activated = bool(model.adapter and model.adapter.invocation)
    if file.activated is not None and file.activated != is_activated:
        _log.warning(
            "the card file of %s says activated = %s, but its adapter %s invocation tokens: the "
            "adapter counts",
            model.specialist,
            str(file.activated).lower(),
            "has" if is_activated else "has no",
        )
