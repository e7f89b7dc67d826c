"""What a presence in a swarm stands on: papers, gate and a network that is up.

Knows the adapters of the ports and in which order they begin; must not know what is served.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random

from coordinator.ports import Encoder, Planner
from node.config import NodeConfig
from node.services.ask import AskService
from node.services.memory import NodeMemory
from node.swarms.conduct import ConductBook
from node.swarms.folder import SwarmFolder
from node.swarms.gossip import Gossip
from node.swarms.papers import Papers
from node.swarms.renewal import Renewer
from protocols import allowances
from protocols.adapters.libp2p.network import Libp2pConfig, Libp2pNetwork
from protocols.gate import GateEvents, SwarmGate
from protocols.gating.policies import Policy, PrivatePolicy, PublicPolicy
from protocols.ids import PeerId
from protocols.membership.proof import make_proof
from protocols.ports import Allowance, Clock
from protocols.records import CapabilityCard

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ground:
    """What all presences of a node stand on. `cards` are without a swarm and a peer.

    Without `memory` none is passed on; without `planner` chains are worded by rule.
    """

    config: NodeConfig
    clock: Clock
    rng: Random
    encoder: Encoder | None
    service: AskService
    cards: Sequence[CapabilityCard]
    memory: NodeMemory | None = None
    planner: Planner | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """A swarm to take part in, where to listen for it, and whom to try first."""

    folder: SwarmFolder
    listen: tuple[str, ...]
    bootstrap: tuple[str, ...] = ()


class Ears:
    """What gate and network hear, passed on once there is somebody to listen. `conduct` is what a
    public swarm's newcomers have earned here."""

    def __init__(self, conduct: ConductBook) -> None:
        self.gossip: Gossip | None = None
        self.renewer: Renewer | None = None
        self.conduct = conduct

    def on_hello(self, peer: PeerId, epoch: int) -> None:
        """See `GateEvents`."""
        if self.gossip is not None:
            self.gossip.heard(peer, epoch)

    def on_rejected(self, _: PeerId) -> None:
        """See `GateEvents`."""
        if self.renewer is not None:
            self.renewer.renew_soon()

    def on_flood(self, peer: PeerId) -> None:
        """`peer` goes on and on although it was refused."""
        self.conduct.flooded(peer)


@dataclass(frozen=True, slots=True)
class Footing:
    """What one presence stands on."""

    place: Place
    papers: Papers
    gate: SwarmGate
    network: Libp2pNetwork
    ears: Ears
    tasks: asyncio.TaskGroup


@asynccontextmanager
async def stand(ground: Ground, place: Place) -> AsyncIterator[Footing]:
    """The ground of one presence: a network that is up, behind the swarm's gate."""
    papers = Papers(place.folder, ground.clock)
    ears = Ears(ConductBook(place.folder, ground.clock))
    policy = await _policy(papers, _earned(ground.config, ears.conduct))
    gate = SwarmGate(policy, ground.clock, GateEvents(ears.on_hello, ears.on_rejected))
    network = Libp2pNetwork(_network_config(ground.config, place), ground.clock, gate)
    network.on_flood = ears.on_flood
    async with network, asyncio.TaskGroup() as tasks:
        for address, reason in network.bootstrap_report.unreachable.items():
            _log.warning("cannot reach %s (%s); trying again in the background", address, reason)
        yield Footing(place, papers, gate, network, ears, tasks)


def _earned(config: NodeConfig, conduct: ConductBook) -> Callable[[PeerId], Allowance]:
    """What strangers get."""
    if config.swarm.newcomers == "welcome":
        return lambda _: allowances.MEMBER
    return conduct.allowance_of


async def _policy(papers: Papers, earned: Callable[[PeerId], Allowance]) -> Policy:
    charter = papers.folder.charter
    if charter.is_private:
        return PrivatePolicy(papers.me, papers.book, papers.credential)
    proof = await asyncio.to_thread(make_proof, charter.swarm, papers.me)
    return PublicPolicy(papers.me, papers.book, proof, earned)


def _network_config(config: NodeConfig, place: Place) -> Libp2pConfig:
    return Libp2pConfig(
        place.folder.identity,
        place.listen,
        config.paths.runtime,
        place.bootstrap,
        relays=config.network.relays,
        relay_service=config.network.relay_service,
    )
