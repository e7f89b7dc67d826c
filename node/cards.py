"""Makes the capability cards of the models that this node hosts.

Knows settings, facts of a loaded model and the encoder; must not know how cards are published.
"""

from dataclasses import dataclass

from coordinator.ports import Encoder
from node.config import ModelConfig
from node.hosting.hosted import HostedModel
from node.hosting.prototypes import make_prototypes
from node.state import HostedState
from protocols import limits
from protocols.records import CapabilityCard, Prototype


@dataclass(frozen=True, slots=True)
class CardMaker:
    """Makes cards. Peer and swarm are a presence's to set, sequence and expiry the announcer's."""

    encoder: Encoder | None

    async def card(self, model: HostedModel, settings: ModelConfig) -> CapabilityCard:
        """The card of `model`, with prototypes if its settings say what it is good at."""
        prototypes = await self._prototypes(settings)
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
            domains=settings.domains[: limits.DOMAINS_MAX],
            description=settings.description[: limits.DESCRIPTION_BYTES_MAX],
            encoder=self.encoder.digest if self.encoder and prototypes else "",
            prototypes=prototypes,
            parameters=model.parameters,
            licence=settings.licence or model.licence,
        )

    async def _prototypes(self, settings: ModelConfig) -> tuple[Prototype, ...]:
        texts = [*settings.examples, *([settings.description] if settings.description else [])]
        if self.encoder is None or not settings.domains or not texts:
            return ()
        vectors = await self.encoder.encode(texts)
        return make_prototypes(vectors, min(limits.PROTOTYPES_MAX, len(texts)))


def hosted_state(model: HostedModel, settings: ModelConfig) -> HostedState:
    """What the node's owner sees of `model`; the load is filled in by whoever knows it."""
    return HostedState(
        id=model.specialist,
        model_digest=model.model_digest,
        precision=model.precision,
        context_length=model.context_length,
        parameters=model.parameters,
        size=model.size,
        domains=settings.domains,
        running=0,
        waiting=0,
        slots=model.slots,
        weights=model.weights_size,
        kernels=model.kernels,
        copy=f"{id(model.loop):x}",
        own=model.adapter.size if model.adapter else 0,
    )
