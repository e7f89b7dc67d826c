"""The swarms of a running node as its owner sees them, and what the owner can have done to them.

Knows presences and their papers; must not know HTTP or the command line.
"""

import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing

from msgspec import ValidationError

from node import state as shapes
from node.presence import Presence
from node.presences import Presences
from protocols import limits
from protocols.errors import DslmError, NotAdmitted, ProtocolError, UserError
from protocols.ids import PeerId, parse_peer_id
from protocols.membership.documents import (
    Role,
    open_delegation,
    peek_certificate,
    unpack_credential,
)
from protocols.membership.invite import PREFIX, Invite, format_invite, parse_invite
from protocols.membership.ledger import Issued
from protocols.ports import Clock
from protocols.signing import Identity

INVITE_SECONDS_MAX = 30 * 24 * 3_600.0
_ROLES = tuple(role.value for role in Role if role is not Role.ISSUER)
_READERS = {
    "private": "The members of {name} that serve your prompt can read it; nobody else can.",
    "public": "Any peer that serves your prompt can read it, and anybody can become one.",
}


def readers_of(presence: Presence) -> str:
    """Who can read a prompt that is sent there, in a sentence."""
    kind = "private" if presence.charter.is_private else "public"
    return _READERS[kind].format(name=presence.name)


def kind_of(presence: Presence) -> str:
    """`private`, `public` or `open`."""
    if presence.charter.is_private:
        return "private"
    return "public" if presence.charter.owner else "open"


class SwarmView:
    """The part of `node.state.NodeView` that is about swarms."""

    def __init__(self, presences: Presences, clock: Clock) -> None:
        self._presences = presences
        self._clock = clock

    def readers(self) -> tuple[shapes.SwarmReaders, ...]:
        """See `NodeView`."""
        return tuple(
            shapes.SwarmReaders(one.name, kind_of(one), number == 0, readers_of(one))
            for number, one in enumerate(self._presences.all())
        )

    async def swarms(self) -> shapes.SwarmsState:
        """See `NodeView`."""
        rows = [
            self._swarm(one, is_current=number == 0)
            for number, one in enumerate(self._presences.all())
        ]
        return shapes.SwarmsState(shapes.SCHEMA_VERSION, tuple(rows))

    async def members(self, name: str) -> shapes.MembersState:
        """See `NodeView`."""
        presence = self._presences.named(name)
        rows = (*self._seen(presence), *self._unseen(presence), *_revoked(presence))
        return shapes.MembersState(shapes.SCHEMA_VERSION, name, rows)

    async def join(self, target: str) -> AsyncGenerator[shapes.Check | shapes.JoinReport, None]:
        """See `NodeView`."""
        async with aclosing(self._presences.join(target, self._clock.now())) as steps:
            async for step in steps:
                yield step

    async def invite(
        self, name: str, roles: tuple[str, ...], uses: int, lifetime: float
    ) -> shapes.InviteReport:
        """See `NodeView`."""
        presence = self._presences.named(name)
        addresses = _addresses_to_invite(presence)
        if not presence.charter.is_private:
            text = format_invite(Invite(presence.charter, addresses))
            return shapes.InviteReport(shapes.SCHEMA_VERSION, name, text, "", (), 0, 0.0)
        now, seed = self._clock.now(), secrets.token_bytes(32)
        invite_id = Identity(seed).peer_id
        expires_at = now + _checked_lifetime(lifetime)
        granted = _checked_roles(roles)
        if not 1 <= uses <= limits.INVITE_USES_MAX:
            raise UserError(f"an invite has 1 to {limits.INVITE_USES_MAX} uses, not {uses}")
        if not presence.desk.is_open():
            raise UserError(
                f"this node may not invite to {name}: only issuers may. The owner makes one with "
                f"`dslm swarm appoint {presence.me}`"
            )
        presence.desk.enter(Issued(invite_id, granted, uses, now, expires_at))
        text = format_invite(Invite(presence.charter, addresses, expires_at, seed))
        return shapes.InviteReport(
            shapes.SCHEMA_VERSION, name, text, invite_id, tuple(granted), uses, expires_at
        )

    async def withdraw(self, name: str, invite: str) -> shapes.WithdrawalReport:
        """See `NodeView`."""
        presence = self._presences.named(name)
        invite_id = _id_of(invite)
        if not presence.desk.withdraw(invite_id):
            raise UserError(
                f"this node has no such invite to {name}: it was made on another node, it is "
                "withdrawn or used up already, or it expired"
            )
        return shapes.WithdrawalReport(shapes.SCHEMA_VERSION, name, invite_id)

    async def use(self, name: str) -> None:
        """See `NodeView`."""
        await self._presences.use(name)

    async def load(self, name: str) -> None:
        """See `NodeView`."""
        await self._presences.load(name)

    async def leave(self, name: str) -> None:
        """See `NodeView`."""
        await self._presences.leave(name)

    async def documents(self, name: str) -> tuple[bytes, ...]:
        """See `NodeView`."""
        return self._presences.named(name).papers.documents()

    async def publish(self, name: str, documents: tuple[bytes, ...]) -> None:
        """See `NodeView`."""
        presence = self._presences.named(name)
        if not presence.charter.owner:
            raise UserError(f"the swarm {name} belongs to nobody: nobody's word counts there")
        try:
            await presence.take_documents(documents)
        except (DslmError, ValidationError) as error:
            raise UserError(f"these are no documents of the swarm {name}: {error}") from error

    # ----------------------------------------------------------------------------------------

    def _swarm(self, presence: Presence, *, is_current: bool) -> shapes.SwarmState:
        now, book = self._clock.now(), presence.papers.book
        roles, expires_in = _own_certificate(presence, now)
        owner_key = presence.owner_key_file
        return shapes.SwarmState(
            name=presence.name,
            swarm=presence.charter.swarm,
            kind=kind_of(presence),
            is_current=is_current,
            peer=presence.me,
            roles=roles,
            certificate_expires_in=expires_in,
            delegation_expires_in=_own_delegation(presence, now),
            epoch=book.epoch,
            issuers=tuple(book.issuers(now)),
            revoked=len(book.revocations.peers),
            members=1 + len(presence.others()),
            addresses=presence.reach.announced(),
            reachable=presence.reach.reached(),
            network=_status(presence),
            owner_key=str(owner_key) if owner_key.exists() else "",
            readers=readers_of(presence),
        )

    def _seen(self, presence: Presence) -> list[shapes.MemberState]:
        """This node, and those who were admitted."""
        now = self._clock.now()
        roles, expires_in = _own_certificate(presence, now)
        own_name = _name_of(presence, presence.me, now)
        rows = [
            shapes.MemberState(presence.me, own_name, True, "ok", roles, presence.me, expires_in)
        ]
        for peer in presence.others():
            member = presence.papers.book.member(peer, now)
            rows.append(
                shapes.MemberState(
                    peer,
                    _name_of(presence, peer, now),
                    False,
                    "ok",
                    tuple(sorted(member.roles)) if member else (),
                    member.issuer if member else "",
                    member.expires_at - now if member else None,
                )
            )
        return rows

    def _unseen(self, presence: Presence) -> list[shapes.MemberState]:
        """Those of whom there are records only."""
        now = self._clock.now()
        met = {presence.me, *presence.others()}
        return [
            shapes.MemberState(node.peer, node.name, False, "unseen", (), "", None)
            for node in presence.directory.nodes(now)
            if node.peer not in met and not presence.papers.book.is_revoked(PeerId(node.peer))
        ]


def _status(presence: Presence) -> str:
    trouble = presence.renewer.last_error
    status = presence.network.status()
    return f"{status}, but the certificate is not renewed: {trouble}" if trouble else status


def _revoked(presence: Presence) -> list[shapes.MemberState]:
    return [
        shapes.MemberState(peer, "", False, "revoked", (), "", None)
        for peer in presence.papers.book.revocations.peers
    ]


def _name_of(presence: Presence, peer: PeerId, now: float) -> str:
    node = presence.directory.node(peer, now)
    return node.name if node is not None else ""


def _own_certificate(presence: Presence, now: float) -> tuple[tuple[str, ...], float | None]:
    """Our roles, and for how long."""
    if not presence.charter.is_private:
        return (Role.NODE.value, Role.USER.value), None
    try:
        membership = presence.papers.book.check(presence.me, presence.papers.credential(), now)
    except NotAdmitted:
        return (), _time_left(presence, now)
    return tuple(sorted(membership.roles)), membership.expires_at - now


def _time_left(presence: Presence, now: float) -> float | None:
    data = presence.papers.credential()
    if not data:
        return None
    certificate = unpack_credential(data).certificate
    return peek_certificate(certificate, presence.charter)[1].expires_at - now


def _own_delegation(presence: Presence, now: float) -> float | None:
    try:
        data = presence.papers.book.delegation_of(presence.me, now)
    except NotAdmitted:
        return None
    return open_delegation(data, presence.charter).expires_at - now


def _addresses_to_invite(presence: Presence) -> tuple[str, ...]:
    addresses = presence.reach.announced()
    if not addresses:
        raise UserError(
            "this node has no address at which anybody could reach it: see [network] listen, or "
            "name a relay in [network] relays"
        )
    return addresses[:4]


def _checked_lifetime(seconds: float) -> float:
    if not 60.0 <= seconds <= INVITE_SECONDS_MAX:
        raise UserError("an invite holds for a minute at least and 30 days at most")
    return seconds


def _checked_roles(names: tuple[str, ...]) -> tuple[Role, ...]:
    if Role.ISSUER in names:
        raise UserError(
            "an invite makes nobody an issuer: let the peer join as a node, then the owner makes "
            "it one with `dslm swarm appoint PEER`"
        )
    unknown = [name for name in names if name not in _ROLES]
    if unknown or not names:
        raise UserError(f"roles of an invite are {', '.join(_ROLES)}; not {', '.join(unknown)}")
    return tuple(dict.fromkeys(Role(name) for name in names))


def _id_of(invite: str) -> PeerId:
    """Of an invite string, or the id itself."""
    try:
        return (
            parse_invite(invite).invite_id if invite.startswith(PREFIX) else parse_peer_id(invite)
        )
    except ProtocolError as error:
        raise UserError(f"{invite!r} is neither an invite of a private swarm nor its id") from error
