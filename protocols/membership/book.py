"""The book of members: who may act in a private swarm now, as far as this peer knows.

Knows delegations, revocations and the certificates it was shown; does no I/O, and time is an
argument. It fails closed: whoever is not proven a member is none.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from protocols import limits
from protocols.errors import NotAdmitted, ProtocolError
from protocols.ids import PeerId
from protocols.membership.charter import Charter
from protocols.membership.documents import (
    Certificate,
    Credential,
    Delegation,
    Revocations,
    Role,
    open_certificate,
    open_delegation,
    open_revocations,
    pack_credential,
    unpack_credential,
)

FLOOR_GRACE_SECONDS = 120.0
"""How long after a rotation older certificates still hold, so that members can renew theirs."""
MEMBERS_MAX = 4_096


@dataclass(frozen=True, slots=True)
class Membership:
    """A certificate that was believed. Times are in Unix seconds."""

    peer: PeerId
    roles: frozenset[Role]
    issuer: PeerId
    issued_at: float
    expires_at: float
    """The end of the certificate or of its issuer's delegation, whichever is first."""


class MemberBook:
    """One swarm's membership as one peer sees it."""

    def __init__(self, charter: Charter) -> None:
        self.charter = charter
        self._delegations: dict[PeerId, tuple[bytes, Delegation]] = {}
        self._revocations = Revocations(charter.swarm, 0, 0.0)
        self._revocations_bytes = b""
        self._revoked: frozenset[str] = frozenset()
        self._members: dict[PeerId, Membership] = {}

    def __repr__(self) -> str:
        return f"<MemberBook {self.charter.name} epoch={self.epoch} members={len(self._members)}>"

    @property
    def epoch(self) -> int:
        """Of the revocation list that is in force; it never falls."""
        return self._revocations.epoch

    @property
    def revocations(self) -> Revocations:
        """The list in force."""
        return self._revocations

    @property
    def revocations_bytes(self) -> bytes:
        """The list in force as the owner signed it; empty while there is none."""
        return self._revocations_bytes

    def delegations(self) -> tuple[bytes, ...]:
        """All that are known, as the owner signed them."""
        return tuple(data for data, _ in self._delegations.values())

    def delegation_of(self, issuer: PeerId, now: float) -> bytes:
        """The delegation in force of `issuer`; `NotAdmitted` if there is none."""
        found = self._delegations.get(issuer)
        if found is None:
            raise NotAdmitted("the certificate was made by a peer that may not make any")
        self._check_delegation(found[1], now)
        return found[0]

    def offer_delegation(self, data: bytes, now: float) -> bool:
        """Take note of a delegation; whether it was news. `RecordError` if it is not genuine."""
        delegation = open_delegation(data, self.charter)
        known = self._delegations.get(PeerId(delegation.issuer))
        if known is not None and known[1].expires_at >= delegation.expires_at:
            return False
        if known is None and len(self._delegations) >= limits.DELEGATIONS_MAX:
            self._drop_dead_delegations(now)
            if len(self._delegations) >= limits.DELEGATIONS_MAX:
                return False
        self._delegations[PeerId(delegation.issuer)] = data, delegation
        return True

    def offer_revocations(self, data: bytes) -> bool:
        """Replace the list by a later one; whether it was later. `RecordError` if not genuine."""
        revocations = open_revocations(data, self.charter)
        if revocations.epoch <= self.epoch:
            return False
        self._revocations, self._revocations_bytes = revocations, data
        self._revoked = frozenset(revocations.peers)
        return True

    def check(self, peer: PeerId, data: bytes, now: float) -> Membership:
        """What the credential `data`, shown by `peer`, makes of it now.

        `NotAdmitted` says which check failed; nothing is remembered.
        """
        certificate, membership = self._open(peer, data)
        skew = limits.CLOCK_SKEW_SECONDS_MAX
        if certificate.issued_at > now + skew:
            raise NotAdmitted("the certificate is not valid yet: compare the clocks")
        self._check_now(membership, now)
        return membership

    def admit(self, peer: PeerId, data: bytes, now: float) -> Membership:
        """`check`, and remember."""
        membership = self.check(peer, data, now)
        if peer not in self._members and len(self._members) >= MEMBERS_MAX:
            self.expel(now)
            if len(self._members) >= MEMBERS_MAX:
                raise NotAdmitted("too many members at a time")
        self._members[peer] = membership
        return membership

    def may_renew(self, peer: PeerId, data: bytes, now: float) -> Membership:
        """The membership that a credential proves for renewing it.

        It may have lapsed up to 30 days ago or lie before the floor, but its issuer must be one
        still, and neither may be revoked. `NotAdmitted` otherwise.
        """
        certificate, membership = self._open(peer, data)
        self._check_revoked(membership)
        self._check_delegation_of(membership.issuer, now)
        if now > certificate.expires_at + limits.LAPSE_SECONDS_MAX:
            raise NotAdmitted("the certificate lapsed over 30 days ago: ask for a new invite")
        return membership

    def member(self, peer: PeerId, now: float) -> Membership | None:
        """What `peer` was admitted as, if that still holds now."""
        membership = self._members.get(peer)
        if membership is None:
            return None
        try:
            self._check_now(membership, now)
        except NotAdmitted:
            return None
        return membership

    def members(self, now: float) -> tuple[Membership, ...]:
        """Everybody admitted, as far as it still holds."""
        return tuple(one for one in self._members.values() if self.member(one.peer, now))

    def is_revoked(self, peer: PeerId) -> bool:
        """Whether the list in force names `peer`."""
        return peer in self._revoked

    def forget(self, peer: PeerId) -> None:
        """`peer` has to show its credential again."""
        self._members.pop(peer, None)

    def expel(self, now: float) -> tuple[PeerId, ...]:
        """Forget the members that are none any more, and name them, to be cut off."""
        gone = tuple(peer for peer in self._members if self.member(peer, now) is None)
        for peer in gone:
            del self._members[peer]
        return gone

    # ----------------------------------------------------------------------------------------

    def _open(self, peer: PeerId, data: bytes) -> tuple[Certificate, Membership]:
        """The parts of a credential, with all checked that does not depend on time."""
        try:
            credential = unpack_credential(data)
            issuer, certificate = open_certificate(credential.certificate, self.charter)
            delegation = open_delegation(credential.delegation, self.charter)
        except ProtocolError as error:
            raise NotAdmitted(f"no valid credential: {error}") from error
        if certificate.peer != peer:
            raise NotAdmitted("the certificate is another peer's")
        if delegation.issuer != issuer:
            raise NotAdmitted("the certificate was made by a peer that may not make any")
        known = self._delegations.get(issuer)
        if known is None or known[1].expires_at < delegation.expires_at:
            self._delegations[issuer] = credential.delegation, delegation
        until = min(certificate.expires_at, self._delegations[issuer][1].expires_at)
        roles = frozenset(certificate.roles)
        if Role.ISSUER in roles and peer not in self._delegations:
            roles -= {Role.ISSUER}
        membership = Membership(peer, roles, issuer, certificate.issued_at, until)
        return certificate, membership

    def _check_now(self, membership: Membership, now: float) -> None:
        if membership.expires_at <= now:
            raise NotAdmitted("the certificate expired")
        self._check_revoked(membership)
        self._check_delegation_of(membership.issuer, now)
        if membership.issued_at < self._floor(now):
            raise NotAdmitted("the certificate is from before the swarm's rotation: renew it")

    def _check_revoked(self, membership: Membership) -> None:
        if membership.peer in self._revoked:
            raise NotAdmitted("the peer was revoked")
        if membership.issuer in self._revoked:
            raise NotAdmitted("the issuer of the certificate was revoked")

    def _check_delegation_of(self, issuer: PeerId, now: float) -> None:
        self.delegation_of(issuer, now)

    def _check_delegation(self, delegation: Delegation, now: float) -> None:
        if delegation.issuer in self._revoked:
            raise NotAdmitted("the issuer of the certificate was revoked")
        if delegation.expires_at <= now:
            raise NotAdmitted("the delegation of the certificate's issuer expired")
        if delegation.issued_at < self._revocations.floor:
            raise NotAdmitted("the delegation of the issuer is from before the swarm's rotation")

    def _floor(self, now: float) -> float:
        in_force = now > self._revocations.issued_at + FLOOR_GRACE_SECONDS
        return self._revocations.floor if in_force else 0.0

    def _drop_dead_delegations(self, now: float) -> None:
        dead = [peer for peer, (_, one) in self._delegations.items() if one.expires_at <= now]
        for peer in dead:
            del self._delegations[peer]


def credential_of(certificate: bytes, delegation: bytes) -> bytes:
    """The packed credential of two sealed documents."""
    return pack_credential(Credential(certificate, delegation))


def issuers(book: MemberBook, now: float) -> Iterable[PeerId]:
    """The peers that may make certificates now."""
    for data in book.delegations():
        issuer = PeerId(open_delegation(data, book.charter).issuer)
        try:
            book.delegation_of(issuer, now)
        except NotAdmitted:
            continue
        yield issuer
