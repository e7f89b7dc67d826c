"""What an owner can do to a swarm, as documents to be signed: revoke, rotate, appoint.

Pure: knows the documents in force and makes the next ones; who spreads them is not known here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from protocols import limits
from protocols.errors import ProtocolError, UserError
from protocols.ids import PeerId
from protocols.membership.charter import Charter
from protocols.membership.documents import (
    Delegation,
    Revocations,
    open_delegation,
    open_revocations,
    seal_document,
)
from protocols.sealing import open_envelope
from protocols.signing import Identity


@dataclass(frozen=True, slots=True)
class InForce:
    """What the owner of a swarm has signed so far, as far as is known here."""

    charter: Charter
    revocations: Revocations
    delegations: tuple[Delegation, ...]

    def issuers(self, now: float) -> tuple[PeerId, ...]:
        """Who may make certificates now."""
        return tuple(
            PeerId(one.issuer)
            for one in self.delegations
            if one.expires_at > now
            and one.issued_at >= self.revocations.floor
            and one.issuer not in self.revocations.peers
        )


class Owner:
    """The owner at work. Each act returns signed documents, the revocation list first.

    `now` is in Unix seconds; a list is never dated before the one that it replaces.
    """

    def __init__(self, key: Identity, in_force: InForce) -> None:
        """`UserError` if `key` is not the owner's."""
        if key.peer_id != in_force.charter.owner:
            raise UserError(f"this is not the key of the owner of {in_force.charter.name}")
        self._key = key
        self._now = in_force

    def revoke(self, peer: PeerId, now: float) -> tuple[bytes, ...]:
        """Nobody deals with `peer` any more, nor believes certificates that it made.

        `UserError` if it is revoked already, or if the list is full.
        """
        revoked = self._now.revocations.peers
        if peer in revoked:
            raise UserError(f"{peer} is revoked already")
        if len(revoked) >= limits.REVOKED_MAX:
            raise UserError(
                f"the list holds {limits.REVOKED_MAX} peers and is full: make a new swarm, and "
                "invite the members whom you want to keep"
            )
        return (self._list((*revoked, peer), self._now.revocations.floor, now),)

    def rotate(self, now: float) -> tuple[bytes, ...]:
        """All certificates and invites so far become void; the present issuers go on, so that the
        members can get new certificates from them."""
        when = self._date(now)
        fresh = tuple(self._delegation(issuer, when) for issuer in self._now.issuers(now))
        return (self._list(self._now.revocations.peers, when, now), *fresh)

    def appoint(self, peer: PeerId, now: float) -> tuple[bytes, ...]:
        """`peer` may make certificates for 90 days from now.

        `UserError` if it was revoked, or if there are as many issuers as there can be.
        """
        if not self._now.charter.is_private:
            raise UserError("a public swarm needs no issuers: anybody may come")
        if peer in self._now.revocations.peers:
            raise UserError(f"{peer} is revoked: it needs a new identity and a new invite first")
        others = set(self._now.issuers(now)) - {peer}
        if len(others) >= limits.DELEGATIONS_MAX:
            raise UserError(f"there are {len(others)} issuers, and there can be no more")
        return (self._delegation(peer, max(now, self._now.revocations.floor)),)

    def _date(self, now: float) -> float:
        return max(now, self._now.revocations.issued_at)

    def _list(self, peers: tuple[str, ...], floor: float, now: float) -> bytes:
        swarm, epoch = self._now.charter.swarm, self._now.revocations.epoch + 1
        return seal_document(Revocations(swarm, epoch, self._date(now), peers, floor), self._key)

    def _delegation(self, issuer: PeerId, issued_at: float) -> bytes:
        until = issued_at + limits.DELEGATION_SECONDS_MAX
        return seal_document(
            Delegation(self._now.charter.swarm, issuer, issued_at, until), self._key
        )


def is_revocations(data: bytes) -> bool:
    """Whether a signed document is a revocation list; `ProtocolError` if it is no document."""
    return open_envelope(data, limits.REVOCATIONS_BYTES_MAX)[1].kind == Revocations.kind


def read_documents(charter: Charter, documents: Sequence[bytes]) -> InForce:
    """The highest list and all delegations in `documents`, in any order.

    `RecordError` for one that the swarm's owner did not sign.
    """
    newest = Revocations(charter.swarm, 0, 0.0)
    delegations: list[Delegation] = []
    for data in documents:
        kind = open_envelope(data, limits.REVOCATIONS_BYTES_MAX)[1].kind
        if kind == Revocations.kind:
            found = open_revocations(data, charter)
            newest = max(newest, found, key=lambda one: one.epoch)
        elif kind == Delegation.kind:
            delegations.append(open_delegation(data, charter))
        else:
            raise ProtocolError(f"a {kind} among the documents of a swarm")
    return InForce(charter, newest, tuple(delegations))
