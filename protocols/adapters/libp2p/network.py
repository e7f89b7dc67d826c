"""A peer of the real network: transport and record store over one supervised libp2p daemon.

Knows how its parts are put together, started and ended; must not know any protocol. Everything
runs in the caller's event loop, under one task group.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from hivemind.p2p import PeerID
from hivemind.utils.logging import use_hivemind_log_handler

from protocols import limits
from protocols.adapters.libp2p.address import parse_address
from protocols.adapters.libp2p.daemon import Daemon
from protocols.adapters.libp2p.flags import DaemonSettings
from protocols.adapters.libp2p.guard import GuardedP2P
from protocols.adapters.libp2p.peer_routing import ROUTING_PROTOCOL, Directory, PeerRouting
from protocols.adapters.libp2p.probe import probe
from protocols.adapters.libp2p.records import Libp2pRecords
from protocols.adapters.libp2p.runtime import RuntimeFolder
from protocols.adapters.libp2p.supervisor import Attachment, Supervisor
from protocols.adapters.libp2p.transport import Libp2pTransport
from protocols.adapters.libp2p.turnstile import Turnstile
from protocols.errors import DslmError
from protocols.ids import PeerId
from protocols.ports import Clock, Gate
from protocols.signing import Identity

REJOIN_SECONDS_FIRST = 1.0
REJOIN_SECONDS_MAX = 30.0
REJOIN_AT_ONCE = 16
RELAY_PROTOCOL = "/libp2p/circuit/relay/0.2.0/hop"
ADDRESS_SECONDS = 5.0
"""How often we ask p2pd where we can be dialled."""
_LAST_ROUNDS = 4
"""Rounds of the event loop in which asyncio drops connections that it had only just accepted."""
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Libp2pConfig:
    """`runtime_dir` is where the folder for sockets is made: a short path, on a local disk.

    `startup_timeout` is in seconds. An empty `bootstrap` starts a swarm of one; an empty `listen`
    means that we cannot be dialled, unless through one of `relays` (addresses of peers that the
    operator trusts to relay for us). `relay_service` offers others to relay for them, within
    go-libp2p's limits: 128 KiB each way and two minutes a circuit, 16 circuits a peer.
    """

    identity: Identity
    listen: tuple[str, ...]
    runtime_dir: Path
    bootstrap: tuple[str, ...] = ()
    startup_timeout: float = 60.0
    table_bytes_max: int = limits.DHT_TABLE_BYTES_MAX
    """How much our part of the record store may hold."""
    relay_service: bool = False
    relays: tuple[str, ...] = ()
    message_bytes_max: int = limits.DHT_MESSAGE_BYTES_MAX
    """The longest message of the record store that the daemon lets through."""

    def daemon_settings(self, folder: Path) -> DaemonSettings:
        """What p2pd is started with in `folder`; `UserError` for a relay that is no address."""
        for relay in self.relays:
            parse_address(relay)
        return DaemonSettings(
            folder=folder,
            key_file=folder / "identity.key",
            listen=self.listen,
            startup_timeout=self.startup_timeout,
            relays=self.relays,
            message_bytes_max=self.message_bytes_max,
        )


@dataclass(frozen=True, slots=True)
class JoinReport:
    """Who answered at the addresses tried, and what was wrong with the others."""

    reached: tuple[PeerId, ...] = ()
    unreachable: Mapping[str, str] = field(default_factory=dict)


class Libp2pNetwork:
    """`async with Libp2pNetwork(config, clock) as network`: a peer that is up, until the end.

    Enter and leave it in the same task. An unreachable bootstrap peer does not keep it from
    starting: `bootstrap_report` tells, and it is tried again in the background while nobody else
    is connected.
    """

    def __init__(self, config: Libp2pConfig, clock: Clock, gate: Gate | None = None) -> None:
        self._config = config
        self._clock = clock
        self._gate = gate
        self._stack = AsyncExitStack()
        self._attached = asyncio.Event()
        self.bootstrap_report = JoinReport()
        self.on_flood: Callable[[PeerId], None] = lambda _: None
        """Called, in the event loop, when a peer is shut out for a while because it floods us."""

    def __repr__(self) -> str:
        return f"<Libp2pNetwork {self._config.identity.peer_id}>"

    async def __aenter__(self) -> "Libp2pNetwork":
        use_hivemind_log_handler("nowhere")
        logging.addLevelName(logging.WARNING, "WARNING")  # hivemind renames it for everybody
        async with AsyncExitStack() as stack:
            stack.push_async_callback(_end_connections)
            folder = stack.enter_context(RuntimeFolder(self._config.runtime_dir))
            tasks = await stack.enter_async_context(_task_group())
            peer_id = self._config.identity.peer_id
            turnstile = Turnstile(self._clock, self._gate)
            self.transport = Libp2pTransport(peer_id, tasks, turnstile, self._clock)
            stack.callback(self.transport.refuse)
            turnstile.on_flood = self.transport.drop_nowait
            turnstile.on_shut_out = self._tell_of_flood
            if not self._config.relay_service:
                self.transport.shut(RELAY_PROTOCOL)
            transport = self.transport
            directory = Directory(self._clock, transport)
            await transport.serve(ROUTING_PROTOCOL, PeerRouting(turnstile, directory))
            if self._gate is not None:
                await self._gate.attach(self.transport)
            guard = GuardedP2P(PeerID.from_base58(peer_id), self._clock, turnstile)
            self.records = Libp2pRecords(
                peer_id, self._clock, guard=guard, table_bytes_max=self._config.table_bytes_max
            )
            self._supervisor = Supervisor(
                self._config.identity,
                folder,
                self._config.daemon_settings(folder.path),
                Attachment(self._attach, self._detach),
            )
            stack.push_async_callback(self._supervisor.stop)
            await self._supervisor.start()
            keepers = [
                tasks.create_task(self._supervisor.run()),
                tasks.create_task(self._stay_connected()),
                tasks.create_task(self.transport.run_sweeps()),
                tasks.create_task(self._refresh_addresses()),
            ]
            stack.push_async_callback(_cancel, keepers)
            stack.push_async_callback(self.transport.close)
            stack.push_async_callback(self.records.close)
            self.bootstrap_report = await self.join(self._config.bootstrap)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    @property
    def listening(self) -> tuple[str, ...]:
        """Where we listen, with the ports that were found; give it to the next start."""
        return self._supervisor.listen

    def status(self) -> str:
        """`up`, or the reason why we are cut off at the moment."""
        return self._supervisor.status()

    async def join(self, addresses: Sequence[str]) -> JoinReport:
        """Dial all `addresses` at once and meet the swarm through those that answer."""
        outcomes = await asyncio.gather(*(self._try_connect(address) for address in addresses))
        reached = tuple(peer for peer, _ in outcomes if peer is not None)
        if reached:
            await self.records.meet(reached)
        return JoinReport(
            reached,
            {
                address: reason
                for address, (_, reason) in zip(addresses, outcomes, strict=True)
                if reason
            },
        )

    async def connected_peers(self) -> tuple[PeerId, ...]:
        """Peers with an open connection to us."""
        return tuple(await self.transport.connections())

    async def observed(self, peer: PeerId) -> tuple[str, ...]:
        """The multiaddresses from which `peer` is connected, as we see them; mostly one.

        Empty when it is not connected. Port and, behind a NAT, host may be others than those it
        listens on.
        """
        return (await self.transport.connections()).get(peer, ())

    async def drop(self, peer: PeerId) -> None:
        """End all streams with `peer`, and the connection, at once."""
        await self.transport.drop(peer)

    async def probe(self, address: str, peer: PeerId) -> None:
        """Dial `address` over a new connection of our own, without p2pd, and hang up.

        `PeerUnreachable` unless, within 3 s, somebody answers there who holds the key of `peer`.
        """
        await probe(address, peer)

    async def _attach(self, daemon: Daemon) -> None:
        await self.records.attach(daemon)
        await self.transport.attach(daemon)
        self._attached.set()

    def _detach(self) -> None:
        self.transport.detach()
        self.records.detach()

    def _tell_of_flood(self, peer: PeerId) -> None:
        self.on_flood(peer)  # as it is now; it may be set at any time

    async def _pause(self, seconds: float) -> float:
        """Wait, but not after a new daemon was attached; how long to wait the next time."""
        try:
            async with asyncio.timeout(seconds):
                await self._attached.wait()
        except TimeoutError:
            return min(2 * seconds, REJOIN_SECONDS_MAX)
        self._attached.clear()
        return REJOIN_SECONDS_FIRST

    async def _try_connect(self, address: str) -> tuple[PeerId | None, str]:
        try:
            return await self.transport.connect(address), ""
        except DslmError as error:
            return None, str(error)

    async def _refresh_addresses(self) -> None:
        """Hear of a relay that takes us, or does not any more."""
        while True:
            await asyncio.sleep(ADDRESS_SECONDS)
            try:
                await self.transport.daemon().refresh_addresses()
            except DslmError as error:
                _logger.debug("cannot ask for our addresses: %s", error)

    async def _stay_connected(self) -> None:
        """Keep connected to the peers that were joined by address.

        After a restart of their daemon, or ours, nobody else would bring the two together again.
        """
        pause = REJOIN_SECONDS_FIRST
        while True:
            pause = await self._pause(pause)
            try:
                connected = await self.connected_peers()
                known = (*self._config.bootstrap, *self.transport.known_addresses())
                missing = [text for text in known if not text.endswith(connected)]
                if missing:
                    await self.join(tuple(dict.fromkeys(missing[-REJOIN_AT_ONCE:])))
                else:
                    pause = REJOIN_SECONDS_FIRST
            except DslmError as error:
                _logger.debug("cannot rejoin now: %s", error)


@asynccontextmanager
async def _task_group() -> AsyncIterator[asyncio.TaskGroup]:
    """A task group that does not wrap what the body raises; its tasks must end by themselves."""
    tasks = asyncio.TaskGroup()
    await tasks.__aenter__()
    try:
        yield tasks
    finally:
        await tasks.__aexit__(None, None, None)


async def _end_connections() -> None:
    """Let asyncio close what was aborted last."""
    for _ in range(_LAST_ROUNDS):
        await asyncio.sleep(0)


async def _cancel(tasks: Sequence["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
