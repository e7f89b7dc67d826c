"""The running node as its owner sees it: state, peers, specialists, joining and pinging.

Knows every part of the node, read-only but for `join`; must not know HTTP or the command line.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from msgspec.structs import replace

from coordinator.coordinator import Coordinator
from coordinator.directory import Directory
from node import state as shapes
from node.joining import Joiner
from node.metrics import Metrics
from node.services.ask import AskService
from protocols import versions
from protocols.errors import UnknownPeer
from protocols.ids import PeerId, SpecialistId
from protocols.ports import Clock, Transport
from protocols.records import CapabilityCard, NodeRecord

PINGS_MAX = 100


class Network(Protocol):
    """What is shown of the network."""

    @property
    def transport(self) -> Transport:
        """Addresses are read from it."""
        ...

    def status(self) -> str:
        """`up`, or what is wrong."""
        ...


@dataclass(frozen=True, slots=True)
class Facts:
    """What does not change while the node runs. `started` is in monotonic seconds."""

    peer: PeerId
    name: str
    swarm: str
    api_url: str
    started: float
    encoder: str
    hosted: tuple[shapes.HostedState, ...]


@dataclass(frozen=True, slots=True)
class Parts:
    """What there is to see."""

    network: Network
    directory: Directory
    coordinator: Coordinator
    joiner: Joiner
    service: AskService
    metrics: Metrics
    device: Callable[[], shapes.DeviceState]
    clock: Clock


class LiveView:
    """Implements `node.state.NodeView`."""

    def __init__(self, facts: Facts, parts: Parts) -> None:
        self._facts = facts
        self._parts = parts
        self.draining = False

    def state(self) -> shapes.NodeState:
        """See `NodeView`."""
        facts, parts = self._facts, self._parts
        known = parts.directory.statistics(parts.clock.now())
        return shapes.NodeState(
            schema_version=shapes.SCHEMA_VERSION,
            software=versions.SOFTWARE,
            peer=facts.peer,
            name=facts.name,
            swarm=facts.swarm,
            pid=os.getpid(),
            uptime=parts.clock.monotonic() - facts.started,
            api_url=facts.api_url,
            addresses=parts.network.transport.addresses(),
            network=parts.network.status(),
            draining=self.draining,
            device=parts.device(),
            hosted=tuple(self._with_load(model) for model in facts.hosted),
            known_peers=known.nodes,
            known_specialists=known.specialists,
            served_requests=parts.service.served.requests,
            served_tokens=parts.service.served.tokens,
            encoder=facts.encoder,
        )

    def peers(self) -> shapes.PeersState:
        """See `NodeView`; this node first, then by name."""
        nodes = self._parts.directory.nodes(self._parts.clock.now())
        ordered = sorted(nodes, key=lambda node: (node.peer != self._facts.peer, node.name))
        return shapes.PeersState(shapes.SCHEMA_VERSION, tuple(map(self._peer, ordered)))

    def specialists(self) -> shapes.SpecialistsState:
        """See `NodeView`."""
        by_name: dict[str, list[CapabilityCard]] = {}
        for card in self._parts.directory.cards(self._parts.clock.now()):
            by_name.setdefault(card.specialist, []).append(card)
        rows = tuple(self._specialist(by_name[name]) for name in sorted(by_name))
        return shapes.SpecialistsState(shapes.SCHEMA_VERSION, rows)

    async def join(self, address: str) -> shapes.JoinReport:
        """See `NodeView`."""
        return await self._parts.joiner.join(address)

    async def ping(self, peer: str, count: int) -> shapes.PingReport:
        """See `NodeView`. `UnknownPeer` if the name fits none or several."""
        target = find_peer(peer, self._parts.directory.nodes(self._parts.clock.now()))
        rounds = range(max(1, min(count, PINGS_MAX)))
        pongs = [await self._parts.coordinator.ping(target) for _ in rounds]
        reply = pongs[-1].reply
        samples = tuple(pong.rtt * 1000 for pong in pongs)
        return shapes.PingReport(shapes.SCHEMA_VERSION, target, reply.name, reply.software, samples)

    def metrics(self) -> str:
        """See `NodeView`."""
        return self._parts.metrics.text()

    def _with_load(self, model: shapes.HostedState) -> shapes.HostedState:
        admission = self._parts.service.admission(SpecialistId(model.id))
        return replace(model, running=admission.running, waiting=admission.waiting)

    def _peer(self, node: NodeRecord) -> shapes.PeerState:
        measured = self._parts.coordinator.measurement(PeerId(node.peer))
        interval = measured.token_interval
        return shapes.PeerState(
            peer=node.peer,
            name=node.name,
            is_self=node.peer == self._facts.peer,
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

    def _specialist(self, cards: list[CapabilityCard]) -> shapes.SpecialistState:
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
            is_local=any(card.peer == self._facts.peer for card in cards),
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
