"""Swarms for tests: an owner who signs, issuers who certify, members on the memory network.

Everything is as in a node, but for the files: what would be saved is kept in lists.
"""

import hashlib
import random
from dataclasses import dataclass, field

from node.swarms.enrolment import Desk, DeskParts, EnrolStream
from node.swarms.gossip import Gossip, GossipParts, Savers
from node.swarms.renewal import Holder, Renewer, RenewerParts
from protocols import versions
from protocols.adapters.memory import MemoryNetwork
from protocols.gate import GateEvents, SwarmGate
from protocols.gating.policies import PrivatePolicy
from protocols.ids import PeerId
from protocols.membership.book import MemberBook, credential_of
from protocols.membership.charter import Charter
from protocols.membership.documents import (
    Certificate,
    Delegation,
    Revocations,
    Role,
    seal_document,
)
from protocols.membership.ledger import Ledger
from protocols.ports import Clock, Transport
from protocols.signing import Identity

DAY = 86_400.0
MEMBER_ROLES = (Role.NODE, Role.USER)


def identity_of(name: str) -> Identity:
    """The same name, the same identity."""
    return Identity(hashlib.sha256(name.encode()).digest())


class Owner:
    """Whoever holds the swarm's key. Signs delegations and the growing revocation list."""

    def __init__(self, name: str = "home", is_private: bool = True) -> None:
        self.identity = identity_of(f"owner of {name}")
        self.charter = Charter(name, self.identity.peer_id, is_private).check()
        self.epoch = 0
        self.revoked: tuple[PeerId, ...] = ()
        self.floor = 0.0

    def delegate(self, issuer: PeerId, now: float, seconds: float = 90 * DAY) -> bytes:
        """Let `issuer` make certificates."""
        document = Delegation(self.charter.swarm, issuer, now, now + seconds)
        return seal_document(document, self.identity)

    def revoke(self, *peers: PeerId, now: float) -> bytes:
        """The next list, with `peers` added."""
        self.revoked += peers
        return self._list(now)

    def rotate(self, now: float) -> bytes:
        """The next list, with which all that was issued before `now` is void."""
        self.floor = now
        return self._list(now)

    def _list(self, now: float) -> bytes:
        self.epoch += 1
        document = Revocations(self.charter.swarm, self.epoch, now, self.revoked, self.floor)
        return seal_document(document, self.identity)


def certify(
    issuer: Identity,
    charter: Charter,
    peer: PeerId,
    now: float,
    seconds: float = DAY,
    roles: tuple[Role, ...] = MEMBER_ROLES,
) -> bytes:
    """A sealed certificate, whether `issuer` may make one or not."""
    return seal_document(Certificate(charter.swarm, peer, roles, 7, now, now + seconds), issuer)


def credential(
    owner: Owner, issuer: Identity, peer: PeerId, now: float, seconds: float = DAY
) -> bytes:
    """A credential as an honest issuer makes it."""
    return credential_of(
        certify(issuer, owner.charter, peer, now, seconds), owner.delegate(issuer.peer_id, now)
    )


@dataclass(slots=True)
class Kept:
    """Stands for the files of one member: what a restart would find."""

    credential: bytes = b""
    ledgers: list[bytes] = field(default_factory=list)
    delegations: tuple[bytes, ...] = ()
    revocations: bytes = b""

    def take(self, data: bytes) -> None:
        """A new credential."""
        self.credential = data

    def save_delegations(self, documents: tuple[bytes, ...]) -> None:
        """See `node.swarms.gossip.Savers`."""
        self.delegations = documents

    def save_revocations(self, data: bytes) -> None:
        """See `node.swarms.gossip.Savers`."""
        self.revocations = data


class Member:
    """One peer of a private swarm with everything that lives; `is_issuer` gives it a desk."""

    def __init__(self, owner: Owner, identity: Identity, clock: Clock, seed: int) -> None:
        self.identity = identity
        self.peer = identity.peer_id
        self.clock = clock
        self.rng = random.Random(f"{seed}{identity.peer_id}")
        self.book = MemberBook(owner.charter)
        self.kept = Kept()
        self.policy = PrivatePolicy(self.peer, self.book, lambda: self.kept.credential)
        self.gate = SwarmGate(self.policy, clock, GateEvents(self._heard, self._rejected))
        self.ledger = Ledger()
        self.desk = Desk(
            DeskParts(identity, self.book, self.ledger, self.kept.ledgers.append, clock, self.rng)
        )
        self.transport: Transport
        self.gossip: Gossip
        self.renewer: Renewer
        self.rejected_by: list[PeerId] = []

    async def join(self, network: MemoryNetwork) -> None:
        """Be there: serve hello, enrol and swarm."""
        self.transport = network.join(self.identity, gate=self.gate).transport
        papers = Savers(self.kept.save_delegations, self.kept.save_revocations)
        self.gossip = Gossip(
            GossipParts(self.book, self.transport, self.gate, self.clock, self.rng, papers)
        )
        self.renewer = Renewer(
            RenewerParts(self.book, self.transport, self.clock, self.rng, self._holder(), self.desk)
        )
        await self.gossip.serve()
        await self.transport.serve(versions.ENROL, EnrolStream(self.desk))

    def address(self) -> str:
        """Where it can be dialled."""
        return self.transport.addresses()[0]

    def _holder(self) -> Holder:
        async def renewed() -> None:
            await self.gossip.settle()
            await self.gate.regreet()

        return Holder(
            lambda: self.kept.credential,
            self.kept.take,
            lambda issuer: (f"/memory/{issuer}/p2p/{issuer}",),
            renewed,
        )

    def _heard(self, peer: PeerId, epoch: int) -> None:
        self.gossip.heard(peer, epoch)

    def _rejected(self, peer: PeerId) -> None:
        self.rejected_by.append(peer)
        self.renewer.renew_soon()
