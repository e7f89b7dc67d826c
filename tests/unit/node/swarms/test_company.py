"""Who is there: connected now and admitted, looked at every few seconds."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from random import Random

from node.swarms.company import ROUND_SECONDS, Company, CompanyPorts
from protocols.adapters.virtual import run_virtual
from protocols.errors import TransportDown
from protocols.ids import PeerId
from protocols.signing import Identity

ANNA, BEN, CARL = (Identity(bytes([number]) * 32).peer_id for number in (1, 2, 3))


class World:
    def __init__(self) -> None:
        self.connected: set[PeerId] = {ANNA, BEN}
        self.admitted: set[PeerId] = {ANNA, CARL}
        self.is_down = False
        self.rounds: list[tuple[float, tuple[PeerId, ...]]] = []
        self.company = Company(
            CompanyPorts(self._connected, lambda: tuple(self.admitted), self._hear, Random(1))
        )

    async def _connected(self) -> Sequence[PeerId]:
        if self.is_down:
            raise TransportDown("being started anew")
        return tuple(self.connected)

    def _hear(self, peers: Sequence[PeerId]) -> None:
        self.rounds.append((asyncio.get_running_loop().time(), tuple(peers)))


def test_only_who_is_connected_and_admitted_is_there() -> None:
    async def main() -> None:
        world = World()
        assert world.company.peers() == ()
        assert await world.company.refresh() == (ANNA,)
        world.connected.add(CARL)
        assert world.company.peers() == (ANNA,)
        assert set(await world.company.refresh()) == {ANNA, CARL}
        world.admitted.remove(ANNA)  # that is known without another look
        assert world.company.peers() == (CARL,)

    run_virtual(main())


def test_nobody_is_there_while_our_own_daemon_is_not() -> None:
    async def main() -> None:
        world = World()
        await world.company.refresh()
        world.is_down = True
        assert await world.company.refresh() == world.company.peers() == ()
        world.is_down = False
        assert await world.company.refresh() == (ANNA,)

    run_virtual(main())


def test_each_round_is_heard_of_and_whoever_left_is_not_in_it() -> None:
    async def main() -> None:
        world = World()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(world.company.run())
            await asyncio.sleep(60.0)
            world.connected = {BEN}
            await asyncio.sleep(60.0)
            running.cancel()
        times = [when for when, _ in world.rounds]
        assert max(later - one for one, later in pairwise(times)) <= (ROUND_SECONDS)
        assert {peers for when, peers in world.rounds if when < 60.0} == {(ANNA,)}
        assert {peers for when, peers in world.rounds if when > 60.0} == {()}

    run_virtual(main())
