"""One swarm as this node takes part in it: its network, gate, papers, directory and coordinator.

Knows how these are wired and in which order they begin and end; the models behind them are shared
by all presences (`Ground`), and which swarms there are is `node.presences`' business.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from coordinator.answer import AnswerEvent, AnswerRequest, Completed
from coordinator.coordinator import Coordinator
from coordinator.coordinator import Parts as CoordinatorParts
from coordinator.directory import Directory
from coordinator.discovery import Discovery
from coordinator.pinging import Pong
from coordinator.reputation import Outcomes
from coordinator.routing.head import load_head
from node.announcer import Announcer
from node.footing import Footing, Ground, Place, stand
from node.joining import Reached
from node.keeping import Books, Keeper
from node.profile import Profile
from node.services.info import InfoStream
from node.services.memory_fetch import FetchParts
from node.services.offer import ModelOffer
from node.swarms.company import Company, CompanyPorts
from node.swarms.enrolment import Desk, DeskParts, Enrolment, EnrolStream, enrol
from node.swarms.folder import SwarmFolder
from node.swarms.gossip import Gossip, GossipParts, Savers
from node.swarms.outcome_book import OutcomeBook
from node.swarms.reach import ReachAsker, ReachPorts, ReachService
from node.swarms.reachability import Reachability
from node.swarms.remembered import PeerMemory
from node.swarms.renewal import Holder, Renewer, RenewerParts
from protocols import versions
from protocols.errors import PeerLost, PeerUnreachable
from protocols.ids import PeerId
from protocols.membership.charter import Charter
from protocols.membership.documents import Role, peek_certificate, unpack_credential
from protocols.membership.invite import Invite

FIRST_CHECK_SECONDS = 3.0
_ENROL_TRIES = 3
RETURN_SECONDS_FIRST, RETURN_SECONDS_MAX = 1.0, 60.0
_log = logging.getLogger(__name__)


@asynccontextmanager
async def take_part(ground: Ground, place: Place) -> AsyncIterator["Presence"]:
    """A presence that is up: it serves, announces and looks for others until the block is left."""
    async with stand(ground, place) as footing:
        presence = Presence(ground, footing)
        try:
            await presence.start()
            yield presence
        finally:
            presence.stop()


class Presence:
    """The parts, wired; also the `node.joining.Entrance` of its swarm."""

    def __init__(self, ground: Ground, footing: Footing) -> None:
        self._ground = ground
        self._footing = footing
        self._background: list[asyncio.Task[None]] = []
        self.memory = PeerMemory(footing.place.folder)
        self.papers, self.gate, self.network = footing.papers, footing.gate, footing.network
        transport, clock, rng = self.network.transport, ground.clock, ground.rng
        me = transport.peer_id
        self.directory = Directory(self.charter.swarm, me, is_welcome=self._is_welcome)
        self.discovery = Discovery(self.directory, self.network.records, clock, rng)
        self.company = Company(
            CompanyPorts(
                self.network.connected_peers, self.others, footing.ears.conduct.met, ground.rng
            )
        )
        self.reach = ReachAsker(
            ReachPorts(transport, self.company.peers, self.network.observed, clock, rng),
            Reachability(ground.config.network.announce),
        )
        self.profile = self._make_profile()
        self.announcer = Announcer(
            footing.place.folder.identity,
            self.network.records,
            self.directory,
            clock,
            rng,
            self.profile.offer,
        )
        parts = FetchParts(transport, self._is_trusted, self._addresses_of, footing.tasks)
        self._offer = ModelOffer(ground.service, ground.memory, parts)
        is_kept = ground.config.network.remember
        outcomes = OutcomeBook(footing.place.folder, clock, is_kept=is_kept)
        books = Books(self.memory, footing.ears.conduct, outcomes, is_kept)
        self.keeper = Keeper(books, self.company, self.directory, clock, rng)
        self.coordinator = self._make_coordinator(books.outcomes.outcomes)
        self.desk = self._make_desk()
        self.gossip = self._make_gossip()
        self.renewer = self._make_renewer()

    def __repr__(self) -> str:
        return f"<Presence in {self.charter.name} as {self.me}>"

    @property
    def charter(self) -> Charter:
        """Of the swarm."""
        return self._footing.place.folder.charter

    @property
    def folder(self) -> SwarmFolder:
        """The swarm's files."""
        return self._footing.place.folder

    @property
    def name(self) -> str:
        """The swarm's."""
        return self.charter.name

    @property
    def me(self) -> PeerId:
        """Who this node is in the swarm."""
        return self.network.transport.peer_id

    @property
    def owner_key_file(self) -> Path:
        """Where the owner's key lies, if the swarm was made on this machine."""
        return self._ground.config.paths.owners / f"{self.name}.key"

    def others(self) -> tuple[PeerId, ...]:
        """Peers that were admitted, and admit us or did."""
        return tuple(peer for peer in self.gate.peers() if peer != self.me)

    async def start(self) -> None:
        """Serve peers, then come back to those known from before, announce and look for others."""
        transport, ears = self.network.transport, self._footing.ears
        ears.gossip, ears.renewer = self.gossip, self.renewer
        await transport.serve(versions.INFO, InfoStream(self.profile.info))
        await self._offer.serve()
        reach = ReachService(self.network.probe, self.network.observed, self._ground.clock)
        await transport.serve(versions.REACH, reach)
        await self.gossip.serve()
        await transport.serve(versions.ENROL, EnrolStream(self.desk))
        self.folder.save_listen_addresses(self.network.listening)
        self._begin(self.gossip.run())
        self._begin(self.company.run())
        self._begin(self.keeper.run())
        if not self.charter.is_private or self.papers.credential():
            await self._begin_as_member()

    def stop(self) -> None:
        """End what runs in the background, and keep what it learned."""
        for task in self._background:
            task.cancel()
        self._background.clear()
        self.keeper.save()

    async def answer(self, request: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:
        """See `Coordinator.answer`; peers that helped are remembered for it."""
        async with aclosing(self.coordinator.answer(request)) as events:
            async for event in events:
                if isinstance(event, Completed):
                    self.keeper.credit(event, self.me)
                yield event

    async def take_documents(self, documents: Sequence[bytes]) -> None:
        """Learn what the swarm's owner signed, and spread it.

        `RecordError` if somebody else signed it.
        """
        now, book = self._ground.clock.now(), self.papers.book
        for data in documents:
            book.offer(data, now)
        await self.gossip.settle()

    # The entrance ---------------------------------------------------------------------------

    async def dial(self, address: str) -> PeerId:
        """See `Entrance`."""
        return await self.network.transport.connect(address)

    async def enrol(self, issuer: PeerId, invite: Invite) -> str:  # noqa: ARG002
        """See `Entrance`; the invite names its issuer."""
        clock = self._ground.clock
        enrolment = await self._redeem(invite)
        if enrolment.revocations:
            self.papers.book.offer_revocations(enrolment.revocations)
            self.papers.save_revocations()
        self.papers.take_credential(enrolment.credential)
        hours = (enrolment.membership.expires_at - clock.now()) / 3600
        roles = ", ".join(sorted(enrolment.membership.roles))
        await self._begin_as_member()
        return f"certificate for {roles}, {hours:.0f} hours, renewed by itself"

    async def _redeem(self, invite: Invite) -> Enrolment:
        """`enrol`, again if the stream breaks: a busy issuer may cut one off, or lose it."""
        identity, clock = self.folder.identity, self._ground.clock
        for _ in range(_ENROL_TRIES - 1):
            with suppress(PeerLost):
                return await enrol(self.network.transport, invite, identity, clock)
        return await enrol(self.network.transport, invite, identity, clock)

    async def greet(self, peer: PeerId) -> None:
        """See `Entrance`."""
        await self.gate.greet(peer, versions.INFO)

    async def meet(self, address: str) -> None:
        """See `Entrance`."""
        report = await self.network.join((address,))
        if not report.reached:
            raise PeerUnreachable(next(iter(report.unreachable.values())))

    async def ping(self, peer: PeerId) -> Pong:
        """See `Entrance`."""
        return await self.coordinator.ping(peer)

    async def reach_back(self) -> Reached:
        """See `Entrance`; what was found is announced at once."""
        await self.company.refresh()
        outcome = await self.reach.check()
        reasons = (
            *outcome.errors,
            *self.reach.reachability.reasons(self._ground.clock.monotonic()),
        )
        self.announcer.announce_soon()
        return Reached(outcome.answered, self.reach.reached(), reasons)

    async def discover(self) -> int:
        """See `Entrance`."""
        return (await self.discovery.refresh()).peers

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._background.append(self._footing.tasks.create_task(work))

    async def _begin_as_member(self) -> None:
        """What only somebody who is in the swarm can do."""
        if self.charter.is_private:
            self._begin(self.renewer.run())
        if self._ground.config.network.remember:
            self._begin(self._come_back(self.memory.addresses()))
        self._begin(self.discovery.run())
        self._begin(self.coordinator.reputation.inspector.run())
        if not self._may_host():
            return
        self._begin(self._announce())

    async def _announce(self) -> None:
        """Announce where others have reached us: so ask first, as far as somebody is there."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_CHECK_SECONDS):
                await self.company.refresh()
                await self.reach.check()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.reach.run(self.announcer.announce_soon))
            await self.announcer.announce()
            tasks.create_task(self.announcer.run())

    def _may_host(self) -> bool:
        """Nobody would keep the records of a member that may only ask."""
        if not self.charter.is_private:
            return True
        data = unpack_credential(self.papers.credential()).certificate
        return Role.NODE in peek_certificate(data, self.charter)[1].roles

    async def _come_back(self, addresses: tuple[str, ...]) -> None:
        """Dial those who were there before, until somebody is there."""
        pause = RETURN_SECONDS_FIRST
        while addresses and not self.others():
            report = await self.network.join(addresses)
            if report.reached:
                self.announcer.announce_soon()
                await self.discovery.refresh()
            await asyncio.sleep(pause)
            pause = min(2 * pause, RETURN_SECONDS_MAX)

    def _keep_revocations(self, data: bytes) -> None:
        """Save a new list, and forget what those on it said."""
        self.folder.save_revocations(data)
        for peer in map(PeerId, self.papers.book.revocations.peers):
            self.directory.forget(peer)
            self.memory.forget(peer)

    # Wiring ---------------------------------------------------------------------------------

    def _make_profile(self) -> Profile:
        ground = self._ground
        return Profile(
            ground.config.node.name or self.me[-6:],
            self.charter.swarm,
            ground.cards,
            self.reach.announced,
            self.network.transport,
            ground.service,
            ground.clock,
        )

    def _make_coordinator(self, outcomes: Outcomes) -> Coordinator:
        ground, network = self._ground, self.network
        return Coordinator(
            CoordinatorParts(
                self.me,
                self.directory,
                self.discovery,
                network.transport,
                self._offer,
                ground.encoder,
                ground.clock,
                ground.rng,
                self._footing.tasks,
                self._is_trusted,
                head=load_head() if ground.encoder else None,
                planner=ground.planner,
                outcomes=outcomes,
                asks_base=ground.config.router.doubt == "base",
            )
        )

    def _is_trusted(self, peer: PeerId) -> bool:
        """The owner of a private swarm answers for its members; in a public one we decide."""
        return self.charter.is_private or peer in self._ground.config.router.trusted

    def _is_welcome(self, peer: PeerId) -> bool:
        return not self.papers.book.is_revoked(peer)

    def _make_desk(self) -> Desk:
        papers, ground = self.papers, self._ground
        return Desk(
            DeskParts(
                self.folder.identity,
                papers.book,
                papers.ledger,
                self.folder.save_ledger,
                ground.clock,
                ground.rng,
            )
        )

    def _make_gossip(self) -> Gossip:
        ground = self._ground
        return Gossip(
            GossipParts(
                self.papers.book,
                self.network.transport,
                self.gate,
                ground.clock,
                ground.rng,
                Savers(self.folder.save_delegations, self._keep_revocations),
            )
        )

    def _make_renewer(self) -> Renewer:
        ground, papers = self._ground, self.papers
        holder = Holder(
            papers.credential, papers.take_credential, self._addresses_of, self._show_anew
        )
        return Renewer(
            RenewerParts(
                papers.book, self.network.transport, ground.clock, ground.rng, holder, self.desk
            )
        )

    def _addresses_of(self, peer: PeerId) -> Sequence[str]:
        """Where a peer may be, by its record or from before: issuers must be found without one."""
        node = self.directory.node(peer, self._ground.clock.now())
        known = [one for one in self.memory.addresses() if one.endswith(f"/p2p/{peer}")]
        return [*(node.addresses if node is not None else ()), *known]

    async def _show_anew(self) -> None:
        await self.gate.regreet()
        await self.gossip.settle()
