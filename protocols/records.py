"""Signed records: what a peer publishes about itself, how it is sealed, and when it is believed.

Knows the record types, their bounds, their keys in the record store; must not know any store or
who is interested. A sealed record is msgpack `{kind, signer, body, signature}`, at most 8 KiB; the
body is kept as the exact bytes that were signed.
"""

from typing import Annotated, ClassVar, TypeVar

import msgspec
from msgspec import Meta, Struct

from protocols import limits
from protocols.codec import decode_header
from protocols.errors import ProtocolError, RecordError
from protocols.ids import PeerId, SpecialistId, SwarmId, parse_specialist_id
from protocols.sealing import PeerText, open_envelope, seal_body
from protocols.signing import Identity

Name = Annotated[str, Meta(max_length=96)]
Sequence_ = Annotated[int, Meta(ge=0, le=2**63 - 1)]
UnixSeconds = Annotated[float, Meta(ge=0, le=1e11)]


class Prototype(Struct, frozen=True):
    """A direction in an encoder's space near which a specialist's prompts lie.

    `vector` holds int8 values; the vector meant is `vector * scale` (unit length before rounding).
    """

    vector: Annotated[bytes, Meta(min_length=1, max_length=limits.PROTOTYPE_BYTES_MAX)]
    scale: Annotated[float, Meta(gt=0, le=1)]


class NodeRecord(Struct, frozen=True, tag="node"):
    """A peer says where it can be dialled and what it runs."""

    kind: ClassVar[str] = "node"
    peer: PeerText
    swarm: Name
    sequence: Sequence_
    expires_at: UnixSeconds
    addresses: Annotated[
        tuple[Annotated[str, Meta(max_length=limits.ADDRESS_BYTES_MAX)], ...],
        Meta(max_length=limits.ADDRESSES_MAX),
    ]
    software: Name
    protocols: Annotated[tuple[Name, ...], Meta(max_length=32)]
    specialists: Annotated[tuple[Name, ...], Meta(max_length=limits.SPECIALISTS_MAX)] = ()
    name: Name = ""


class MeasuredScore(Struct, frozen=True):
    """What somebody measured of a specialist, so that others can measure it again.

    `metric` says what `score` is, such as `nats per answer token` or `accuracy`. `examples` of the
    set that `probe` names were asked; `digest` is the SHA-256 of that set, `by` who measured: a
    peer id, or the name of a publisher.
    """

    probe: Name
    metric: Name
    score: Annotated[float, Meta(ge=-1e6, le=1e6)]
    examples: Annotated[int, Meta(ge=1, le=2**31)]
    digest: Annotated[str, Meta(max_length=64)] = ""
    by: Name = ""


class CapabilityCard(Struct, frozen=True, tag="card"):
    """A peer says that it hosts a specialist, and what the specialist is good at.

    `model_digest` names weights and tokenizer: replicas with the same digest continue each other's
    answers, those of the same precision first. A card with neither domains nor prototypes is a
    plain base; `auto` falls back on one. `encoder` names the sentence encoder in whose space the
    prototypes lie; `exemplars` are prompts such as the specialist is good at: receivers encode some
    and compare.

    `adapter` is the digest of the adapter on the base whose digest is `base_digest`, empty for a
    plain base. `is_activated` says that the adapter was trained to begin with the answer, so that
    the prompt's keys and values are the base's own and may come from elsewhere.
    """

    kind: ClassVar[str] = "card"
    peer: PeerText
    swarm: Name
    sequence: Sequence_
    expires_at: UnixSeconds
    specialist: Name
    model_digest: Annotated[str, Meta(max_length=64)]
    base: Name
    precision: Name
    context_length: Annotated[int, Meta(ge=1, le=2**31)]
    domains: Annotated[tuple[Name, ...], Meta(max_length=limits.DOMAINS_MAX)] = ()
    description: Annotated[str, Meta(max_length=limits.DESCRIPTION_BYTES_MAX)] = ""
    encoder: Annotated[str, Meta(max_length=64)] = ""
    prototypes: Annotated[tuple[Prototype, ...], Meta(max_length=limits.PROTOTYPES_MAX)] = ()
    parameters: Annotated[int, Meta(ge=0, le=2**50)] = 0
    licence: Name = ""
    adapter: Annotated[str, Meta(max_length=64)] = ""
    base_digest: Annotated[str, Meta(max_length=64)] = ""
    is_activated: bool = False
    modalities: Annotated[tuple[Name, ...], Meta(max_length=limits.MODALITIES_MAX)] = ("text",)
    languages: Annotated[tuple[Name, ...], Meta(max_length=limits.LANGUAGES_MAX)] = ()
    exemplars: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=limits.EXEMPLAR_BYTES_MAX)], ...],
        Meta(max_length=limits.EXEMPLARS_MAX),
    ] = ()
    scores: Annotated[tuple[MeasuredScore, ...], Meta(max_length=limits.MEASURED_SCORES_MAX)] = ()

    @property
    def is_base(self) -> bool:
        """Whether this is a plain base, the one to ask when no specialist is near."""
        return not self.domains and not self.prototypes


class IndexRecord(Struct, frozen=True, tag="index"):
    """A peer says that it belongs under a key: a swarm, a specialist id, or a domain or its prefix.

    Small, because popular keys hold many. `key` stops a record from being replayed under another.
    `domains` are those of the peer's domains and prefixes that lie one level below the key.
    """

    kind: ClassVar[str] = "index"
    peer: PeerText
    key: Annotated[str, Meta(max_length=256)]
    sequence: Sequence_
    expires_at: UnixSeconds
    specialists: Annotated[tuple[Name, ...], Meta(max_length=limits.SPECIALISTS_MAX)] = ()
    domains: Annotated[tuple[Name, ...], Meta(max_length=limits.DOMAINS_MAX)] = ()


Record = NodeRecord | CapabilityCard | IndexRecord
RecordT = TypeVar("RecordT", NodeRecord, CapabilityCard, IndexRecord)


_record_decoder: "msgspec.msgpack.Decoder[Record]" = msgspec.msgpack.Decoder(Record)


def seal(record: Record, identity: Identity) -> bytes:
    """The signed bytes of `record`, checked as a reader would check them (but for time)."""
    data = seal_body(record.kind, record, identity)
    open_sealed(data)
    return data


def open_sealed(data: bytes) -> Record:
    """The record inside, with size, shape, signer and signature checked; not its time.

    `RecordError` or `ProtocolError` says what is wrong with it.
    """
    signer, sealed = open_envelope(data, limits.RECORD_BYTES_MAX)
    record = decode_header(_record_decoder, sealed.body)
    if record.kind != sealed.kind or record.peer != signer:
        raise RecordError("a record's kind or peer differs from what was signed for")
    if isinstance(record, CapabilityCard):
        parse_specialist_id(record.specialist)
    return record


def check_time(record: Record, now: float) -> None:
    """`RecordError` unless `record` lives at `now` and does not claim to live too long."""
    if record.expires_at <= now:
        raise RecordError("record expired")
    if record.expires_at > now + limits.RECORD_LIFETIME_SECONDS_MAX + limits.CLOCK_SKEW_SECONDS_MAX:
        raise RecordError("record claims to live longer than records may")


def check_place(record: Record, key: str, subkey: str) -> None:
    """`RecordError` unless `record` may lie under (`key`, `subkey`)."""
    if record.peer != subkey:
        raise RecordError("a record lies under another peer's name")
    if key not in keys_of(record):
        raise RecordError("a record lies under a key it was not made for")


def believe(data: bytes, key: str, subkey: str, now: float) -> Record:
    """The record stored under (`key`, `subkey`), if it is genuine, alive and belongs there."""
    record = open_sealed(data)
    check_time(record, now)
    check_place(record, key, subkey)
    return record


def keys_of(record: Record) -> tuple[str, ...]:
    """The store keys under which `record` may lie."""
    match record:
        case NodeRecord():
            return (node_key(SwarmId(record.swarm), PeerId(record.peer)),)
        case CapabilityCard():
            return (
                card_key(
                    SwarmId(record.swarm), PeerId(record.peer), SpecialistId(record.specialist)
                ),
            )
        case IndexRecord():
            return (record.key,)
        case _:
            raise ProtocolError("unknown record")


def swarm_key(swarm: SwarmId) -> str:
    """Index of all peers of a swarm."""
    return f"dslm/1/{swarm}/peers"


def specialist_key(swarm: SwarmId, specialist: SpecialistId) -> str:
    """Index of the peers that host a specialist."""
    return f"dslm/1/{swarm}/specialist/{specialist}"


def domain_key(swarm: SwarmId, domain: str) -> str:
    """Index of the peers that host any specialist of a domain, or of one that it is a prefix of."""
    return f"dslm/1/{swarm}/domain/{domain}"


def node_key(swarm: SwarmId, peer: PeerId) -> str:
    """Where a peer's node record lies."""
    return f"dslm/1/{swarm}/node/{peer}"


def card_key(swarm: SwarmId, peer: PeerId, specialist: SpecialistId) -> str:
    """Where the card of one specialist at one peer lies."""
    return f"dslm/1/{swarm}/card/{peer}/{specialist}"
