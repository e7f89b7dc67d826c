"""What goes on a card: the settings' and the card file's words, made to fit into a record.

Knows settings, bounds and encoders; must not know models, peers or how cards are published.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from msgspec.structs import replace

from coordinator.ports import Encoder
from coordinator.routing.score import prototype_vector
from node.card_file import CardFile
from node.config import ModelConfig
from node.hosting.exemplars import choose_exemplars, clip_text
from node.hosting.prototypes import make_prototypes
from protocols import limits
from protocols.domains import domain_path
from protocols.errors import RecordError
from protocols.records import CapabilityCard, Prototype
from protocols.sealing import Sealed

PROTOTYPES_MIN = 4
NAME_MAX = 96
_TEXTS_PER_PROTOTYPE = 8
_WIDEST = {"peer": "p" * 52, "swarm": "s" * 96, "sequence": 2**63 - 1, "expires_at": 1e10}
"""What is filled in when a card is announced, at its longest."""
_DIGESTS = ("model_digest", "base_digest", "adapter")
_DIGEST_LENGTH = 64


@dataclass(frozen=True, slots=True)
class Portrait:
    """What a specialist is near to, in the space of the encoder with the digest `encoder`."""

    encoder: str = ""
    prototypes: tuple[Prototype, ...] = ()
    exemplars: tuple[str, ...] = ()


def prototypes_wanted(texts: int) -> int:
    """How many prototypes stand for so many texts: one for eight, but 4 at least, 8 at most."""
    return min(
        texts, max(PROTOTYPES_MIN, min(limits.PROTOTYPES_MAX, texts // _TEXTS_PER_PROTOTYPE))
    )


def merged(settings: ModelConfig, file: CardFile) -> CardFile:
    """What the settings say, and the file where they say nothing."""
    examples = tuple(text for text in settings.examples if text.strip())
    description = settings.description or file.description
    return replace(
        file,
        description=clip_text(description, limits.DESCRIPTION_BYTES_MAX),
        domains=normal_domains(settings.domains or file.domains),
        licence=settings.licence[:NAME_MAX] or file.licence,
        exemplars=examples or file.exemplars,
        encoded=None if examples else file.encoded,
    )


async def portray(
    file: CardFile, encoder: Encoder | None, exemplars_max: int = limits.EXEMPLARS_MAX
) -> Portrait:
    """Prototypes and exemplars of what `file` says.

    The file's own prototypes stand if they are of this encoder; they were made from more. Without
    an encoder they stand too, unchecked. A card without domains is a plain base's: it has none.
    """
    clipped = dict.fromkeys(clip_text(one, limits.EXEMPLAR_BYTES_MAX) for one in file.exemplars)
    first = tuple(text for text in clipped if text)[:exemplars_max]
    given = file.encoded
    if not file.domains:
        return Portrait()
    if given is not None and (encoder is None or encoder.digest == given.encoder):
        return Portrait(given.encoder, given.prototypes, first)
    if encoder is None:
        return Portrait(exemplars=first)
    return await make_portrait(file.exemplars, file.description, encoder, exemplars_max)


async def make_portrait(
    texts: Sequence[str], description: str, encoder: Encoder, exemplars_max: int
) -> Portrait:
    """Prototypes of all `texts` and of the description, and the texts that stand best for them."""
    every = [text.strip() for text in (*texts, description) if text.strip()]
    if not every:
        return Portrait()
    vectors = await encoder.encode(every)
    prototypes = make_prototypes(vectors, prototypes_wanted(len(every)))
    directions = np.stack([prototype_vector(one) for one in prototypes])
    count = len(every) - bool(description.strip())
    chosen: tuple[str, ...] = ()
    if count:
        chosen = choose_exemplars(every[:count], vectors[:count], directions, exemplars_max)
    return Portrait(encoder.digest, prototypes, chosen)


async def card_of_file(specialist: str, file: CardFile, encoder: Encoder | None) -> CapabilityCard:
    """The card that `file` would make, as far as it can be known without the model."""
    portrait = await portray(file, encoder)
    return CapabilityCard(
        peer="",
        swarm="",
        sequence=0,
        expires_at=0.0,
        specialist=specialist,
        model_digest="",
        base="",
        precision="",
        context_length=1,
        domains=file.domains,
        description=file.description,
        encoder=portrait.encoder,
        prototypes=portrait.prototypes,
        licence=file.licence,
        is_activated=bool(file.activated),
        modalities=file.modalities,
        languages=file.languages,
        exemplars=portrait.exemplars,
        scores=file.scores,
    )


def normal_domains(domains: Sequence[str]) -> tuple[str, ...]:
    """Domains as they are indexed, each once."""
    paths = ("/".join(domain_path(domain)) for domain in domains)
    return tuple(dict.fromkeys(path for path in paths if path))[: limits.DOMAINS_MAX]


def sealed_size(card: CapabilityCard) -> int:
    """Bytes of `card` in its signed record, with the longest peer, swarm and numbers it may get."""
    digests = dict.fromkeys(_DIGESTS, "d" * _DIGEST_LENGTH)
    body = msgspec.msgpack.encode(replace(card, **_WIDEST, **digests))
    return len(msgspec.msgpack.encode(Sealed("p" * 52, card.kind, body, bytes(64))))


def fit_card(card: CapabilityCard) -> tuple[CapabilityCard, str]:
    """`card` so that it fits into a record, and what was left out, in words (empty: nothing).

    Exemplars go first, from the last on, as long as there is one for each prototype: whoever reads
    the card compares them. Then scores, then the last prototypes with their exemplars.
    `RecordError` if it is too large without them.
    """
    fitting = card
    while sealed_size(fitting) > limits.RECORD_BYTES_MAX:
        if len(fitting.exemplars) > len(fitting.prototypes):
            fitting = replace(fitting, exemplars=fitting.exemplars[:-1])
        elif fitting.scores:
            fitting = replace(fitting, scores=fitting.scores[:-1])
        elif fitting.prototypes:
            kept = len(fitting.prototypes) - 1
            fitting = replace(
                fitting,
                prototypes=fitting.prototypes[:kept],
                exemplars=fitting.exemplars[:kept],
            )
        else:
            raise RecordError(
                f"the card of {card.specialist} has {sealed_size(fitting):,} bytes without any "
                f"exemplar, at most {limits.RECORD_BYTES_MAX:,}: shorten description and domains"
            )
    return fitting, _left_out(card, fitting)


def _left_out(card: CapabilityCard, fitting: CapabilityCard) -> str:
    counts = (
        ("exemplars", len(card.exemplars), len(fitting.exemplars)),
        ("scores", len(card.scores), len(fitting.scores)),
        ("prototypes", len(card.prototypes), len(fitting.prototypes)),
    )
    parts = [f"the last {had - has} of {had} {name}" for name, had, has in counts if has < had]
    if not parts:
        return ""
    return f"{', '.join(parts)} left out: a card has at most {limits.RECORD_BYTES_MAX:,} bytes"
