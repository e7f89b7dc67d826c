"""The composition root: builds the parts of a node, wires them by constructor, runs and ends them.

Knows every part and the order of their lives; decides nothing else. The only module that sees the
adapters of the ports.
"""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from random import Random, SystemRandom

from coordinator.coordinator import Coordinator
from coordinator.coordinator import Parts as CoordinatorParts
from coordinator.directory import Directory
from coordinator.discovery import Discovery
from coordinator.ports import Encoder
from node.announcer import Announcer
from node.cards import CardMaker, hosted_state
from node.config import NodeConfig
from node.engine.device import default_threads, describe_device
from node.gateway.config import GatewayConfig
from node.gateway.server import Gateway
from node.hosting.hosted import HostedModel
from node.hosting.startup import load_encoder, load_models
from node.identity import load_or_create
from node.joining import Joiner
from node.metrics import AnswerFunction, Metrics
from node.profile import Profile
from node.services.ask import AskService
from node.services.ask_stream import AskStream
from node.services.info import InfoStream
from node.view import Facts, LiveView
from node.view import Parts as ViewParts
from protocols import versions
from protocols.adapters.clock import SystemClock
from protocols.adapters.libp2p.network import Libp2pConfig, Libp2pNetwork
from protocols.errors import PeerUnreachable
from protocols.ids import PeerId, SpecialistId, SwarmId
from protocols.ports import Clock
from protocols.records import CapabilityCard
from protocols.signing import Identity

_LAST_WORDS_SECONDS = 1.0
"""Of the time to drain, what is kept for telling clients that their answer was cut short."""
_log = logging.getLogger(__name__)


async def run(config: NodeConfig) -> None:
    """Run a node until SIGTERM or SIGINT, then let running answers end and stop.

    Raises a `UserError` for whatever the owner can mend: a taken port, a missing model, a damaged
    identity.
    """
    ending = _Ending()
    try:
        async with running_node(config) as node:
            _log.info("ready: API at %s, peer %s", node.gateway.url, node.ground.identity.peer_id)
            await ending.wait()
            await node.drain()
    except asyncio.CancelledError:
        if not ending.is_asked:
            raise
        _log.info("stopped while starting")


class _Ending:
    """SIGTERM and SIGINT: cancel the running task while it starts, ask it to end once it waits."""

    def __init__(self) -> None:
        self.is_asked = False
        self._is_waiting = False
        self._asked = asyncio.Event()
        self._task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ask)

    async def wait(self) -> None:
        """Until a signal comes."""
        self._is_waiting = True
        await self._asked.wait()

    def _ask(self) -> None:
        if not self.is_asked and not self._is_waiting and self._task is not None:
            self._task.cancel()
        self.is_asked = True
        self._asked.set()


@asynccontextmanager
async def running_node(config: NodeConfig) -> AsyncIterator["Node"]:
    """A node that is up; everything in it is ended when the block is left."""
    clock, rng = SystemClock(), SystemRandom()
    identity = load_or_create(config.paths.identity_file)
    threads = config.engine.threads or default_threads()
    async with AsyncExitStack() as stack:
        models = await load_models(config.models, config.paths.models, threads)
        for model in models.values():
            stack.push_async_callback(model.close)
        encoder = (
            await load_encoder(config.paths.models) if config.router.encoder != "off" else None
        )
        network = Libp2pNetwork(_network_config(config, identity), clock)
        await stack.enter_async_context(network)
        for address, reason in network.bootstrap_report.unreachable.items():
            _log.warning("cannot reach %s (%s); trying again in the background", address, reason)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        maker = CardMaker(SwarmId(config.swarm.name), identity.peer_id, encoder)
        cards = [await maker.card(models[SpecialistId(one.id)], one) for one in config.models]
        ground = Ground(config, identity, clock, rng, models, encoder, network, tasks, threads)
        node = Node(ground, cards)
        await node.start(stack)
        yield node


@dataclass(frozen=True, slots=True)
class Ground:
    """What the parts of a node stand on."""

    config: NodeConfig
    identity: Identity
    clock: Clock
    rng: Random
    models: Mapping[SpecialistId, HostedModel]
    encoder: Encoder | None
    network: Libp2pNetwork
    tasks: asyncio.TaskGroup
    threads: int


class Node:
    """The parts, wired. `start` brings them to life; leaving the stack it was given ends them."""

    def __init__(self, ground: Ground, cards: Sequence[CapabilityCard]) -> None:
        self.ground = ground
        config, network = ground.config, ground.network
        swarm, me = SwarmId(config.swarm.name), ground.identity.peer_id
        name = config.node.name or me[-6:]
        self.service = AskService(ground.models, ground.clock)
        self.profile = Profile(
            name,
            swarm,
            cards,
            config.network.announce,
            network.transport,
            self.service,
            ground.clock,
        )
        self.directory = Directory(swarm, me)
        self.discovery = Discovery(self.directory, network.records, ground.clock, ground.rng)
        self.announcer = Announcer(
            ground.identity,
            network.records,
            self.directory,
            ground.clock,
            ground.rng,
            self.profile.offer,
        )
        self.coordinator = self._make_coordinator()
        self.metrics = self._make_metrics()
        self.view = LiveView(self._facts(name), self._view_parts(swarm))
        self.gateway = self._make_gateway()

    async def start(self, stack: AsyncExitStack) -> None:
        """Serve peers, announce, look for others, then open the door to people."""
        transport = self.ground.network.transport
        await transport.serve(versions.INFO, InfoStream(self.profile.info))
        await transport.serve(versions.ASK, AskStream(self.service))
        await self.announcer.announce()
        background = [
            self.ground.tasks.create_task(self.announcer.run()),
            self.ground.tasks.create_task(self.discovery.run()),
        ]
        stack.push_async_callback(_cancel, background)
        await self.gateway.start()
        stack.push_async_callback(self.gateway.stop)

    async def drain(self) -> None:
        """Refuse new work; let answers in progress go on for as long as the settings say."""
        _log.info("stopping: %d answers in progress", self.service.inside + self.gateway.running)
        self.view.draining = True
        self.service.drain()
        try:
            async with asyncio.timeout(self.ground.config.node.drain):
                await self.gateway.stop()
                await self.service.wait_idle()
        except TimeoutError:
            _log.info("cut short: %d answers to peers", self.service.inside)

    def _make_coordinator(self) -> Coordinator:
        ground = self.ground
        return Coordinator(
            CoordinatorParts(
                ground.identity.peer_id,
                self.directory,
                self.discovery,
                ground.network.transport,
                self.service,
                ground.encoder,
                ground.clock,
                ground.rng,
                ground.tasks,
            )
        )

    def _make_gateway(self) -> Gateway:
        config = self.ground.config
        return Gateway(
            _Answers(self.metrics.observed(self.coordinator.answer)),
            self.view,
            GatewayConfig(
                host=config.api.host,
                port=config.api.port,
                body_bytes_max=config.api.body_max,
                drain=max(0.0, config.node.drain - _LAST_WORDS_SECONDS),
            ),
            clock=self.ground.clock,
            rng=self.ground.rng,
        )

    def _make_metrics(self) -> Metrics:
        metrics = Metrics(self.ground.clock)
        service, known = self.service, self.directory.statistics
        metrics.gauge(
            "num_requests_inside", "Requests of peers in our models", lambda: service.inside
        )
        metrics.gauge(
            "served_tokens", "Tokens made here since start", lambda: service.served.tokens
        )
        metrics.gauge("peers", "Nodes known", lambda: known(self.ground.clock.now()).nodes)
        return metrics

    def _facts(self, name: str) -> Facts:
        ground = self.ground
        return Facts(
            peer=ground.identity.peer_id,
            name=name,
            swarm=ground.config.swarm.name,
            api_url=ground.config.api.url,
            started=ground.clock.monotonic(),
            encoder=ground.encoder.digest if ground.encoder else "",
            hosted=tuple(
                hosted_state(ground.models[SpecialistId(one.id)], one)
                for one in ground.config.models
            ),
        )

    def _view_parts(self, swarm: SwarmId) -> ViewParts:
        ground = self.ground
        return ViewParts(
            network=ground.network,
            directory=self.directory,
            coordinator=self.coordinator,
            joiner=Joiner(
                swarm, self._meet, self.coordinator, self.discovery, self.announcer.announce_soon
            ),
            service=self.service,
            metrics=self.metrics,
            device=lambda: describe_device(ground.threads),
            clock=ground.clock,
        )

    async def _meet(self, address: str) -> PeerId:
        report = await self.ground.network.join((address,))
        if not report.reached:
            raise PeerUnreachable(next(iter(report.unreachable.values())))
        return report.reached[0]


@dataclass(frozen=True, slots=True)
class _Answers:
    """The gateway's `AnswerSource`."""

    answer: AnswerFunction


def _network_config(config: NodeConfig, identity: Identity) -> Libp2pConfig:
    return Libp2pConfig(
        identity,
        config.network.listen,
        config.paths.runtime,
        config.network.bootstrap,
    )


async def _cancel(tasks: Sequence["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
