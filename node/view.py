"""The running node as its owner sees it: state, peers, specialists, swarms, and pinging.

Knows every part of the node; must not know HTTP or the command line. What concerns swarms is
`node.swarm_view`'s.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from node import state as shapes
from node.accounts import Accounts
from node.adapter_desk import AdapterDesk
from node.adapter_state import AdapterOrder, AdaptersState
from node.engine.base import EngineStatistics
from node.metrics import Metrics
from node.presence import Presence
from node.presences import Presences
from node.services.ask import AskService
from node.swarm_view import SwarmView
from node.work_state import StatsState
from protocols import versions
from protocols.errors import UnknownPeer
from protocols.ids import PeerId, SpecialistId
from protocols.ports import Clock
from protocols.records import CapabilityCard, NodeRecord

PINGS_MAX = 100
CARDS_SHOWN_MAX = 500


@dataclass(frozen=True, slots=True)
class Facts:
    """What does not change while the node runs. `started` is in monotonic seconds."""

    name: str
    started: float
    encoder: str


@dataclass(frozen=True, slots=True)
class Parts:
    """What there is to see. `api_url` is asked for once the gateway listens."""

    presences: Presences
    service: AskService
    metrics: Metrics
    device: Callable[[], shapes.DeviceState]
    api_url: Callable[[], str]
    clock: Clock
    desk: AdapterDesk
    hosted: Callable[[], Sequence[shapes.HostedState]]
    engines: Callable[[], Sequence[EngineStatistics]] = tuple
    accounts: Accounts = field(default_factory=Accounts)


class LiveView(SwarmView):
    """Implements `node.state.NodeView`."""

    def __init__(self, facts: Facts, parts: Parts) -> None:
        super().__init__(parts.presences, parts.clock)
        self._facts = facts
        self._parts = parts
        self.draining = False

    def state(self, swarm: str | None = None) -> shapes.NodeState:
        """See `NodeView`."""
        facts, parts = self._facts, self._parts
        presence = parts.presences.named(swarm)
        known = presence.directory.statistics(parts.clock.now())
        return shapes.NodeState(
            schema_version=shapes.SCHEMA_VERSION,
            software=versions.SOFTWARE,
            peer=presence.me,
            name=facts.name or presence.me[-6:],
            swarm=presence.name,
            pid=os.getpid(),
            uptime=parts.clock.monotonic() - facts.started,
            api_url=parts.api_url(),
            addresses=presence.reach.announced(),
            network=presence.network.status(),
            draining=self.draining,
            device=parts.device(),
            hosted=tuple(self._with_load(model) for model in parts.hosted()),
            known_peers=known.nodes,
            known_specialists=known.specialists,
            served_requests=parts.service.served.requests,
            served_tokens=parts.service.served.tokens,
            encoder=facts.encoder,
            drafted_tokens=sum(one.drafted_tokens for one in parts.engines()),
            accepted_tokens=sum(one.accepted_tokens for one in parts.engines()),
        )

    def peers(self, swarm: str | None = None) -> shapes.PeersState:
        """See `NodeView`; this node first, then by name."""
        presence = self._parts.presences.named(swarm)
        nodes = presence.directory.nodes(self._parts.clock.now())
        ordered = sorted(nodes, key=lambda node: (node.peer != presence.me, node.name))
        rows = tuple(self._peer(presence, node) for node in ordered)
        return shapes.PeersState(shapes.SCHEMA_VERSION, rows)

    def specialists(self, swarm: str | None = None) -> shapes.SpecialistsState:
        """See `NodeView`."""
        presence = self._parts.presences.named(swarm)
        by_name: dict[str, list[CapabilityCard]] = {}
        for card in presence.directory.cards(self._parts.clock.now()):
            by_name.setdefault(card.specialist, []).append(card)
        rows = tuple(_specialist(by_name[name], presence.me) for name in sorted(by_name))
        return shapes.SpecialistsState(shapes.SCHEMA_VERSION, rows)

    def cards(self, specialist: str = "", swarm: str | None = None) -> shapes.CardsState:
        """See `NodeView`."""
        presence = self._parts.presences.named(swarm)
        found = presence.directory.cards(self._parts.clock.now())
        if specialist:
            found = tuple(card for card in found if card.specialist == specialist)
        else:  # Of each specialist our own card, else any.
            ordered = sorted(found, key=lambda card: card.peer == presence.me)
            found = tuple({card.specialist: card for card in ordered}.values())
        rows = (self._card(presence, card) for card in found[:CARDS_SHOWN_MAX])
        return shapes.CardsState(shapes.SCHEMA_VERSION, tuple(rows))

    def adapters(self) -> AdaptersState:
        """See `NodeView`."""
        return self._parts.desk.state()

    async def add_adapter(self, order: AdapterOrder) -> None:
        """See `NodeView`."""
        await self._parts.desk.add(order)

    async def remove_adapter(self, name: str) -> None:
        """See `NodeView`."""
        await self._parts.desk.remove(name)

    async def ping(self, peer: str, count: int) -> shapes.PingReport:
        """See `NodeView`. `UnknownPeer` if the name fits none or several."""
        presence = self._parts.presences.named(None)
        target = find_peer(peer, presence.directory.nodes(self._parts.clock.now()))
        rounds = range(max(1, min(count, PINGS_MAX)))
        pongs = [await presence.coordinator.ping(target) for _ in rounds]
        reply = pongs[-1].reply
        samples = tuple(pong.rtt * 1000 for pong in pongs)
        return shapes.PingReport(shapes.SCHEMA_VERSION, target, reply.name, reply.software, samples)

    def stats(self) -> StatsState:
        """See `NodeView`."""
        return self._parts.accounts.state()

    def metrics(self) -> str:
        """See `NodeView`."""
        return self._parts.metrics.text()

    def _card(self, presence: Presence, card: CapabilityCard) -> shapes.CardState:
        reputation = presence.coordinator.reputation
        return shapes.CardState(
            sealed=presence.directory.sealed(card),
            is_local=card.peer == presence.me,
            trust=reputation.expected(card),
            agreement=reputation.inspector.agreement(card),
        )

    def _with_load(self, model: shapes.HostedState) -> shapes.HostedState:
        admission = self._parts.service.admission(SpecialistId(model.id))
        return replace(model, running=admission.running, waiting=admission.waiting)

    def _peer(self, presence: Presence, node: NodeRecord) -> shapes.PeerState:
        measured = presence.coordinator.measurement(PeerId(node.peer))
        interval = measured.token_interval
        return shapes.PeerState(
            peer=node.peer,
            name=node.name,
            is_self=node.peer == presence.me,
            state=measured.state,
            software=node.software,
            specialists=node.specialists,
            addresses=node.addresses,
            rtt_ms=_milliseconds(measured.rtt),
            first_token_ms=_milliseconds(measured.first_token),
            tokens_per_second=1 / interval if interval else None,
            expires_in=max(0.0, node.expires_at - self._parts.clock.now()),
            last_error=measured.last_error,
        )


def _specialist(cards: list[CapabilityCard], me: PeerId) -> shapes.SpecialistState:
    newest = max(cards, key=lambda card: card.sequence)
    return shapes.SpecialistState(
        id=newest.specialist,
        description=newest.description,
        domains=newest.domains,
        base=newest.base,
        is_base=newest.is_base,
        precisions=tuple(sorted({card.precision for card in cards})),
        context_length=min(card.context_length for card in cards),
        parameters=newest.parameters,
        licence=newest.licence,
        peers=tuple(card.peer for card in cards),
        is_local=any(card.peer == me for card in cards),
    )


def find_peer(wanted: str, nodes: Iterable[NodeRecord]) -> PeerId:
    """The one node whose id or name is `wanted`, or whose id starts or ends with it."""
    nodes = tuple(nodes)
    exact = [node for node in nodes if wanted in (node.peer, node.name)]
    partial = [node for node in nodes if node.peer.startswith(wanted) or node.peer.endswith(wanted)]
    found = exact or partial
    if len(found) == 1:
        return PeerId(found[0].peer)
    if found:
        names = ", ".join(f"{node.name} {node.peer[-6:]}" for node in found[:4])
        raise UnknownPeer(f"{wanted!r} fits {len(found)} peers: {names}. Give more of the peer id.")
    raise UnknownPeer(f"No peer {wanted!r} is known. `dslm peers` lists those that are.")


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000
