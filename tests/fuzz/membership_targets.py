"""Parsers of what decides who belongs to a swarm: charters, invites, credentials, lists, ledgers.

Knows `protocols.membership` and the messages around it. The targets called bodies take signatures
for good, so that the fields behind them are reached.
"""

import base64
import zlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from protocols.codec import decode_header
from protocols.errors import NotAdmitted, ProtocolError, UserError
from protocols.membership.book import MemberBook, credential_of
from protocols.membership.charter import Charter, open_charter
from protocols.membership.documents import (
    Certificate,
    Credential,
    Delegation,
    Revocations,
    Role,
    open_delegation,
    pack_credential,
    seal_document,
)
from protocols.membership.invite import PREFIX, Invite, format_invite, parse_invite
from protocols.membership.ledger import Issued, load_ledger
from protocols.messages.enrol import (
    Enrolled,
    EnrolMessage,
    EnrolRefused,
    EnrolRequest,
    RenewRequest,
)
from protocols.messages.hello import Hello, HelloMessage, Rejected
from protocols.messages.reach import ReachMessage, ReachReply, ReachRequest
from protocols.messages.swarm import SwarmMessage, SwarmState
from tests.fuzz.target import (
    ALICE,
    BOB,
    NOW,
    Maker,
    Target,
    envelope,
    signatures_believed,
    words_of,
)
from tests.fuzz.wire_targets import header_target

_DAY = 86_400.0
CHARTER = Charter("home", ALICE.peer_id, is_private=True)
_SWARM = CHARTER.swarm
DELEGATION = Delegation(_SWARM, ALICE.peer_id, NOW - 10, NOW + 30 * _DAY)
_CERTIFICATE = Certificate(
    _SWARM, BOB.peer_id, (Role.NODE, Role.USER), 7, NOW - 10, NOW + _DAY - 20
)
REVOCATIONS = Revocations(_SWARM, 3, NOW - 10, (BOB.peer_id,), NOW - 100)
_SEALED_DELEGATION = seal_document(DELEGATION, ALICE)
CREDENTIAL = credential_of(seal_document(_CERTIFICATE, ALICE), _SEALED_DELEGATION)
_ADDRESS = f"/ip4/192.0.2.7/tcp/7779/p2p/{ALICE.peer_id}"
_INVITES = (
    Invite(CHARTER, (_ADDRESS,), NOW + 3_600, bytes(range(32))),
    Invite(open_charter("public"), (_ADDRESS, _ADDRESS)),
)
ISSUED = (
    Issued(BOB.peer_id, (Role.NODE,), 3, NOW - 10, NOW + 3_600, (ALICE.peer_id,)),
    Issued(ALICE.peer_id, (Role.ISSUER, Role.USER), 1, NOW - 10, NOW + 3_600),
)
_HELLOS: tuple[msgspec.Struct, ...] = (
    Hello(_SWARM, 3, CREDENTIAL, 2**40),
    Hello("public"),
    Rejected("no"),
)
_ENROLS: tuple[msgspec.Struct, ...] = (
    EnrolRequest(_SWARM, BOB.peer_id, bytes(64)),
    RenewRequest(_SWARM, CREDENTIAL),
    Enrolled(CREDENTIAL, seal_document(REVOCATIONS, ALICE)),
    EnrolRefused("used up"),
)
_REACHES: tuple[msgspec.Struct, ...] = (
    ReachRequest(("/ip4/192.0.2.7/tcp/7779",)),
    ReachReply(("/ip4/192.0.2.7/tcp/7779",), ("/ip4/192.0.2.7/tcp/50000",), ("/ip6/::1: no",)),
)
_STATES: tuple[msgspec.Struct, ...] = (
    SwarmState(3, (_SEALED_DELEGATION,), seal_document(REVOCATIONS, ALICE)),
    SwarmState(0),
)


def _encoded(*values: object) -> tuple[bytes, ...]:
    return tuple(msgspec.msgpack.encode(value) for value in values)


def charters(folder: Path) -> Target:  # noqa: ARG001
    """Charters, and the ids of their swarms."""
    decoder = msgspec.msgpack.Decoder(Charter)

    def run(data: bytes) -> None:
        charter = decode_header(decoder, data).check()
        assert len(charter.swarm) == 64

    charters = (CHARTER, open_charter("public"))
    return Target(run, (ProtocolError,), _encoded(*charters), "msgpack", words_of(charters))


def invites(folder: Path) -> Target:  # noqa: ARG001
    """Invite strings as somebody pastes them."""

    def run(data: bytes) -> None:
        invite = parse_invite(data.decode("utf-8", "surrogateescape"))
        assert parse_invite(format_invite(invite)) == invite

    seeds = tuple(format_invite(invite).encode() for invite in _INVITES)
    return Target(run, (UserError,), seeds, "text", (PREFIX.encode(), b"=", b"-_"))


def invite_bodies(folder: Path) -> Target:  # noqa: ARG001
    """What an invite string says, its checksum put right."""

    def run(data: bytes) -> None:
        summed = data + zlib.crc32(data).to_bytes(4, "big")
        text = PREFIX + base64.urlsafe_b64encode(summed).rstrip(b"=").decode("ascii")
        invite = parse_invite(text)
        assert parse_invite(format_invite(invite)) == invite

    return Target(run, (UserError,), _encoded(*_INVITES), "msgpack", words_of(_INVITES))


def credentials(folder: Path) -> Target:  # noqa: ARG001
    """Credentials with every signature checked: only the good one is ever believed."""

    def run(data: bytes) -> None:
        book = MemberBook(CHARTER)
        membership = book.admit(BOB.peer_id, data, NOW)
        assert membership.roles == {Role.NODE, Role.USER}
        assert membership.expires_at == _CERTIFICATE.expires_at

    words = words_of((Credential(b"", b""), _CERTIFICATE, DELEGATION))
    return Target(run, (NotAdmitted,), (CREDENTIAL,), "msgpack", words)


def certificate_bodies(folder: Path) -> Target:  # noqa: ARG001
    """Certificates that the issuer signed, whatever they say."""

    def run(data: bytes) -> None:
        book = MemberBook(CHARTER)
        credential = Credential(envelope("certificate", data), _SEALED_DELEGATION)
        with signatures_believed():
            membership = book.admit(BOB.peer_id, pack_credential(credential), NOW)
        assert NOW < membership.expires_at <= NOW + _DAY + 60
        assert Role.ISSUER not in membership.roles
        assert book.member(BOB.peer_id, membership.expires_at) is None

    seeds = _encoded(_CERTIFICATE, msgspec.structs.replace(_CERTIFICATE, roles=(Role.ISSUER,)))
    words = (*words_of((_CERTIFICATE,)), *_encoded(*Role))
    return Target(run, (NotAdmitted,), seeds, "msgpack", words)


def delegation_bodies(folder: Path) -> Target:  # noqa: ARG001
    """Delegations that the owner signed, whatever they say."""

    def run(data: bytes) -> None:
        with signatures_believed():
            delegation = open_delegation(envelope("delegation", data), CHARTER)
        assert 0 < delegation.expires_at - delegation.issued_at <= 90 * _DAY

    words = words_of((DELEGATION,))
    return Target(run, (ProtocolError,), _encoded(DELEGATION), "msgpack", words)


def revocation_bodies(folder: Path) -> Target:  # noqa: ARG001
    """Revocation lists that the owner signed: the epoch never falls."""
    books = [MemberBook(CHARTER)]
    longest = msgspec.structs.replace(REVOCATIONS, peers=(BOB.peer_id,) * 400)

    def run(data: bytes) -> None:
        book = books[0]
        before = book.epoch
        with signatures_believed():
            later = book.offer_revocations(envelope("revocations", data))
        assert book.epoch >= before if later else book.epoch == before
        if book.epoch > 2**32:
            books[0] = MemberBook(CHARTER)  # so that lists are news again

    seeds = _encoded(REVOCATIONS, longest)
    words = words_of((REVOCATIONS,))
    return Target(run, (ProtocolError,), seeds, "msgpack", words, 32_768)


def ledgers(folder: Path) -> Target:  # noqa: ARG001
    """An issuer's ledger as it comes back from disk."""

    def run(data: bytes) -> None:
        ledger = load_ledger(data)
        assert load_ledger(ledger.dump()).issued == ledger.issued

    seeds = _encoded(ISSUED, ())
    return Target(run, (ProtocolError,), seeds, "msgpack", words_of(ISSUED))


MAKERS: Mapping[str, Maker] = {
    "hello": header_target(HelloMessage, _HELLOS),
    "enrol": header_target(EnrolMessage, _ENROLS),
    "reach": header_target(ReachMessage, _REACHES),
    "swarm_state": header_target(SwarmMessage, _STATES),
    "charters": charters,
    "invites": invites,
    "invite_bodies": invite_bodies,
    "credentials": credentials,
    "certificate_bodies": certificate_bodies,
    "delegation_bodies": delegation_bodies,
    "revocation_bodies": revocation_bodies,
    "ledgers": ledgers,
}
