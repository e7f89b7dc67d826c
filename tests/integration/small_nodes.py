"""Nodes for tests that are about swarms: all of a node's swarm life, no models, no gateway."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from node.config import NetworkConfig, NodeConfig, RouterConfig, SwarmConfig
from node.footing import Ground
from node.paths import paths_below
from node.presence import Presence
from node.presences import Presences
from node.services.ask import AskService
from node.state import Check, JoinReport
from node.swarm_view import SwarmView
from node.swarms.folder import swarm_names
from node.swarms.founding import Founder, found
from protocols.adapters.clock import SystemClock

ANY_PORT = ("/ip4/127.0.0.1/tcp/0",)
PASSPHRASE = "correct horse battery staple"  # noqa: S105


@dataclass(frozen=True, slots=True)
class SmallNode:
    """One machine, as its owner sees it."""

    config: NodeConfig
    presences: Presences
    view: SwarmView

    def __getitem__(self, name: str) -> Presence:
        return self.presences.named(name)

    @property
    def names(self) -> tuple[str, ...]:
        """Swarms it is in, by name."""
        return tuple(sorted(one.name for one in self.presences.all()))

    @property
    def folders(self) -> tuple[str, ...]:
        """Everything below its folder of swarms, half-made things too."""
        parent = self.config.paths.swarms
        found = parent.iterdir() if parent.exists() else ()
        return tuple(sorted(one.name for one in found if one.is_dir()))

    async def found(self, name: str, *, is_private: bool = True) -> Presence:
        """Make a swarm, and be in it."""
        make(self.config, name, is_private=is_private)
        await self.view.load(name)
        return self[name]

    async def invite(self, name: str, uses: int = 1) -> str:
        """For members that host and ask."""
        return (await self.view.invite(name, ("node", "user"), uses, 3_600.0)).invite

    async def join(self, target: str) -> JoinReport:
        """To the end, whatever that is."""
        steps = [step async for step in self.view.join(target)]
        report = steps[-1]
        assert isinstance(report, JoinReport)
        assert all(isinstance(step, Check) for step in steps[:-1])
        return report


def settings(
    home: Path,
    listen: tuple[str, ...] = ANY_PORT,
    swarm: SwarmConfig = SwarmConfig(),  # noqa: B008 - frozen
) -> NodeConfig:
    """What such a node is told."""
    router, network = RouterConfig(encoder="off"), NetworkConfig(listen=listen)
    return NodeConfig(paths_below(home), network=network, router=router, swarm=swarm)


def make(config: NodeConfig, name: str, *, is_private: bool = True) -> None:
    """The files of a new swarm, whether the node runs or not."""
    founder = Founder(config.paths, SystemClock().now(), os.urandom)
    found(name, is_private=is_private, passphrase=PASSPHRASE, founder=founder)
    assert name in swarm_names(config.paths.swarms)


@asynccontextmanager
async def small_node(config: NodeConfig) -> AsyncIterator[SmallNode]:
    """A node that is up until the block is left; nothing of it runs afterwards."""
    clock = SystemClock()
    async with asyncio.TaskGroup() as tasks:
        presences = Presences(config, tasks)
        service = AskService({}, clock, presences.allowance)
        await presences.start(Ground(config, clock, Random(1), None, service, ()))
        try:
            yield SmallNode(config, presences, SwarmView(presences, clock))
        finally:
            await presences.close()
