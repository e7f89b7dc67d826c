"""A scripted answer source and a fixed view: the gateway's outside in tests and demonstrations.

Knows the two ports; must not know the network. Scripts are async generators of events.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import msgspec

from coordinator.answer import AnswerEvent, AnswerRequest, Completed, Delta, Planned, Routed, Share
from node.adapter_state import AdapterOrder, AdaptersState, AdapterState
from node.state import (
    SCHEMA_VERSION,
    CardsState,
    CardState,
    Check,
    DeviceState,
    InviteReport,
    JoinReport,
    MembersState,
    MemberState,
    NodeState,
    PeersState,
    PeerState,
    PingReport,
    SpecialistsState,
    SpecialistState,
    SwarmReaders,
    SwarmsState,
    SwarmState,
    WithdrawalReport,
)
from node.work_state import SpecialistWork, StatsState
from protocols.errors import UserError
from protocols.ids import PeerId, SpecialistId

Script = Callable[[AnswerRequest], AsyncGenerator[AnswerEvent, None]]

_BASE = SpecialistId("smollm2-135m")
TRIAL_PEER = PeerId("12D3KooWTrial")


class ScriptedAnswers:
    """Answers each request with the events of `script`, and keeps count."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked: list[AnswerRequest] = []
        self.routed: list[AnswerRequest] = []
        self.open = 0
        self.begun = asyncio.Event()
        """Set when the first answer has begun."""
        self.cut = asyncio.Event()
        """Set when an answer was closed before its end."""

    async def answer(self, request: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:
        """The script's events."""
        self.asked.append(request)
        self.open += 1
        self.begun.set()
        is_whole = False
        try:
            async with aclosing(self.script(request)) as events:
                async for event in events:
                    yield event
            is_whole = True
        finally:
            self.open -= 1
            if not is_whole:
                self.cut.set()

    async def route(self, request: AnswerRequest) -> Routed:
        """How the script begins."""
        self.routed.append(request)
        async with aclosing(self.script(request)) as events:
            first = await anext(events)
        if isinstance(first, Routed):
            return first
        if isinstance(first, Planned):
            plan = first.plan
            return Routed(plan.steps[0].specialist, TRIAL_PEER, plan.why, plan.scores, plan=plan)
        raise UserError("the script begins with neither")


@dataclass(frozen=True, slots=True)
class Speech:
    """A script that says `words`, one token each, `pace` seconds apart."""

    peer: PeerId
    words: Sequence[str]
    pace: float = 0.0
    specialist: SpecialistId = _BASE

    async def __call__(self, request: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:
        """`Routed`, a `Delta` per word up to `max_tokens`, `Completed`."""
        yield Routed(self.specialist, self.peer, "it is the only one")
        room = request.max_tokens or len(self.words)
        for position, word in enumerate(self.words[:room]):
            await asyncio.sleep(self.pace)
            yield Delta(self.peer, position, (position + 100,), word)
        yield self.end(min(room, len(self.words)), is_cut=room < len(self.words))

    def end(self, tokens: int, *, is_cut: bool = False) -> Completed:
        """The last event of an answer of `tokens` tokens."""
        return Completed(
            specialist=self.specialist,
            reason="length" if is_cut else "stop",
            text="",
            prompt_tokens=7,
            completion_tokens=tokens,
            first_token_seconds=0.125,
            total_seconds=0.125 + 0.05 * max(0, tokens - 1),
            shares=(Share(self.peer, tokens),),
        )


def peer_state(peer: PeerId, name: str, *, is_self: bool = False) -> PeerState:
    """A peer that does well."""
    return PeerState(
        peer=peer,
        name=name,
        is_self=is_self,
        state="ok",
        software="0.1.0",
        specialists=("smollm2-135m",),
        addresses=(f"/ip4/127.0.0.1/tcp/7779/p2p/{peer}",),
        rtt_ms=None if is_self else 1.5,
        first_token_ms=None,
        tokens_per_second=None,
        expires_in=300.0,
        last_error="",
    )


def specialist_state(name: str, *peers: PeerId, is_base: bool = True) -> SpecialistState:
    """A specialist that `peers` host."""
    return SpecialistState(
        id=name,
        description=f"{name}, for trials",
        domains=() if is_base else ("mathematics",),
        base="smollm2-135m",
        is_base=is_base,
        precisions=("bf16",),
        context_length=8_192,
        parameters=134_515_008,
        licence="Apache-2.0",
        peers=tuple(peers),
        is_local=False,
    )


PUBLIC = SwarmReaders("public", "open", True, "Any peer that serves your prompt can read it.")


def _swarm_state(one: SwarmReaders) -> SwarmState:
    return SwarmState(
        name=one.name,
        swarm=one.name,
        kind=one.kind,
        is_current=one.is_current,
        peer="",
        roles=("node",),
        certificate_expires_in=None,
        delegation_expires_in=None,
        epoch=0,
        issuers=(),
        revoked=0,
        members=1,
        addresses=(),
        reachable=(),
        network="up",
        owner_key="",
        readers=one.readers,
    )


@dataclass(slots=True)
class FixedView:
    """A node's view of a swarm that tests set by hand."""

    known_peers: tuple[PeerState, ...] = ()
    known_specialists: tuple[SpecialistState, ...] = ()
    known_cards: tuple[CardState, ...] = ()
    draining: bool = False
    swarm_readers: tuple[SwarmReaders, ...] = (PUBLIC,)
    joined: list[str] = field(default_factory=list)
    join_breaks: Exception | None = None
    """Raised after a join's first check."""
    published: dict[str, tuple[bytes, ...]] = field(default_factory=dict)
    asked_swarms: list[str | None] = field(default_factory=list)
    """Of every question about a swarm."""
    hosted_adapters: list[AdapterState] = field(default_factory=list)

    def state(self, swarm: str | None = None) -> NodeState:
        """A node that hosts nothing."""
        self.asked_swarms.append(swarm)
        me = next((peer for peer in self.known_peers if peer.is_self), None)
        return NodeState(
            schema_version=SCHEMA_VERSION,
            software="0.1.0",
            peer=me.peer if me else "",
            name=me.name if me else "",
            swarm=swarm or "public",
            pid=1,
            uptime=1.0,
            api_url="",
            addresses=me.addresses if me else (),
            network="up",
            draining=self.draining,
            device=DeviceState("cpu", "trial", 2, 2**33, 2**32),
            hosted=(),
            known_peers=len(self.known_peers),
            known_specialists=len(self.known_specialists),
            served_requests=0,
            served_tokens=0,
            encoder="",
        )

    def peers(self, swarm: str | None = None) -> PeersState:
        """As set."""
        self.asked_swarms.append(swarm)
        return PeersState(SCHEMA_VERSION, self.known_peers)

    def specialists(self, swarm: str | None = None) -> SpecialistsState:
        """As set."""
        self.asked_swarms.append(swarm)
        return SpecialistsState(SCHEMA_VERSION, self.known_specialists)

    def cards(self, specialist: str = "", swarm: str | None = None) -> CardsState:  # noqa: ARG002
        """As set."""
        self.asked_swarms.append(swarm)
        return CardsState(SCHEMA_VERSION, self.known_cards)

    def readers(self) -> tuple[SwarmReaders, ...]:
        """As set."""
        return self.swarm_readers

    async def join(self, target: str) -> AsyncGenerator[Check | JoinReport, None]:
        """Joins whatever it is told to, unless that is nonsense."""
        if target == "nonsense":
            raise UserError("this is neither an invite nor an address")
        checks = [Check(name, True, "good") for name in ("invite", "dial")]
        for check in checks:
            yield check
            if self.join_breaks is not None:
                raise self.join_breaks
        self.joined.append(target)
        yield JoinReport(SCHEMA_VERSION, True, target.rpartition("/")[2], tuple(checks))

    async def swarms(self) -> SwarmsState:
        """As set, with little in them."""
        return SwarmsState(SCHEMA_VERSION, tuple(map(_swarm_state, self.swarm_readers)))

    async def members(self, name: str) -> MembersState:
        """The known peers, each with a certificate of an hour."""
        members = (
            MemberState(peer.peer, peer.name, peer.is_self, "ok", ("node",), "", 3_600.0)
            for peer in self.known_peers
        )
        return MembersState(SCHEMA_VERSION, name, tuple(members))

    async def invite(
        self, name: str, roles: tuple[str, ...], uses: int, lifetime: float
    ) -> InviteReport:
        """An invite that nobody can use."""
        return InviteReport(SCHEMA_VERSION, name, "dslm:trial", "", roles, uses, lifetime)

    async def withdraw(self, name: str, invite: str) -> WithdrawalReport:
        """Knows one invite only."""
        if invite != "dslm:trial":
            raise UserError("no such invite")
        return WithdrawalReport(SCHEMA_VERSION, name, "trial")

    async def use(self, name: str) -> None:
        """Makes `name` the current swarm."""
        self.swarm_readers = tuple(
            msgspec.structs.replace(one, is_current=one.name == name) for one in self.swarm_readers
        )

    async def load(self, name: str) -> None:
        """A private swarm more."""
        self.swarm_readers += (SwarmReaders(name, "private", False, "Its members."),)

    async def leave(self, name: str) -> None:
        """A swarm less; one that is left becomes the current one."""
        left = tuple(one for one in self.swarm_readers if one.name != name)
        self.swarm_readers = left
        if left and not any(one.is_current for one in left):
            await self.use(left[0].name)

    async def documents(self, name: str) -> tuple[bytes, ...]:
        """What was published."""
        return self.published.get(name, ())

    async def publish(self, name: str, documents: tuple[bytes, ...]) -> None:
        """Remembered by swarm."""
        self.published[name] = documents

    def adapters(self) -> AdaptersState:
        """What was added."""
        return AdaptersState(SCHEMA_VERSION, tuple(self.hosted_adapters))

    async def add_adapter(self, order: AdapterOrder) -> None:
        """Takes any folder but `nothing`."""
        if order.folder == "nothing":
            raise UserError("there is no adapter in nothing")
        one = AdapterState(order.id or "own", order.base, "d" * 64, 10, order.domains, False)
        self.hosted_adapters.append(one)

    async def remove_adapter(self, name: str) -> None:
        """Knows all names but `nobody`."""
        if name == "nobody":
            raise UserError(f"this node hosts no {name!r}")
        self.hosted_adapters = [one for one in self.hosted_adapters if one.id != name]

    async def ping(self, peer: str, count: int) -> PingReport:
        """One millisecond each time."""
        return PingReport(SCHEMA_VERSION, peer, "", "0.1.0", (1.0,) * count)

    def stats(self) -> StatsState:
        """One answer by one of two specialists."""
        work = SpecialistWork("smollm2-135m", 1, 0, 0, 20, 1.5)
        return StatsState(
            schema_version=SCHEMA_VERSION,
            answers=1,
            failed=0,
            steps=1,
            resumed=0,
            tokens=20,
            specialists=1,
            specialists_known=2,
            parameters=134_515_008,
            parameters_known=139_000_000,
            peers=1,
            bytes_sent=300,
            bytes_received=900,
            bytes_of_pages=0,
            plans={"one": 1},
            by_specialist=(work,),
        )

    def metrics(self) -> str:
        """A constant."""
        return "# TYPE dslm_peers gauge\ndslm_peers 1\n"
