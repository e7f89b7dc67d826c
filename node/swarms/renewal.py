"""A member's certificate, renewed at half its life by any issuer that answers.

Knows when a certificate is due and who may make the next one; must not know where it is kept (a
callable does) nor how others are shown it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random

from node.swarms.enrolment import Desk, ask_issuer, check_enrolled
from protocols.errors import DslmError, NotAdmitted, ProtocolError
from protocols.ids import PeerId
from protocols.membership.book import MemberBook
from protocols.membership.documents import (
    Certificate,
    Role,
    open_delegation,
    peek_certificate,
    unpack_credential,
)
from protocols.messages.enrol import RenewRequest
from protocols.ports import Clock, Transport

RETRY_SECONDS_FIRST = 5.0
RETRY_SECONDS_MAX = 600.0
HINT_SECONDS_MIN = 300.0
"""Hints that our certificate is not good are heeded this often at most: anybody can give them."""
LIFE_SECONDS_MIN = 600.0
"""A certificate is used so long at least, even where its issuer's delegation is about to end."""
SPREAD_SECONDS = 60.0
"""After a rotation the members come to the issuers within this time, not all at once."""
_LOOK_SECONDS = 60.0
"""The wall clock may jump: how long we wait at most before we look at it again."""
_PAUSE_SECONDS = 30.0
"""Between a renewal and the next, if that should be due at once."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RenewerParts:
    """`desk` is our own where we are an issuer: issuers renew themselves."""

    book: MemberBook
    transport: Transport
    clock: Clock
    rng: Random
    holder: "Holder"
    desk: Desk | None = None


@dataclass(frozen=True, slots=True)
class Holder:
    """Where our credential is, and what is around it."""

    credential: Callable[[], bytes]
    keep: Callable[[bytes], None]
    """Save it and use it from now on; raises a `DslmError` or `OSError` if it cannot be saved."""
    addresses_of: Callable[[PeerId], Sequence[str]]
    """Where an issuer may be found, besides a connection that stands."""
    on_renewed: Callable[[], Awaitable[None]]
    """Have it shown to the others: `SwarmGate.regreet`, and see to what else the book learned."""


class Renewer:
    """Sees to it that this node always has a certificate, as long as an issuer lets it."""

    def __init__(self, parts: RenewerParts) -> None:
        self._book = parts.book
        self._transport = parts.transport
        self._clock = parts.clock
        self._rng = parts.rng
        self._holder = parts.holder
        self._desk = parts.desk
        self._opened: tuple[bytes, Certificate, PeerId] | None = None
        self._hinted = asyncio.Event()
        self._last_hint = float("-inf")
        self.last_error = ""
        """Why the last attempt came to nothing; empty if it succeeded."""

    async def run(self) -> None:
        """Renew whenever it is due, for ever; attempts that fail are repeated ever less often."""
        pause = RETRY_SECONDS_FIRST
        while True:
            try:
                await self._wait_due()
            except ProtocolError as error:  # there is none, or it is damaged
                self.last_error = str(error)
                await self._wait_hint(_LOOK_SECONDS)
                continue
            if await self._try():
                pause = RETRY_SECONDS_FIRST
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                await asyncio.sleep(pause * self._rng.uniform(0.5, 1.5))
                pause = min(2 * pause, RETRY_SECONDS_MAX)

    def renew_soon(self) -> None:
        """A peer does not believe our certificate: perhaps it is older than a rotation that we
        have not heard of. Heeded every 5 minutes at most."""
        now = self._clock.monotonic()
        if now - self._last_hint >= HINT_SECONDS_MIN:
            self._last_hint = now
            self._hinted.set()

    def due_at(self) -> float:
        """When to renew, in Unix seconds: at half the time that our certificate has.

        `ProtocolError` if we have none.
        """
        certificate, issuer = self._current()
        if certificate.issued_at < self._book.revocations.floor:
            spread = 0.0 if self._is_issuer() else SPREAD_SECONDS
            since = self._book.revocations.issued_at
            return since + self._rng.uniform(0, spread)
        try:
            delegation = self._book.delegation_of(issuer, self._clock.now())
        except NotAdmitted:
            return certificate.issued_at  # it does not hold any more, whatever it says itself
        ends = open_delegation(delegation, self._book.charter).expires_at
        life = min(certificate.expires_at, ends) - certificate.issued_at
        return certificate.issued_at + max(life / 2, LIFE_SECONDS_MIN)

    async def renew(self) -> None:
        """Renew now. The error of the last issuer that was asked if none of them helps."""
        if self._is_issuer() and self._desk is not None:
            credential = self._issue(self._desk)
        else:
            credential = await self._ask_around()
        self._holder.keep(credential)
        await self._holder.on_renewed()

    # ----------------------------------------------------------------------------------------

    def _is_issuer(self) -> bool:
        return self._desk is not None and self._desk.is_open()

    def _issue(self, desk: Desk) -> bytes:
        me, now = self._transport.peer_id, self._clock.now()
        roles = frozenset(self._current()[0].roles) | {Role.ISSUER}
        credential = desk.issue(me, roles)
        self._book.believe(me, credential, now)
        return credential

    async def _ask_around(self) -> bytes:
        me = self._transport.peer_id
        issuers = [peer for peer in self._book.issuers(self._clock.now()) if peer != me]
        issuer_of_ours = self._current()[1]
        if issuer_of_ours not in issuers and issuer_of_ours != me:
            issuers.append(issuer_of_ours)  # perhaps it has a newer delegation than we know of
        self._rng.shuffle(issuers)
        error: DslmError = NotAdmitted("no issuer of the swarm is known")
        for issuer in issuers:
            try:
                return await self._ask(issuer)
            except DslmError as failure:
                _log.debug("%s does not renew our certificate: %s", issuer, failure)
                error = failure
        raise error

    async def _ask(self, issuer: PeerId) -> bytes:
        request = RenewRequest(self._book.charter.swarm, self._holder.credential())
        addresses = tuple(self._holder.addresses_of(issuer))
        answer = await ask_issuer(self._transport, issuer, addresses, request)
        me, now = self._transport.peer_id, self._clock.now()
        return check_enrolled(answer, self._book, me, now).credential

    def _current(self) -> tuple[Certificate, PeerId]:
        """Our certificate and who made it; `ProtocolError` if we have none."""
        data = self._holder.credential()
        if self._opened is None or self._opened[0] != data:
            credential = unpack_credential(data)
            issuer, certificate = peek_certificate(credential.certificate, self._book.charter)
            self._opened = data, certificate, issuer
        return self._opened[1], self._opened[2]

    async def _try(self) -> bool:
        self._hinted.clear()
        try:
            await self.renew()
        except (DslmError, OSError) as error:
            if str(error) != self.last_error:
                _log.warning("the certificate could not be renewed: %s", error)
            self.last_error = str(error)
            return False
        self.last_error = ""
        return True

    async def _wait_due(self) -> None:
        due_at = self.due_at()
        papers = self._papers()
        while not self._hinted.is_set():
            if self._papers() != papers:
                due_at, papers = self.due_at(), self._papers()
            left = due_at - self._clock.now()
            if left <= 0:
                return
            await self._wait_hint(min(left, _LOOK_SECONDS))

    def _papers(self) -> tuple[bytes, int, bool]:
        """What `due_at` depends on besides time."""
        credential = self._holder.credential()
        believed = self._book.is_issuer(self._current()[1], self._clock.now())
        return credential, self._book.epoch, believed

    async def _wait_hint(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._hinted.wait()
        except TimeoutError:
            return
