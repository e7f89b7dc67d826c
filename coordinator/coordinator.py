"""The coordinator of one peer: takes a prompt, finds who answers it, and delivers one answer.

Knows the directory, discovery, the router and the dispatcher; must not know HTTP, models or which
transport is used.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from coordinator.answer import AUTO, AnswerEvent, AnswerRequest, Completed, Route, Routed
from coordinator.asking import RemoteAnswerer
from coordinator.directory import Directory
from coordinator.discovery import Discovery
from coordinator.dispatch.candidates import Candidates
from coordinator.dispatch.dispatcher import Dispatcher
from coordinator.dispatch.run import AnswerRun
from coordinator.domain_search import DomainSearch
from coordinator.inspection import Inspector
from coordinator.measure import PeerMeasurement, PeerMeasurements
from coordinator.pinging import Pinger, Pong
from coordinator.ports import Answerer, Encoder, Planner
from coordinator.reputation import Outcome, Outcomes, Reputation
from coordinator.routing.head import Head
from coordinator.routing.router import Choice, Router, routed_text
from protocols.errors import (
    DeadlineExceeded,
    DslmError,
    NoCapacity,
    ProtocolError,
    UnknownModel,
)
from protocols.ids import PeerId, SpecialistId, parse_specialist_id
from protocols.ports import Clock, Transport
from protocols.records import CapabilityCard

PING_SECONDS = 5.0
MEASURED_MAX = 1_024
"""With more peers measured than this, those that are gone from the directory are forgotten."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a coordinator is made of. `tasks` runs its attempts and must outlive its requests.

    Without `encoder`, `auto` means the plain base; without the `head` for it, cosines decide.
    """

    me: PeerId
    directory: Directory
    discovery: Discovery
    transport: Transport
    local: Answerer
    encoder: Encoder | None
    clock: Clock
    rng: random.Random
    tasks: asyncio.TaskGroup
    is_trusted: Callable[[PeerId], bool] = lambda _: False
    """Who may see prompts of the route `trusted`, besides ourselves."""
    head: Head | None = None
    planner: Planner | None = None


class Coordinator:
    """One per node. Every request ends exactly once: with `Completed` or a `DslmError`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.measurements = PeerMeasurements(parts.me)
        self._router = Router(
            parts.encoder, self.measurements, head=parts.head, planner=parts.planner
        )
        self._dispatcher = Dispatcher(parts.tasks, parts.clock)
        self._pinger = Pinger(parts.transport, parts.clock, parts.rng)
        self._search = _search_of(parts)
        self.reputation = Reputation(
            Outcomes(),
            Inspector(parts.encoder, self._foreign_cards, parts.rng),
            parts.clock,
            parts.rng,
        )

    async def plan(self, request: AnswerRequest) -> Routed:
        """Who would answer now and why, without asking anybody; errors as of `answer`."""
        choice = await self._choose_in_time(request)
        candidates = self._candidates(request, choice)
        now = self._parts.clock.monotonic()
        first = candidates.next(now, None)
        if not isinstance(first, CapabilityCard):
            raise NoCapacity(f"No reachable peer can answer with {choice.specialist} now.")
        second = candidates.next(now, first, but=[PeerId(first.peer)])
        return Routed(
            specialist=choice.specialist,
            peer=PeerId(first.peer),
            why=choice.why,
            scores=choice.scores,
            second_choice=PeerId(second.peer) if isinstance(second, CapabilityCard) else None,
        )

    async def answer(self, request: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:
        """Events from `Routed` to `Completed`; closing the generator cancels the answer.

        Raises `UnknownModel`, `TooLong`, `Unsupported`, `NoCapacity` or `DeadlineExceeded`.
        """
        started = self._parts.clock.monotonic()
        choice = await self._choose_in_time(request)
        candidates = self._candidates(request, choice)
        run = AnswerRun(request, choice, candidates, self.measurements, started, self._is_trusted)
        surroundings = _Surroundings(self._parts, choice.specialist)
        async with aclosing(self._dispatcher.carry_out(run, surroundings)) as events:
            async for event in events:
                if isinstance(event, Completed):
                    self._credit(event)
                yield event

    async def ping(self, peer: PeerId) -> Pong:
        """Measure one round trip to `peer`; it enters the measurements.

        `DeadlineExceeded` after 5 s, or the error of the transport.
        """
        addresses = _addresses(self._parts, peer)
        try:
            async with asyncio.timeout(PING_SECONDS):
                pong = await self._pinger.ping(peer, addresses)
        except TimeoutError as error:
            raise DeadlineExceeded(f"{peer} did not answer within {PING_SECONDS:g} s") from error
        self.measurements.round_trip(peer, pong.rtt)
        return pong

    def measurement(self, peer: PeerId) -> PeerMeasurement:
        """What was measured of `peer`, now."""
        return self.measurements.snapshot(peer, self._parts.clock.monotonic())

    # ----------------------------------------------------------------------------------------

    async def _choose_in_time(self, request: AnswerRequest) -> Choice:
        self._forget_strangers()
        try:
            async with asyncio.timeout(request.budget):
                return await self._choose(request)
        except TimeoutError as error:
            raise DeadlineExceeded("the budget ended while a model was looked for") from error

    async def _choose(self, request: AnswerRequest) -> Choice:
        if request.model != AUTO:
            return await self._choose_by_name(request)
        if not self._cards(request) and request.route is not Route.LOCAL:
            await self._parts.discovery.refresh()
        if self._search is not None and request.route is not Route.LOCAL:
            await self._search.look(routed_text(request.prompt))
        now, trust = self._parts.clock.monotonic(), self.reputation.trust()
        choice = await self._router.choose(request.prompt, self._cards(request), now, trust)
        for card in self._replicas(request, choice.specialist):
            self._parts.directory.want(card)
            self.reputation.inspector.soon(card)
        return choice

    async def _choose_by_name(self, request: AnswerRequest) -> Choice:
        try:
            specialist = parse_specialist_id(request.model)
        except ProtocolError as error:
            raise self._unknown(request.model) from error
        if not self._replicas(request, specialist) and request.route is not Route.LOCAL:
            await self._parts.discovery.find_specialist(specialist)
        if self._replicas(request, specialist):
            return Choice(specialist, f"{specialist} was asked for by name.")
        if self._parts.directory.replicas(specialist, self._parts.clock.now()):
            raise NoCapacity(f"{specialist} is known, but {_nobody(request)}.")
        if request.route is not Route.LOCAL:
            await self._parts.discovery.find_domain(specialist)
        raise self._unknown(specialist)

    def _unknown(self, name: str) -> UnknownModel:
        nearest = self._parts.directory.nearest_names(name, self._parts.clock.now())
        return UnknownModel(name, nearest)

    def _cards(self, request: AnswerRequest) -> Sequence[CapabilityCard]:
        cards = self._parts.directory.cards(self._parts.clock.now())
        return [card for card in cards if self._may_ask(request, card)]

    def _replicas(
        self, request: AnswerRequest, specialist: SpecialistId
    ) -> Sequence[CapabilityCard]:
        replicas = self._parts.directory.replicas(specialist, self._parts.clock.now())
        return [card for card in replicas if self._may_ask(request, card)]

    def _may_ask(self, request: AnswerRequest, card: CapabilityCard) -> bool:
        if request.node is not None and card.peer != request.node:
            return False
        if card.peer == self._parts.me:
            return True
        match request.route:
            case Route.ANY:
                return True
            case Route.TRUSTED:
                return self._parts.is_trusted(PeerId(card.peer))
            case Route.LOCAL:
                return False

    def _is_trusted(self, peer: PeerId) -> bool:
        return peer == self._parts.me or self._parts.is_trusted(peer)

    def _candidates(self, request: AnswerRequest, choice: Choice) -> Candidates:
        return Candidates(
            lambda: self._replicas(request, choice.specialist),
            self._parts.me,
            self.measurements,
            self._parts.rng,
            self.reputation,
        )

    def _credit(self, completed: Completed) -> None:
        """Each peer that had part in an answer kept its word."""
        for share in completed.shares:
            self.reputation.report(completed.specialist, share.peer, Outcome.COMPLETED)

    def _foreign_cards(self) -> Sequence[CapabilityCard]:
        """What others say of themselves."""
        cards = self._parts.directory.cards(self._parts.clock.now())
        return [card for card in cards if card.peer != self._parts.me]

    def _forget_strangers(self) -> None:
        if self.measurements.size <= MEASURED_MAX:
            return
        now = self._parts.clock.now()
        known = [PeerId(node.peer) for node in self._parts.directory.nodes(now)]
        self.measurements.keep_only([self._parts.me, *known])


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """See `coordinator.dispatch.dispatcher.Surroundings`."""

    parts: Parts
    specialist: SpecialistId

    def answerer(self, peer: PeerId) -> Answerer:
        if peer == self.parts.me:
            return self.parts.local
        return RemoteAnswerer(self.parts.transport, peer, _addresses(self.parts, peer))

    async def predial(self, peer: PeerId) -> None:
        if peer == self.parts.me:
            return
        for address in _addresses(self.parts, peer):
            try:
                await self.parts.transport.connect(address)
            except DslmError:
                continue  # asking the peer would say so again, if it comes to that
            return

    async def look_again(self) -> None:
        await self.parts.discovery.find_specialist(self.specialist)


def _search_of(parts: Parts) -> DomainSearch | None:
    if parts.encoder is None:
        return None
    return DomainSearch(parts.directory, parts.discovery, parts.encoder, parts.clock)


def _nobody(request: AnswerRequest) -> str:
    """Why none of those who host it may be asked, as the end of a sentence."""
    if request.route is Route.LOCAL:
        return "this node does not host it"
    if request.node is None:
        return "no peer that counts as trusted hosts it"
    doubt = " or does not count as trusted" if request.route is Route.TRUSTED else ""
    return f"peer {request.node} does not host it{doubt}"


def _addresses(parts: Parts, peer: PeerId) -> tuple[str, ...]:
    node = parts.directory.node(peer, parts.clock.now())
    return node.addresses if node else ()
