"""Who of a swarm is connected to us now.

Knows that the network says who is connected and the gate who is in; must not know what anybody is
asked, nor what comes of having been there.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random

from protocols.errors import DslmError
from protocols.ids import PeerId

ROUND_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class CompanyPorts:
    """`connected` may fail with a `DslmError`: then nobody is. `on_round` hears who is there."""

    connected: Callable[[], Awaitable[Sequence[PeerId]]]
    admitted: Callable[[], Sequence[PeerId]]
    on_round: Callable[[Sequence[PeerId]], None]
    rng: Random


class Company:
    """As of the last look, which was a few seconds ago at most while `run` does."""

    def __init__(self, ports: CompanyPorts) -> None:
        self._ports = ports
        self._there: tuple[PeerId, ...] = ()

    def __repr__(self) -> str:
        return f"<Company of {len(self._there)}>"

    def peers(self) -> tuple[PeerId, ...]:
        """Those who were connected at the last look, and are admitted still."""
        admitted = set(self._ports.admitted())
        return tuple(peer for peer in self._there if peer in admitted)

    async def refresh(self) -> tuple[PeerId, ...]:
        """Look now; who is there."""
        try:
            self._there = tuple(await self._ports.connected())
        except DslmError:  # our own network daemon is being started anew
            self._there = ()
        return self.peers()

    async def run(self) -> None:
        """Look every few seconds, for as long as the presence lives."""
        while True:
            self._ports.on_round(await self.refresh())
            await asyncio.sleep(ROUND_SECONDS * self._ports.rng.uniform(0.8, 1.0))
