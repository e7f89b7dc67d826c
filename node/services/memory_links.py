"""Whether it is quicker to fetch pages than to compute them: what links and engines did lately.

Knows rates and times; must not know pages' contents, streams or peers' promises.
"""

from collections import OrderedDict
from dataclasses import dataclass

from protocols.ids import PeerId

LINKS_MAX = 256
LINK_SECONDS = 600.0
"""How long a measurement counts; after that the peer is tried again."""
FAULT_SECONDS = 600.0
"""How long a peer that sent nonsense is left alone."""
UNKNOWN_RATE = 12_500_000.0
UNKNOWN_LATENCY = 0.1
"""What is expected of a peer that nothing was fetched from, in bytes a second and in seconds."""
GAIN_MIN = 0.1
"""The part of the time that must be saved for a transfer to be worth the trouble."""
SECONDS_MIN = 0.05
"""What takes less to compute is computed."""
_NEWEST = 0.5


@dataclass(slots=True)
class _Link:
    rate: float
    latency: float
    at: float


@dataclass(frozen=True, slots=True)
class Journey:
    """How long `tokens` take: alone, or with the pages coming from the other end meanwhile."""

    alone: float
    together: float

    @property
    def is_worth_it(self) -> bool:
        """Whether to fetch."""
        return self.alone >= SECONDS_MIN and self.together <= (1 - GAIN_MIN) * self.alone


class MemoryLinks:
    """What was measured of at most 256 peers. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._links: OrderedDict[PeerId, _Link] = OrderedDict()
        self._faulty: OrderedDict[PeerId, float] = OrderedDict()

    def __repr__(self) -> str:
        return f"<MemoryLinks {len(self._links)} known, {len(self._faulty)} faulty>"

    def measured(self, peer: PeerId, size: int, seconds: float, latency: float, now: float) -> None:
        """`size` bytes came from `peer` in `seconds`, the first of them after `latency`."""
        rate = size / max(seconds, 1e-3)
        known = self._links.pop(peer, None)
        if known is not None and now - known.at < LINK_SECONDS:
            rate = known.rate + _NEWEST * (rate - known.rate)
            latency = known.latency + _NEWEST * (latency - known.latency)
        self._links[peer] = _Link(rate, latency, now)
        if len(self._links) > LINKS_MAX:
            self._links.popitem(last=False)

    def failed(self, peer: PeerId, now: float) -> None:
        """`peer` sent what it must not: nothing is fetched from it for ten minutes."""
        self._faulty[peer] = now + FAULT_SECONDS
        self._faulty.move_to_end(peer)
        if len(self._faulty) > LINKS_MAX:
            self._faulty.popitem(last=False)

    def is_faulty(self, peer: PeerId, now: float) -> bool:
        """Whether `peer` failed lately."""
        return self._faulty.get(peer, now) > now

    def predict(
        self, peer: PeerId, tokens: int, token_bytes: float, prompt_rate: float, now: float
    ) -> Journey:
        """What fetching would save: we compute from the beginning while pages come from the end.

        With rates p (ours) and f (the link's, in tokens) it takes latency + (tokens - p * latency)
        / (p + f) instead of tokens / p. An engine of which nothing is known is taken as slow.
        """
        link = self._links.get(peer)
        if link is None or now - link.at >= LINK_SECONDS:
            link = _Link(UNKNOWN_RATE, UNKNOWN_LATENCY, now)
        rate = prompt_rate or 1.0
        alone = tokens / rate
        if link.latency >= alone:
            return Journey(alone, alone)
        left = tokens - rate * link.latency
        return Journey(alone, link.latency + left / (rate + link.rate / token_bytes))
