"""The composition root: builds the parts of a node, wires them by constructor, runs and ends them.

Knows every part and the order of their lives; decides nothing else. The only module that sees the
adapters of the ports.
"""

import asyncio
import logging
import signal
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Coroutine,
    Mapping,
    Sequence,
)
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from random import Random, SystemRandom
from typing import Any

from coordinator.answer import AnswerEvent, AnswerRequest, Route, Routed
from coordinator.memory import with_ticket
from coordinator.ports import Encoder, Planner
from node.accounts import Accounts
from node.adapter_desk import AdapterDesk, Offered
from node.cards import CardMaker
from node.config import NodeConfig
from node.engine.base import EngineStatistics
from node.engine.device import default_threads, describe_device
from node.footing import Ground
from node.gateway.access import Access
from node.gateway.admin_token import AdminToken
from node.gateway.config import GatewayConfig
from node.gateway.keys import KeyFile
from node.gateway.server import Gateway
from node.hosting.hosted import HostedModel
from node.hosting.kernels import device_for
from node.hosting.page_memory import HostedPages
from node.hosting.startup import load_encoder, load_models, load_planner
from node.metrics import AnswerFunction, Metrics
from node.presences import Presences
from node.quantities import format_device
from node.services.ask import AskService
from node.services.memory import MemorySettings, NodeMemory
from node.view import Facts, LiveView
from node.view import Parts as ViewParts
from protocols.adapters.clock import SystemClock
from protocols.ids import SpecialistId
from protocols.messages.memory import Encoding
from protocols.ports import Clock
from protocols.records import CapabilityCard

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
            _log.info("ready: API at %s", node.gateway.url)
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
    threads = config.engine.threads or default_threads()
    async with AsyncExitStack() as stack:
        engine = replace(config.engine, threads=threads)
        device = describe_device(threads, device_for(engine.device))
        _log.info("computing on %s", format_device(device))
        models = await load_models(config.models, config.paths, engine)
        for model in models.values():
            stack.push_async_callback(model.close)
        encoder = (
            await load_encoder(config.paths.models) if config.router.encoder != "off" else None
        )
        planner = await load_planner(models) if config.router.planner != "off" else None
        maker = CardMaker(encoder)
        cards = [await maker.card(models[SpecialistId(one.id)], one) for one in config.models]
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        node = Node(config, Matter(models, encoder, cards, threads, planner), tasks, (clock, rng))
        await node.start(stack)
        yield node


@dataclass(frozen=True, slots=True)
class Matter:
    """What was loaded before a node can be made."""

    models: Mapping[SpecialistId, HostedModel]
    encoder: Encoder | None
    cards: Sequence[CapabilityCard]
    threads: int
    planner: Planner | None = None


class Node:
    """The parts, wired. `start` brings them to life; leaving the stack it was given ends them."""

    def __init__(
        self,
        config: NodeConfig,
        matter: Matter,
        tasks: asyncio.TaskGroup,
        chance: tuple[Clock, Random],
    ) -> None:
        """`chance` is the clock and the randomness to live by."""
        self._config = config
        self._matter = matter
        self._tasks = tasks
        clock, rng = chance
        self.offered = Offered(dict(matter.models), list(matter.cards))
        self.presences = Presences(config, tasks)
        self.service = AskService(matter.models, clock, self.presences.allowance)
        self.memory = _memory(config, matter, clock)
        shared = self.memory if config.memory.share else None
        self._ground = Ground(
            config,
            clock,
            rng,
            matter.encoder,
            self.service,
            self.offered.cards,
            shared,
            matter.planner,
        )
        self.accounts = Accounts()
        self.metrics = self._make_metrics()
        self.view = LiveView(self._facts(), self._view_parts())
        self.gateway = self._make_gateway()

    async def start(self, stack: AsyncExitStack) -> None:
        """Take part in swarms, then open the door to people."""
        stack.push_async_callback(self.presences.close)
        await self.presences.start(self._ground)
        await self.gateway.start()
        stack.push_async_callback(self.gateway.stop)

    async def drain(self) -> None:
        """Refuse new work; let answers in progress go on for as long as the settings say."""
        _log.info("stopping: %d answers in progress", self.service.inside + self.gateway.running)
        self.view.draining = True
        self.service.drain()
        try:
            async with asyncio.timeout(self._config.node.drain):
                await self.gateway.stop()
                await self.service.wait_idle()
        except TimeoutError:
            _log.info("cut short: %d answers to peers", self.service.inside)

    async def _answer(self, request: AnswerRequest) -> AsyncGenerator[AnswerEvent, None]:
        """By the coordinator of the swarm that the request names."""
        request = with_ticket(request, self._ground.rng)
        async with aclosing(self.presences.named(request.swarm).answer(request)) as events:
            async for event in events:
                yield event

    async def _route(self, request: AnswerRequest) -> Routed:
        return await self.presences.named(request.swarm).coordinator.plan(request)

    def _make_gateway(self) -> Gateway:
        config, ground = self._config, self._ground
        return Gateway(
            _Answers(self.accounts.observed(self.metrics.observed(self._answer)), self._route),
            self.view,
            GatewayConfig(
                host=config.api.host,
                port=config.api.port,
                require_key=config.api.require_key,
                hosts=config.api.hosts,
                route=Route(config.router.route),
                body_bytes_max=config.api.body_max,
                drain=max(0.0, config.node.drain - _LAST_WORDS_SECONDS),
            ),
            clock=ground.clock,
            rng=ground.rng,
            access=Access(
                KeyFile(config.paths.api_keys_file),
                AdminToken.create(config.paths.admin_token_file),
            ),
        )

    def _make_metrics(self) -> Metrics:
        metrics = Metrics(self._ground.clock)
        service = self.service
        metrics.gauge(
            "num_requests_inside", "Requests of peers in our models", lambda: service.inside
        )
        metrics.gauge(
            "served_tokens", "Tokens made here since start", lambda: service.served.tokens
        )
        metrics.gauge(
            "spec_decode_num_draft_tokens",
            "Tokens computed ahead of their turn",
            lambda: sum(one.drafted_tokens for one in self._engines()),
        )
        metrics.gauge(
            "spec_decode_num_accepted_tokens",
            "Tokens computed ahead of their turn that were right",
            lambda: sum(one.accepted_tokens for one in self._engines()),
        )
        counts = self.memory.counts
        metrics.gauge("memory_pages_sent", "Pages sent to peers", lambda: counts.pages_sent)
        metrics.gauge("memory_bytes_sent", "Bytes of pages sent", lambda: counts.bytes_sent)
        metrics.gauge(
            "memory_pages_fetched", "Pages that came from peers", lambda: counts.pages_fetched
        )
        metrics.gauge(
            "memory_bytes_fetched", "Bytes of pages that came", lambda: counts.bytes_fetched
        )
        metrics.gauge(
            "memory_transfers_failed", "Transfers given up", lambda: counts.transfers_failed
        )
        metrics.gauge("peers", "Nodes known", self._count_peers)
        return metrics

    def _engines(self) -> list[EngineStatistics]:
        return [model.statistics() for model in self.offered.models.values()]

    def _count_peers(self) -> int:
        now = self._ground.clock.now()
        return sum(one.directory.statistics(now).nodes for one in self.presences.all())

    def _facts(self) -> Facts:
        matter = self._matter
        return Facts(
            name=self._config.node.name,
            started=self._ground.clock.monotonic(),
            encoder=matter.encoder.digest if matter.encoder else "",
        )

    def _view_parts(self) -> ViewParts:
        return ViewParts(
            presences=self.presences,
            service=self.service,
            metrics=self.metrics,
            device=lambda: describe_device(
                self._matter.threads, device_for(self._config.engine.device)
            ),
            engines=self._engines,
            api_url=lambda: self._config.api.url,
            clock=self._ground.clock,
            desk=AdapterDesk(
                self.offered,
                CardMaker(self._matter.encoder),
                self.service,
                self.memory,
                self.presences.cards_changed,
                self._tasks,
            ),
            hosted=self.offered.states,
            accounts=self.accounts,
        )


def _memory(config: NodeConfig, matter: Matter, clock: Clock) -> NodeMemory:
    encodings: Mapping[str, Encoding] = {"int8": "i8", "bf16": "bf16", "fp32": "f32"}
    settings = MemorySettings(encodings[config.memory.pages], config.memory.window)
    pages = {name: HostedPages.of(model) for name, model in matter.models.items()}
    return NodeMemory(pages, clock, settings)


@dataclass(frozen=True, slots=True)
class _Answers:
    """The gateway's `AnswerSource`."""

    answer: AnswerFunction
    route: Callable[[AnswerRequest], Coroutine[Any, Any, Routed]]
