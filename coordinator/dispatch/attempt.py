"""One peer that was asked for one answer: when it began, when it spoke, how long to wait for it.

Knows what was measured of its peer; must not know other attempts, or what is to be done.
"""

from dataclasses import dataclass

from coordinator.dispatch.deadlines import (
    LAST_HOPE_FACTOR,
    hedge_after,
    silence_before_tokens,
    silence_between_tokens,
)
from coordinator.measure import PeerMeasurements
from protocols.ids import PeerId
from protocols.records import CapabilityCard


@dataclass(slots=True)
class Attempt:
    """Times are monotonic seconds."""

    number: int
    card: CapabilityCard
    started: float
    alive: float
    """When it last gave a sign of life."""
    last_tokens: float = 0.0
    has_tokens: bool = False
    has_been_hedged: bool = False
    is_last_hope: bool = False
    """It has been silent for long, but there is nobody else."""

    @property
    def peer(self) -> PeerId:
        """Who was asked."""
        return PeerId(self.card.peer)

    def gives_up_at(self, measurements: PeerMeasurements) -> float:
        """When its silence is too long."""
        factor = LAST_HOPE_FACTOR if self.is_last_hope else 1.0
        silence = silence_between_tokens if self.has_tokens else silence_before_tokens
        return self.alive + factor * silence(measurements, self.peer)

    def hedge_at(self, measurements: PeerMeasurements) -> float:
        """When another peer should be asked beside it, unless it has spoken."""
        return self.started + hedge_after(measurements, self.peer)

    def pause(self, seconds: float) -> None:
        """So long it was not its turn."""
        self.alive += seconds
        self.started += seconds
