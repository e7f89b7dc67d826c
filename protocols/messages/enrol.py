"""`/dslm/enrol/1`: a certificate for a peer with an invite, or a new one for a member's old one.

Knows the messages and their bounds; the only protocol, with hello, that a stranger may speak.
"""

from typing import Annotated

from msgspec import Meta, Struct

from protocols import limits
from protocols.messages.hello import CredentialBytes, SwarmText

PeerText = Annotated[str, Meta(max_length=64)]


class EnrolRequest(Struct, frozen=True, tag="enrol?"):
    """Joiner. `invite` is the invite's public half, `signature` proves the secret one
    (`protocols.membership.invite.prove_invite`)."""

    swarm: SwarmText
    invite: PeerText
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]


class RenewRequest(Struct, frozen=True, tag="renew?"):
    """Member: a new certificate for the one in `credential`, with the same roles."""

    swarm: SwarmText
    credential: CredentialBytes


class Enrolled(Struct, frozen=True, tag="enrolled"):
    """Issuer: the new credential, and the revocation list in force (may be empty)."""

    credential: CredentialBytes
    revocations: Annotated[bytes, Meta(max_length=limits.REVOCATIONS_BYTES_MAX)] = b""


class EnrolRefused(Struct, frozen=True, tag="refused"):
    """Issuer: no, and why."""

    reason: Annotated[str, Meta(max_length=limits.TEXT_BYTES_MAX)]


ENROL_REQUEST_BYTES_MAX = 3 * limits.CREDENTIAL_BYTES_MAX
"""What an issuer reads of a stranger at most: a credential and some words around it."""

EnrolAsk = EnrolRequest | RenewRequest
EnrolAnswer = Enrolled | EnrolRefused
EnrolMessage = EnrolRequest | RenewRequest | Enrolled | EnrolRefused
