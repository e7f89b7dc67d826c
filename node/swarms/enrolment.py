"""Certificates: the issuer's desk that makes them, and the joiner who asks for the first one.

Knows invites, the ledger and `/dslm/enrol/1`; must not know files (the ledger is saved through a
callable, before anybody is answered) nor when a member renews (`node.swarms.renewal`).
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from protocols import limits, versions
from protocols.channel import Channel
from protocols.errors import (
    DeadlineExceeded,
    NetworkError,
    NotAdmitted,
    PeerLost,
    ProtocolError,
    RecordError,
    UserError,
)
from protocols.ids import PeerId
from protocols.membership.book import MemberBook, Membership, credential_of
from protocols.membership.documents import Certificate, Role, seal_document
from protocols.membership.invite import Invite, check_proof, prove_invite
from protocols.membership.ledger import Issued, Ledger
from protocols.messages.enrol import (
    ENROL_REQUEST_BYTES_MAX,
    EnrolAnswer,
    EnrolAsk,
    Enrolled,
    EnrolRefused,
    EnrolRequest,
    RenewRequest,
)
from protocols.metering import Rate, TokenBucket
from protocols.ports import Clock, Stream, Transport
from protocols.signing import Identity

CHECKS = Rate(per_second=20.0, burst=60.0)
"""Signatures of strangers that are looked at; more are refused unseen."""
ENROL_SECONDS = 15.0
"""For the joiner's whole exchange: the issuer writes to its disk before it answers."""
_NO_PLACE = "no place in this swarm"
_SERIAL_BITS = 63
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DeskParts:
    """`save` keeps the ledger's bytes on disk before it returns; `OSError` or a `DslmError` if it
    cannot."""

    identity: Identity
    book: MemberBook
    ledger: Ledger
    save: Callable[[bytes], None]
    clock: Clock
    rng: Random


class Desk:
    """An issuer's own: makes invites, and certificates for those who hold one. Sends nothing."""

    def __init__(self, parts: DeskParts) -> None:
        self._identity = parts.identity
        self._book = parts.book
        self._ledger = parts.ledger
        self._save = parts.save
        self._clock = parts.clock
        self._rng = parts.rng
        self._checks = TokenBucket(parts.clock.monotonic())

    def is_open(self) -> bool:
        """Whether this peer may make certificates now."""
        return self._book.is_issuer(self._identity.peer_id, self._clock.now())

    def enter(self, invite: Issued) -> None:
        """Enter a new invite into the ledger and save it, before its string is shown to anybody.

        `NotAdmitted` if it cannot be, or this peer is no issuer; then there is no invite.
        """
        now = self._clock.now()
        self._book.delegation_of(self._identity.peer_id, now)
        if set(invite.roles) == {Role.ISSUER}:
            raise NotAdmitted("an invite gives another role than issuer: the owner makes issuers")
        self._ledger.add(invite, now)
        try:
            self._save(self._ledger.dump())
        except BaseException:
            self._ledger.withdraw(PeerId(invite.invite))
            raise

    def withdraw(self, invite: PeerId) -> bool:
        """Let nobody use an invite any more; whether there was such an invite."""
        was_there = self._ledger.withdraw(invite)
        self._save(self._ledger.dump())
        return was_there

    def enrol(self, peer: PeerId, request: EnrolRequest) -> Enrolled:
        """A credential for `peer`, who holds an invite; `NotAdmitted` says why not.

        The use is counted and saved first. Should the answer get lost, the same peer may ask again
        at no further use.
        """
        now = self._clock.now()
        invite = PeerId(request.invite)
        if request.swarm != self._book.charter.swarm or invite not in self._ledger.issued:
            raise NotAdmitted(_NO_PLACE)
        self._check_pace(1)
        me = self._identity.peer_id
        try:
            check_proof(invite, self._book.charter.swarm, peer, me, request.signature)
        except RecordError:
            raise NotAdmitted(_NO_PLACE) from None
        self._book.delegation_of(me, now)
        if self._book.is_revoked(peer):
            raise NotAdmitted("the peer was revoked")
        floor = self._book.revocations.floor
        issued = self._ledger.redeem(invite, peer, now, floor)
        self._save(self._ledger.dump())
        return self._answer(peer, frozenset(issued.roles))

    def renew(self, peer: PeerId, request: RenewRequest) -> Enrolled:
        """A new credential for the one that `peer` shows, with the same roles."""
        if request.swarm != self._book.charter.swarm:
            raise NotAdmitted(_NO_PLACE)
        self._check_pace(2)
        now = self._clock.now()
        return self._answer(peer, self._book.may_renew(peer, request.credential, now).roles)

    def issue(self, peer: PeerId, roles: frozenset[Role]) -> bytes:
        """A credential made here and now. `NotAdmitted` if this peer may not make any.

        The role of issuer is only put down for whom the owner made one.
        """
        now = self._clock.now()
        delegation = self._book.delegation_of(self._identity.peer_id, now)
        if self._book.is_revoked(peer):
            raise NotAdmitted("the peer was revoked")
        if Role.ISSUER in roles and not self._book.is_issuer(peer, now):
            roles -= {Role.ISSUER}
        if not roles:
            raise NotAdmitted("no role is left that this peer can certify")
        # The owner's clock may be a little ahead: what is made after a rotation must count as such.
        begins = max(now, min(self._book.revocations.floor, now + limits.CLOCK_SKEW_SECONDS_MAX))
        certificate = Certificate(
            swarm=self._book.charter.swarm,
            peer=peer,
            roles=tuple(sorted(roles)),
            serial=self._rng.getrandbits(_SERIAL_BITS),
            issued_at=begins,
            expires_at=begins + limits.CERTIFICATE_SECONDS_MAX,
        )
        return credential_of(seal_document(certificate, self._identity), delegation)

    def _answer(self, peer: PeerId, roles: frozenset[Role]) -> Enrolled:
        return Enrolled(self.issue(peer, roles), self._book.revocations_bytes)

    def _check_pace(self, signatures: int) -> None:
        if not self._checks.take(CHECKS, self._clock.monotonic(), signatures):
            raise NotAdmitted("too many at the door: try again in a few seconds")


class EnrolStream:
    """The stream handler of the enrol protocol: one request, one answer."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def __call__(self, stream: Stream) -> None:
        """Answer `stream`, whose peer may be anybody."""
        channel: Channel[EnrolAsk] = Channel(stream, EnrolAsk, header_max=ENROL_REQUEST_BYTES_MAX)
        try:
            async with asyncio.timeout(limits.FIRST_MESSAGE_SECONDS):
                request = await channel.receive()
            if request is None:
                return
            answer = self._decide(stream.peer, request)
            async with asyncio.timeout(limits.STREAM_IDLE_SECONDS):
                await channel.send(answer)
                await stream.close()
        except (TimeoutError, NetworkError, ProtocolError):
            stream.abort()

    def _decide(self, peer: PeerId, request: EnrolAsk) -> EnrolAnswer:
        try:
            match request:
                case EnrolRequest():
                    return self._desk.enrol(peer, request)
                case RenewRequest():
                    return self._desk.renew(peer, request)
        except NotAdmitted as error:
            return EnrolRefused(str(error)[:200])
        except (OSError, UserError) as error:
            _log.error("the ledger of invites cannot be saved: %s", error)
            return EnrolRefused("this issuer cannot write to its disk now")


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What an issuer gave us, checked. `revocations` may be empty."""

    credential: bytes
    revocations: bytes
    membership: Membership


async def enrol(
    transport: Transport, invite: Invite, identity: Identity, clock: Clock
) -> Enrolment:
    """Redeem `invite` at its issuer, who is dialled at the invite's addresses.

    `NotAdmitted` says why the issuer refused or why what it gave us does not hold; the
    transport's errors and `DeadlineExceeded` if it cannot be asked. May be repeated: the same
    identity uses the invite up once only.
    """
    charter, issuer = invite.charter, invite.issuer
    if invite.expires_at <= clock.now():
        raise NotAdmitted("the invite expired: ask for a new one, and compare the clocks")
    signature = prove_invite(invite.key(), charter.swarm, identity.peer_id, issuer)
    request = EnrolRequest(charter.swarm, invite.invite_id, signature)
    answer = await ask_issuer(transport, issuer, invite.addresses_of(issuer), request)
    return check_enrolled(answer, MemberBook(charter), identity.peer_id, clock.now())


async def ask_issuer(
    transport: Transport, issuer: PeerId, addresses: tuple[str, ...], request: EnrolAsk
) -> Enrolled:
    """The answer of `issuer` to `request`, unchecked; errors as of `enrol`."""
    try:
        async with asyncio.timeout(ENROL_SECONDS):
            stream = await transport.open_stream(issuer, versions.ENROL, addresses)
            try:
                channel: Channel[EnrolAnswer] = Channel(stream, EnrolAnswer)
                await channel.send(request)
                answer = await channel.receive()
                await stream.close()
            finally:
                stream.abort()
    except TimeoutError:
        raise DeadlineExceeded(f"the issuer {issuer} did not answer") from None
    match answer:
        case None:
            raise PeerLost(f"the issuer {issuer} ended the stream without an answer")
        case EnrolRefused(reason=reason):
            raise NotAdmitted(f"the issuer refused: {reason or 'it gave no reason'}")
        case Enrolled():
            return answer


def check_enrolled(answer: Enrolled, book: MemberBook, me: PeerId, now: float) -> Enrolment:
    """`answer` if it makes `me` a member now, as `book` sees it with the list that came with it.

    `book` takes note of that list. `NotAdmitted` if it does not hold, `RecordError` if the list is
    no list of this swarm.
    """
    if answer.revocations:
        book.offer_revocations(answer.revocations)
    try:
        membership = book.believe(me, answer.credential, now)
    except NotAdmitted as error:
        raise NotAdmitted(f"the issuer's certificate does not hold: {error}") from error
    return Enrolment(answer.credential, answer.revocations, membership)
