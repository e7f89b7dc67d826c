"""The coordinator of one peer: takes a prompt, finds who answers it, and delivers one answer.

Knows the directory, discovery, the router and the dispatcher; must not know HTTP, models or which
transport is used.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from functools import partial

from coordinator.activity import Effort
from coordinator.answer import (
    AUTO,
    AnswerEvent,
    AnswerRequest,
    Completed,
    Evidence,
    Route,
    Routed,
)
from coordinator.asking import RemoteAnswerer
from coordinator.chain.actions import Judge, Prepare
from coordinator.chain.alone import choice_of, is_for_one, wishes_of
from coordinator.chain.carrier import Carrier
from coordinator.chain.run import ChainRun
from coordinator.directory import Directory
from coordinator.discovery import Discovery
from coordinator.dispatch.candidates import Candidates
from coordinator.dispatch.dispatcher import Dispatcher
from coordinator.dispatch.run import AnswerRun
from coordinator.domain_search import DomainSearch
from coordinator.inspection import Inspector
from coordinator.measure import PeerMeasurement, PeerMeasurements
from coordinator.memory import preparing
from coordinator.opinion import Question, opinion_of, referee_for
from coordinator.pinging import Pinger, Pong
from coordinator.ports import Answerer, Encoder, Planner
from coordinator.reputation import Outcome, Outcomes, Reputation
from coordinator.routing.head import Head
from coordinator.routing.plan import Plan, Step
from coordinator.routing.router import Choice, Router, Trust, Wishes, routed_text
from protocols.errors import DeadlineExceeded, DslmError, NoCapacity, ProtocolError, UnknownModel
from protocols.ids import PeerId, SpecialistId, parse_specialist_id
from protocols.messages.ask import Prompt
from protocols.ports import Clock, Transport
from protocols.records import CapabilityCard

PING_SECONDS = 5.0
MEASURED_MAX = 1_024
"""With more peers measured than this, those that are gone from the directory are forgotten."""


PlanFunction = Callable[[Prompt, Sequence[CapabilityCard], float, Wishes, Trust], Awaitable[Plan]]
"""What `Router.plan` does."""


def _forget(specialist: SpecialistId, peer: PeerId, evidence: Evidence) -> None:
    """For coordinators that keep no record of who answers well."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a coordinator is made of. `tasks` runs its attempts and must outlive its requests.

    Without `encoder`, `auto` means the plain base.
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
    """What was learnt of prompts and cards; without the one for `encoder` cosines decide."""
    planner: Planner | None = None
    asks_base: bool = False
    """Whether the base's opinion of an answer decides where the router was unsure."""
    make_plan: PlanFunction | None = None
    """None means the router's."""
    judge: Callable[[SpecialistId, PeerId, Evidence], None] = _forget
    """Told how sure a specialist at a peer was of its answer, where that was asked."""
    outcomes: Outcomes = field(default_factory=Outcomes)
    """What came of asking before this coordinator was made, and what will."""


class Coordinator:
    """One per node. Every request ends exactly once: with `Completed` or a `DslmError`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.measurements = PeerMeasurements(parts.me)
        self._router = Router(
            parts.encoder, self.measurements, head=parts.head, planner=parts.planner
        )
        self._make_plan = parts.make_plan or self._router.plan
        self._dispatcher = Dispatcher(parts.tasks, parts.clock)
        self._carrier = Carrier(parts.tasks, parts.clock)
        self._pinger = Pinger(parts.transport, parts.clock, parts.rng)
        self._search = _search_of(parts)
        self.reputation = Reputation(
            parts.outcomes,
            Inspector(parts.encoder, self._foreign_cards, parts.rng, learn=self._router.learn),
            parts.clock,
            parts.rng,
        )

    async def plan(self, request: AnswerRequest) -> Routed:
        """Who would answer, or begin, and why, without asking anybody; errors as of `answer`."""
        plan = await self._plan_in_time(request)
        choice = choice_of(plan)
        specialist = choice.specialist
        if not is_for_one(request, plan):
            specialist = plan.steps[0].specialist
        candidates = self._candidates(request, specialist)
        now = self._parts.clock.monotonic()
        first = candidates.next(now, None)
        if not isinstance(first, CapabilityCard):
            raise NoCapacity(f"No reachable peer can answer with {specialist} now.")
        second = candidates.next(now, first, but=[PeerId(first.peer)])
        return Routed(
            specialist=specialist,
            peer=PeerId(first.peer),
            why=choice.why,
            scores=choice.scores,
            second_choice=PeerId(second.peer) if isinstance(second, CapabilityCard) else None,
            plan=plan,
        )

    async def answer(self, request: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:
        """Events from `Routed`, or `Planned` if several specialists work on it, to `Completed`.

        Closing the generator cancels the answer. Raises `UnknownModel`, `TooLong`, `Unsupported`,
        `NoCapacity` or `DeadlineExceeded`; of several steps only if none said anything.
        """
        started, effort = self._parts.clock.monotonic(), Effort()
        plan = await self._plan_in_time(request)
        if is_for_one(request, plan):
            events = self._one(request, choice_of(plan), effort, started)
        else:
            replicas, asks_base = partial(self._replicas, request), self._parts.asks_base
            run = ChainRun(request, plan, replicas, started, asks_base=asks_base)
            surroundings = _ChainSurroundings(self, request, effort)
            events = self._carrier.carry_out(run, surroundings)
        async with aclosing(events):
            async for event in events:
                match event:
                    case Routed() if request.model == AUTO:
                        yield replace(event, plan=plan)
                    case Completed():
                        activity = effort.activity(self._cards(request))
                        pages = event.memory.bytes_fetched
                        yield replace(event, activity=replace(activity, bytes_of_pages=pages))
                    case _:
                        yield event

    async def _one(
        self, request: AnswerRequest, choice: Choice, effort: Effort, started: float
    ) -> AsyncGenerator[AnswerEvent, None]:
        """One specialist's answer; its budget began at `started`."""
        candidates = self._candidates(request, choice.specialist)
        run = AnswerRun(request, choice, candidates, self.measurements, started, self._is_trusted)
        surroundings = _Surroundings(self._parts, choice.specialist, effort)
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

    async def _plan_in_time(self, request: AnswerRequest) -> Plan:
        self._forget_strangers()
        try:
            async with asyncio.timeout(request.budget):
                return await self._plan(request)
        except TimeoutError as error:
            raise DeadlineExceeded("the budget ended while a model was looked for") from error

    async def _plan(self, request: AnswerRequest) -> Plan:
        if request.model != AUTO:
            choice = await self._choose_by_name(request)
            return Plan("one", (Step(choice.specialist),), choice.why, choice.scores)
        if not self._cards(request) and request.route is not Route.LOCAL:
            await self._parts.discovery.refresh()
        if self._search is not None and request.route is not Route.LOCAL:
            await self._search.look(routed_text(request.prompt))
        cards, wishes = self._cards(request), wishes_of(request)
        now, trust = self._parts.clock.monotonic(), self.reputation.trust()
        plan = await self._make_plan(request.prompt, cards, now, wishes, trust)
        for step in plan.steps:
            for card in self._replicas(request, step.specialist):
                self._parts.directory.want(card)
                self.reputation.inspector.soon(card)
        return plan

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

    def _candidates(self, request: AnswerRequest, specialist: SpecialistId) -> Candidates:
        return Candidates(
            lambda: self._replicas(request, specialist),
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
    effort: Effort

    def answerer(self, peer: PeerId) -> Answerer:
        self.effort.asked(self.specialist, peer)
        return _answerer(self.parts, peer, effort=self.effort)

    async def predial(self, peer: PeerId) -> None:
        await _predial(self.parts, peer)

    async def look_again(self) -> None:
        await self.parts.discovery.find_specialist(self.specialist)


@dataclass(frozen=True, slots=True)
class _ChainSurroundings:
    """See `coordinator.chain.carrier.Surroundings`."""

    coordinator: Coordinator
    request: AnswerRequest
    effort: Effort

    def answer(
        self, specialist: SpecialistId, request: AnswerRequest
    ) -> AsyncGenerator[AnswerEvent, None]:
        choice = Choice(specialist, "the plan names it")
        parts = self.coordinator._parts
        return self.coordinator._one(request, choice, self.effort, parts.clock.monotonic())

    async def prepare(self, wanted: Prepare) -> None:
        """A connection is open when the step begins, and the beginning of its prompt is read.

        That goes on while the step before still speaks; it costs one token that nobody wants.
        """
        parts, request = self.coordinator._parts, wanted.request
        candidates = self.coordinator._candidates(self.request, wanted.specialist)
        now = parts.clock.monotonic()
        card = candidates.next(now, None)
        if not isinstance(card, CapabilityCard):
            return
        peer = PeerId(card.peer)
        await _predial(parts, peer)
        if request.memory_at in {None, peer} or not self.coordinator._is_trusted(peer):
            return
        choice = Choice(wanted.specialist, "it is going to be asked next")
        reading = self.coordinator._one(preparing(request, peer), choice, self.effort, now)
        with suppress(DslmError):  # the step itself would say so again
            async with aclosing(reading) as events:
                async for _ in events:
                    pass

    async def opinion(self, question: Question) -> float | None:
        parts, cards = self.coordinator._parts, self.coordinator._cards(self.request)
        referee = referee_for(question, cards, parts.me)
        return await opinion_of(referee, question, partial(_answerer, parts, effort=self.effort))

    def judge(self, verdict: Judge) -> None:
        outcome = Outcome.WEAK if verdict.evidence.is_low else Outcome.GOOD
        self.coordinator.reputation.report(verdict.specialist, verdict.peer, outcome)
        self.coordinator._parts.judge(verdict.specialist, verdict.peer, verdict.evidence)


def _answerer(parts: Parts, peer: PeerId, *, effort: Effort) -> Answerer:
    if peer == parts.me:
        return parts.local
    return RemoteAnswerer(parts.transport, peer, _addresses(parts, peer), effort)


async def _predial(parts: Parts, peer: PeerId) -> None:
    """Open a connection to `peer` if possible."""
    if peer == parts.me:
        return
    for address in _addresses(parts, peer):
        try:
            await parts.transport.connect(address)
        except DslmError:
            continue  # asking the peer would say so again, if it comes to that
        return


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
