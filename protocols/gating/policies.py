"""Who may be in a swarm: in a private one by certificate, in a public one by a proof of work.

Knows the book of members and what a hello says; must not know streams, nor how often one may ask.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from protocols import allowances
from protocols.errors import NotAdmitted
from protocols.ids import PeerId
from protocols.membership.book import MemberBook, Membership, NotProven
from protocols.membership.documents import Role
from protocols.membership.proof import is_proof
from protocols.messages.hello import Hello
from protocols.ports import Allowance

STRANGERS_MAX = 4_096
"""Peers of a public swarm whose hello is remembered; of more the quietest are forgotten."""
_NOBODY: frozenset[Role] = frozenset()
_PUBLIC_ROLES = frozenset({Role.NODE, Role.USER, Role.TRAINER})


class Policy(Protocol):
    """Decides from what peers show. Times are Unix seconds."""

    book: MemberBook

    def hello(self, now: float) -> Hello:
        """What we show. `NotAdmitted` if we have no place in the swarm ourselves at the moment."""
        ...

    def admit(self, peer: PeerId, hello: Hello, now: float) -> None:
        """Let `peer` in on the strength of `hello`; `NotAdmitted` if it has no place here."""
        ...

    def roles(self, peer: PeerId, now: float) -> frozenset[Role]:
        """What `peer` may be; empty for whoever was not let in, or has no place any more."""
        ...

    def allowance(self, peer: PeerId, now: float) -> Allowance:
        """What `peer` may use."""
        ...

    def peers(self, now: float) -> tuple[PeerId, ...]:
        """Everybody who is in."""
        ...

    def expel(self, now: float) -> tuple[PeerId, ...]:
        """Forget those who have no place any more, and name them."""
        ...


class PrivatePolicy:
    """Members only. `credential` returns our own, as it is now (empty: we have none)."""

    def __init__(self, me: PeerId, book: MemberBook, credential: Callable[[], bytes]) -> None:
        self.book = book
        self._me = me
        self._credential = credential
        self._ours: tuple[bytes, Membership] | None = None

    def hello(self, now: float) -> Hello:
        """See `Policy`."""
        credential = self._credential()
        if not credential:
            raise NotAdmitted("this node has no certificate for the swarm")
        if self._ours is None or self._ours[0] != credential:
            self._ours = credential, self._believe(credential, now)
        fault = self.book.fault_of(self._ours[1], now)
        if fault:
            raise NotAdmitted(f"this node is no member of the swarm now: {fault}")
        return Hello(self.book.charter.swarm, self.book.epoch, credential)

    def admit(self, peer: PeerId, hello: Hello, now: float) -> None:
        """See `Policy`. `NotProven` for somebody who may never have been a member."""
        if hello.swarm != self.book.charter.swarm or not hello.credential:
            raise NotProven("no credential for this swarm")
        self.book.admit(peer, hello.credential, now)

    def roles(self, peer: PeerId, now: float) -> frozenset[Role]:
        """See `Policy`."""
        membership = self.book.member(peer, now)
        return membership.roles if membership is not None else _NOBODY

    def allowance(self, peer: PeerId, now: float) -> Allowance:
        """See `Policy`."""
        return allowances.MEMBER if self.roles(peer, now) else allowances.NOBODY

    def peers(self, now: float) -> tuple[PeerId, ...]:
        """See `Policy`."""
        return tuple(one.peer for one in self.book.members(now))

    def expel(self, now: float) -> tuple[PeerId, ...]:
        """See `Policy`."""
        return self.book.expel(now)

    def _believe(self, credential: bytes, now: float) -> Membership:
        try:
            return self.book.believe(self._me, credential, now)
        except NotAdmitted as error:
            raise NotAdmitted(f"this node is no member of the swarm now: {error}") from error


class PublicPolicy:
    """Everybody with a proof of work whom the owner, if there is one, has not revoked.

    `allowance_of` says what a peer that is in has earned so far; `proof` is our own nonce.
    """

    def __init__(
        self,
        me: PeerId,
        book: MemberBook,
        proof: int,
        allowance_of: Callable[[PeerId], Allowance] = lambda _: allowances.NEWCOMER,
    ) -> None:
        self.book = book
        self._me = me
        self._proof = proof
        self._allowance_of = allowance_of
        self._inside: OrderedDict[PeerId, None] = OrderedDict()

    def hello(self, now: float) -> Hello:  # noqa: ARG002 - a proof has no end
        """See `Policy`."""
        if self.book.is_revoked(self._me):
            raise NotAdmitted("this node was banned from the swarm by its owner")
        return Hello(self.book.charter.swarm, self.book.epoch, proof=self._proof)

    def admit(self, peer: PeerId, hello: Hello, now: float) -> None:  # noqa: ARG002
        """See `Policy`."""
        swarm = self.book.charter.swarm
        if hello.swarm != swarm:
            raise NotProven("a hello for another swarm")
        if not is_proof(swarm, peer, hello.proof):
            raise NotProven("a hello without proof of work")
        if self.book.is_revoked(peer):
            raise NotAdmitted("the peer was banned by the swarm's owner")
        self._inside[peer] = None
        self._inside.move_to_end(peer)
        if len(self._inside) > STRANGERS_MAX:
            self._inside.popitem(last=False)

    def roles(self, peer: PeerId, now: float) -> frozenset[Role]:  # noqa: ARG002
        """See `Policy`."""
        if peer not in self._inside or self.book.is_revoked(peer):
            return _NOBODY
        self._inside.move_to_end(peer)
        return _PUBLIC_ROLES

    def allowance(self, peer: PeerId, now: float) -> Allowance:
        """See `Policy`."""
        return self._allowance_of(peer) if self.roles(peer, now) else allowances.NOBODY

    def peers(self, now: float) -> tuple[PeerId, ...]:  # noqa: ARG002
        """See `Policy`."""
        return tuple(peer for peer in self._inside if not self.book.is_revoked(peer))

    def expel(self, now: float) -> tuple[PeerId, ...]:  # noqa: ARG002
        """See `Policy`."""
        gone = tuple(peer for peer in self._inside if self.book.is_revoked(peer))
        for peer in gone:
            del self._inside[peer]
        return gone
