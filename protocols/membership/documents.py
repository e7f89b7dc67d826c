"""The signed documents of a swarm: delegations, certificates, revocations; made and opened here.

Knows their fields, bounds and who must have signed what; whether one holds *now* is the book's
business. Each is a sealed statement (`protocols.sealing`) of its own kind.
"""

from enum import StrEnum
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta, Struct

from protocols import limits
from protocols.codec import decode_header
from protocols.errors import RecordError
from protocols.ids import PeerId, parse_peer_id
from protocols.membership.charter import Charter, owner_of
from protocols.sealing import PeerText, Sealed, open_envelope, seal_body
from protocols.signing import Identity

UnixSeconds = Annotated[float, Meta(ge=0, le=1e11)]
SwarmText = Annotated[str, Meta(max_length=64)]
Serial = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Role(StrEnum):
    """What a member may do: `node` hosts and announces, `user` asks, `trainer` takes part in
    rounds, `issuer` makes certificates (by the owner's delegation only)."""

    NODE = "node"
    USER = "user"
    TRAINER = "trainer"
    ISSUER = "issuer"


Roles = Annotated[tuple[Role, ...], Meta(min_length=1, max_length=len(Role))]


class Delegation(Struct, frozen=True):
    """The owner lets a peer make certificates, for at most 90 days."""

    kind: ClassVar[str] = "delegation"
    swarm: SwarmText
    issuer: PeerText
    issued_at: UnixSeconds
    expires_at: UnixSeconds


class Certificate(Struct, frozen=True):
    """An issuer vouches for a peer, for at most 24 hours."""

    kind: ClassVar[str] = "certificate"
    swarm: SwarmText
    peer: PeerText
    roles: Roles
    serial: Serial
    issued_at: UnixSeconds
    expires_at: UnixSeconds


class Revocations(Struct, frozen=True):
    """The owner's whole list of who is out; the highest `epoch` replaces all before it.

    `floor` (Unix seconds): certificates and delegations issued earlier are void.
    """

    kind: ClassVar[str] = "revocations"
    swarm: SwarmText
    epoch: Serial
    issued_at: UnixSeconds
    peers: Annotated[tuple[PeerText, ...], Meta(max_length=limits.REVOKED_MAX)] = ()
    floor: UnixSeconds = 0.0


class Credential(Struct, frozen=True):
    """What a member shows: its certificate, and the delegation of whoever signed that."""

    certificate: Annotated[bytes, Meta(max_length=limits.CREDENTIAL_BYTES_MAX)]
    delegation: Annotated[bytes, Meta(max_length=limits.CREDENTIAL_BYTES_MAX)]


Document = Delegation | Certificate | Revocations
_encoder = msgspec.msgpack.Encoder()
_sealed_decoder = msgspec.msgpack.Decoder(Sealed)
_delegation_decoder = msgspec.msgpack.Decoder(Delegation)
_certificate_decoder = msgspec.msgpack.Decoder(Certificate)
_revocations_decoder = msgspec.msgpack.Decoder(Revocations)
_credential_decoder = msgspec.msgpack.Decoder(Credential)


def seal_document(document: Document, signer: Identity) -> bytes:
    """The signed bytes of `document`."""
    return seal_body(document.kind, document, signer)


def open_delegation(data: bytes, charter: Charter) -> Delegation:
    """A delegation of this swarm, signed by its owner; `RecordError` for any other."""
    body = _open(data, Delegation.kind, limits.CREDENTIAL_BYTES_MAX, owner_of(charter))[1]
    delegation = decode_header(_delegation_decoder, body)
    _check_life(delegation, charter, limits.DELEGATION_SECONDS_MAX)
    return delegation


def open_certificate(data: bytes, charter: Charter) -> tuple[PeerId, Certificate]:
    """A certificate of this swarm and who signed it (who may or may not be an issuer)."""
    signer, body = _open(data, Certificate.kind, limits.CREDENTIAL_BYTES_MAX)
    return signer, _certificate(body, charter)


def peek_certificate(data: bytes, charter: Charter) -> tuple[PeerId, Certificate]:
    """What `open_certificate` would return if the signature is good, which is not looked at."""
    if len(data) > limits.CREDENTIAL_BYTES_MAX:
        raise RecordError("a certificate that is too large")
    sealed = decode_header(_sealed_decoder, data)
    _check_kind(sealed, Certificate.kind)
    return parse_peer_id(sealed.signer), _certificate(sealed.body, charter)


def open_revocations(data: bytes, charter: Charter) -> Revocations:
    """A revocation list of this swarm, signed by its owner; `RecordError` for any other."""
    kind, owner = Revocations.kind, owner_of(charter)
    revocations = decode_header(
        _revocations_decoder, _open(data, kind, limits.REVOCATIONS_BYTES_MAX, owner)[1]
    )
    if revocations.swarm != charter.swarm:
        raise RecordError("a revocation list of another swarm")
    return revocations


def kind_of(data: bytes) -> str:
    """What `data` says it is; `ProtocolError` if it is no sealed statement."""
    return decode_header(_sealed_decoder, data).kind


def pack_credential(credential: Credential) -> bytes:
    """The bytes of a credential; `ProtocolError` from `unpack_credential` for any others."""
    return _encoder.encode(credential)


def unpack_credential(data: bytes) -> Credential:
    """See `pack_credential`."""
    if len(data) > 2 * limits.CREDENTIAL_BYTES_MAX:
        raise RecordError("a credential that is too large")
    return decode_header(_credential_decoder, data)


def _open(
    data: bytes, kind: str, bytes_max: int, signer: PeerId | None = None
) -> tuple[PeerId, bytes]:
    by, sealed = open_envelope(data, bytes_max)
    _check_kind(sealed, kind)
    if signer is not None and by != signer:
        raise RecordError(f"a {kind} that the swarm's owner did not sign")
    return by, sealed.body


def _certificate(body: bytes, charter: Charter) -> Certificate:
    certificate = decode_header(_certificate_decoder, body)
    _check_life(certificate, charter, limits.CERTIFICATE_SECONDS_MAX)
    return certificate


def _check_kind(sealed: Sealed, kind: str) -> None:
    if sealed.kind != kind:
        raise RecordError(f"a {sealed.kind} where a {kind} belongs")


def _check_life(document: Delegation | Certificate, charter: Charter, seconds_max: float) -> None:
    if document.swarm != charter.swarm:
        raise RecordError(f"a {document.kind} of another swarm")
    if not 0 < document.expires_at - document.issued_at <= seconds_max:
        raise RecordError(f"a {document.kind} that claims to hold for too long")
