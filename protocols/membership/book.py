"""The book of members: who may act in a swarm now, as far as this peer knows.

Knows delegations, revocations and the certificates it was shown; does no I/O, and time is an
argument. It fails closed: whoever is not proven a member is none.
"""

from dataclasses import dataclass, replace

from protocols import limits
from protocols.errors import NotAdmitted, ProtocolError
from protocols.ids import PeerId
from protocols.membership.charter import Charter
from protocols.membership.delegations import Delegations, is_alive
from protocols.membership.documents import (
    Certificate,
    Credential,
    Delegation,
    Revocations,
    Role,
    kind_of,
    open_certificate,
    open_revocations,
    pack_credential,
    peek_certificate,
    unpack_credential,
)

FLOOR_GRACE_SECONDS = 120.0
"""How long after a rotation older papers still hold, so that the new ones can get around."""
MEMBERS_MAX = 4_096


class NotProven(NotAdmitted):
    """A credential that proves nothing: for all we know its bearer never was in the swarm."""


@dataclass(frozen=True, slots=True)
class Membership:
    """A certificate that was believed. Times are in Unix seconds."""

    peer: PeerId
    roles: frozenset[Role]
    """Those that hold now: `ISSUER` stands and falls with the owner's delegation."""
    issuer: PeerId
    issued_at: float
    expires_at: float
    """The end of the certificate; its issuer's delegation may end it earlier."""


class MemberBook:
    """One swarm's membership as one peer sees it."""

    def __init__(self, charter: Charter) -> None:
        self.charter = charter
        self._delegations = Delegations(charter)
        self._revocations = Revocations(charter.swarm, 0, 0.0)
        self._revocations_bytes = b""
        self._revoked: frozenset[str] = frozenset()
        self._members: dict[PeerId, Membership] = {}
        self._shown: dict[PeerId, bytes] = {}
        """The credentials of the members, so that one that is shown again need not be verified."""
        self._expelled: dict[PeerId, None] = {}

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
        return self._delegations.documents()

    def delegation_of(self, issuer: PeerId, now: float) -> bytes:
        """The delegation in force of `issuer`; `NotAdmitted` if there is none."""
        found = self._delegations.of(issuer)
        fault = self._fault_of_delegation(found[1], now) if found else "the peer may issue nothing"
        if found is None or fault:
            raise NotAdmitted(fault)
        return found[0]

    def issuers(self, now: float) -> tuple[PeerId, ...]:
        """The peers that may make certificates now."""
        return tuple(
            PeerId(one.issuer) for one in self._delegations if self.is_issuer(one.issuer, now)
        )

    def is_issuer(self, peer: str, now: float) -> bool:
        """Whether the owner lets `peer` make certificates now."""
        found = self._delegations.of(PeerId(peer))
        return found is not None and not self._fault_of_delegation(found[1], now)

    def offer(self, data: bytes, now: float) -> bool:
        """Take note of a delegation or a list, whichever `data` is; whether it was news.

        `RecordError` if it is not genuine, `ProtocolError` if it is neither.
        """
        if kind_of(data) == Revocations.kind:
            return self.offer_revocations(data)
        return self.offer_delegation(data, now)

    def offer_delegation(self, data: bytes, now: float) -> bool:
        """Take note of a delegation; whether it was news. `RecordError` if it is not genuine."""
        return self._delegations.offer(data, now)

    def offer_revocations(self, data: bytes) -> bool:
        """Replace the list by a later one; whether it was later. `RecordError` if not genuine.

        Should the owner have signed two of one epoch, everybody keeps the same of the two.
        """
        if data == self._revocations_bytes:
            return False
        revocations = open_revocations(data, self.charter)
        kept = _rank(self._revocations, self._revocations_bytes)
        if not revocations.epoch or _rank(revocations, data) <= kept:
            return False
        self._revocations, self._revocations_bytes = revocations, data
        self._revoked = frozenset(revocations.peers)
        return True

    def check(self, peer: PeerId, data: bytes, now: float) -> Membership:
        """What the credential `data`, shown by `peer`, makes of it now.

        `NotAdmitted` says which check failed, `NotProven` that it is no credential of `peer` in
        this swarm at all. Nothing is remembered, not even the delegation in it.
        """
        return self._now(self._check(peer, data, now)[0], now)

    def believe(self, peer: PeerId, data: bytes, now: float) -> Membership:
        """`check`, and take note of the delegation in it, but not of the member."""
        return self._now(self._believe(peer, data, now), now)

    def admit(self, peer: PeerId, data: bytes, now: float) -> Membership:
        """`check`, and remember."""
        known = self.member(peer, now) if self._shown.get(peer) == data else None
        if known is not None:
            return known
        membership = self._believe(peer, data, now)
        if peer not in self._members and len(self._members) >= MEMBERS_MAX:
            self._set_aside(now)
            if len(self._members) >= MEMBERS_MAX:
                raise NotAdmitted("too many members at a time")
        self._members[peer], self._shown[peer] = membership, data
        self._expelled.pop(peer, None)
        return self._now(membership, now)

    def may_renew(self, peer: PeerId, data: bytes, now: float) -> Membership:
        """The membership that a credential proves for renewing it.

        It may have lapsed up to 30 days ago or lie before the floor. Its issuer's delegation may
        have ended as well, as long as the certificate was made before; but if that was before the
        floor, the issuer must have a new one. Neither may be revoked. `NotAdmitted` otherwise.
        """
        certificate, issuer, (_, delegation) = self._open(peer, data)
        self._check_revoked(peer, issuer)
        if delegation.issued_at < self._revocations.floor:
            raise NotAdmitted("the issuer of the certificate was not confirmed at the rotation")
        if certificate.issued_at > min(now, delegation.expires_at) + limits.CLOCK_SKEW_SECONDS_MAX:
            raise NotAdmitted("the certificate was made at a time when its issuer may not do so")
        ended = min(certificate.expires_at, delegation.expires_at)
        if now > ended + limits.LAPSE_SECONDS_MAX:
            raise NotAdmitted("the certificate lapsed over 30 days ago: ask for a new invite")
        return self._now(_membership(certificate, issuer), now)

    def member(self, peer: PeerId, now: float) -> Membership | None:
        """What `peer` was admitted as, if that still holds now."""
        membership = self._members.get(peer)
        if membership is None or self.fault_of(membership, now):
            return None
        return self._now(membership, now)

    def members(self, now: float) -> tuple[Membership, ...]:
        """Everybody admitted, as far as it still holds."""
        found = (self.member(peer, now) for peer in tuple(self._members))
        return tuple(one for one in found if one is not None)

    def is_revoked(self, peer: PeerId) -> bool:
        """Whether the list in force names `peer`."""
        return peer in self._revoked

    def forget(self, peer: PeerId) -> None:
        """`peer` has to show its credential again."""
        self._members.pop(peer, None)
        self._shown.pop(peer, None)

    def fault_of(self, membership: Membership, now: float) -> str:
        """Why `membership` does not hold now; empty if it does."""
        fault = self._fault_of_certificate(membership, now)
        if fault:
            return fault
        found = self._delegations.of(membership.issuer)
        if found is None:
            return "the certificate was made by a peer that may not make any"
        return self._fault_of_delegation(found[1], now)

    def expel(self, now: float) -> tuple[PeerId, ...]:
        """Forget the members that are none any more, and name them, to be cut off."""
        self._set_aside(now)
        gone, self._expelled = tuple(self._expelled), {}
        return gone

    # ----------------------------------------------------------------------------------------

    def _set_aside(self, now: float) -> None:
        for peer in [peer for peer, one in self._members.items() if self.fault_of(one, now)]:
            self.forget(peer)
            self._expelled[peer] = None

    def _believe(self, peer: PeerId, data: bytes, now: float) -> Membership:
        membership, delegation = self._check(peer, data, now)
        self._delegations.offer(delegation, now)
        if not self.is_issuer(membership.issuer, now):
            raise NotAdmitted("too many issuers at a time")
        return membership

    def _check(self, peer: PeerId, data: bytes, now: float) -> tuple[Membership, bytes]:
        """The membership and the delegation that it rests on."""
        certificate, issuer, (document, delegation) = self._open(peer, data)
        membership = _membership(certificate, issuer)
        fault = self._fault_of_certificate(membership, now)
        fault = fault or self._fault_of_delegation(delegation, now)
        if fault:
            raise NotAdmitted(fault)
        return membership, document

    def _open(
        self, peer: PeerId, data: bytes
    ) -> tuple[Certificate, PeerId, tuple[bytes, Delegation]]:
        """The parts of a credential, with all checked that does not depend on time.

        What can be compared is compared before signatures are verified, which costs more.
        """
        try:
            credential = unpack_credential(data)
            issuer, certificate = peek_certificate(credential.certificate, self.charter)
            if certificate.peer != peer:
                raise NotProven("the certificate is another peer's")
            found = self._delegations.later(credential.delegation)
            if found[1].issuer != issuer:
                raise NotProven("the certificate was made by a peer that may not make any")
            open_certificate(credential.certificate, self.charter)
        except ProtocolError as error:
            raise NotProven(f"no valid credential: {error}") from error
        return certificate, issuer, found

    def _now(self, membership: Membership, now: float) -> Membership:
        """`membership` with the roles that it has now."""
        roles = membership.roles
        if Role.ISSUER in roles and not self.is_issuer(membership.peer, now):
            return replace(membership, roles=roles - {Role.ISSUER})
        return membership

    def _fault_of_certificate(self, membership: Membership, now: float) -> str:
        if membership.expires_at <= now:
            return "the certificate expired"
        if membership.issued_at > now + limits.CLOCK_SKEW_SECONDS_MAX:
            return "the certificate is not valid yet: compare the clocks"
        if membership.peer in self._revoked:
            return "the peer was revoked"
        if membership.issuer in self._revoked:
            return "the issuer of the certificate was revoked"
        if membership.issued_at < self._floor(now):
            return "the certificate is from before the swarm's rotation: renew it"
        return ""

    def _fault_of_delegation(self, delegation: Delegation, now: float) -> str:
        if delegation.issuer in self._revoked:
            return "the issuer of the certificate was revoked"
        if not is_alive(delegation, now):
            return "the delegation of the certificate's issuer expired or begins later"
        if delegation.issued_at < self._floor(now):
            return "the delegation of the issuer is from before the swarm's rotation"
        return ""

    def _check_revoked(self, peer: PeerId, issuer: PeerId) -> None:
        if peer in self._revoked:
            raise NotAdmitted("the peer was revoked")
        if issuer in self._revoked:
            raise NotAdmitted("the issuer of the certificate was revoked: ask for a new invite")

    def _floor(self, now: float) -> float:
        in_force = now > self._revocations.issued_at + FLOOR_GRACE_SECONDS
        return self._revocations.floor if in_force else 0.0


def credential_of(certificate: bytes, delegation: bytes) -> bytes:
    """The packed credential of two sealed documents."""
    return pack_credential(Credential(certificate, delegation))


def _membership(certificate: Certificate, issuer: PeerId) -> Membership:
    return Membership(
        PeerId(certificate.peer),
        frozenset(certificate.roles),
        issuer,
        certificate.issued_at,
        certificate.expires_at,
    )


def _rank(revocations: Revocations, data: bytes) -> tuple[int, float, bytes]:
    return revocations.epoch, revocations.issued_at, data
