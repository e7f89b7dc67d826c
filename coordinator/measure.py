"""What we have measured of other peers ourselves, and which of them to ask first.

Knows timings and failures that this peer observed; must not know what peers claim, nor how they
are asked. Pure: time (monotonic seconds) and randomness are arguments.
"""

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from protocols.ids import PeerId

ALPHA = 0.2
"""Weight of the newest sample in the moving averages."""
BACK_OFF_FIRST = 5.0
BACK_OFF_MAX = 300.0
FIRST_TOKEN_PRIOR = 1.0
"""Seconds to a first token that are expected of a peer never asked before."""
NEAR_BEST = 1.25
"""Peers at most this much slower than the best share the work, so that clients do not herd."""
EXPLORE = 0.1
"""How often an unmeasured peer is tried although measured ones are there."""
TYPICAL_TOKENS = 64
"""Length of the answer for which peers are compared."""


class Average:
    """Exponential moving average; None before the first sample."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float | None = None

    def add(self, sample: float) -> None:
        """Take in one sample."""
        self.value = sample if self.value is None else self.value + ALPHA * (sample - self.value)


@dataclass(frozen=True, slots=True)
class PeerMeasurement:
    """A snapshot; times are seconds, None is unmeasured."""

    rtt: float | None = None
    first_token: float | None = None
    token_interval: float | None = None
    in_flight: int = 0
    failures: int = 0
    """In a row."""
    failing_for: float = 0.0
    """Seconds until the peer is asked like the others again."""
    last_error: str = ""

    @property
    def state(self) -> str:
        """`failing`, `unmeasured` or `ok`."""
        if self.failing_for > 0:
            return "failing"
        return "ok" if self.first_token is not None or self.rtt is not None else "unmeasured"


class _Peer:
    __slots__ = (
        "failures",
        "first_token",
        "gap",
        "in_flight",
        "last_error",
        "resting_until",
        "rtt",
        "token",
    )

    def __init__(self) -> None:
        self.rtt = Average()
        self.first_token = Average()
        self.token = Average()
        self.gap = Average()
        self.in_flight = 0
        self.failures = 0
        self.resting_until = 0.0
        self.last_error = ""

    def cost(self) -> float | None:
        """Expected seconds for a typical answer if asked now; None when never measured."""
        first, token = self.first_token.value, self.token.value
        if first is None:
            return None
        return first * (1 + self.in_flight) + TYPICAL_TOKENS * (token or 0.0)


class PeerMeasurements:
    """One for all requests of a coordinator. `own_slots` is how many of our own requests our own
    peer runs at once before others are asked first.
    """

    def __init__(self, me: PeerId, own_slots: int = 2) -> None:
        self._me = me
        self._own_slots = own_slots
        self._peers: dict[PeerId, _Peer] = {}

    def round_trip(self, peer: PeerId, seconds: float) -> None:
        """A ping came back."""
        self._of(peer).rtt.add(seconds)

    def started(self, peer: PeerId) -> None:
        """A request was sent to `peer`; `ended` must follow."""
        self._of(peer).in_flight += 1

    def ended(self, peer: PeerId) -> None:
        """A request to `peer` is over, however it went."""
        self._of(peer).in_flight -= 1

    def first_token(self, peer: PeerId, seconds: float) -> None:
        """The first token came, or was given up, after `seconds`."""
        self._of(peer).first_token.add(seconds)

    def tokens(self, peer: PeerId, count: int, seconds: float) -> None:
        """The next `count` tokens came `seconds` after those before."""
        self._of(peer).gap.add(seconds)
        self._of(peer).token.add(seconds / count)

    def succeeded(self, peer: PeerId) -> None:
        """`peer` answered: earlier failures are forgiven."""
        known = self._of(peer)
        known.failures, known.resting_until, known.last_error = 0, 0.0, ""

    def failed(self, peer: PeerId, now: float, reason: str) -> None:
        """`peer` failed us: it is asked last for 5 s, then 10 s, ... at most 5 min."""
        known = self._of(peer)
        pause = min(BACK_OFF_FIRST * 2.0 ** min(known.failures, 16), BACK_OFF_MAX)
        known.failures += 1
        known.resting_until = max(known.resting_until, now + pause)
        known.last_error = reason

    def busy(self, peer: PeerId, until: float) -> None:
        """`peer` is full and said until when; no failure, but others are asked first."""
        known = self._of(peer)
        known.resting_until = max(known.resting_until, until)

    def expected_first_token(self, peer: PeerId) -> float:
        """Seconds until a first token."""
        known = self._peers.get(peer)
        value = known.first_token.value if known else None
        return FIRST_TOKEN_PRIOR if value is None else value

    def expected_gap(self, peer: PeerId) -> float:
        """Seconds between two messages with tokens; 0 when unmeasured."""
        known = self._peers.get(peer)
        return (known.gap.value if known else None) or 0.0

    def keep_only(self, peers: Iterable[PeerId]) -> None:
        """Forget all others that owe us nothing, so that memory stays bounded."""
        wanted = set(peers)
        self._peers = {p: m for p, m in self._peers.items() if p in wanted or m.in_flight}

    @property
    def size(self) -> int:
        """How many peers are remembered."""
        return len(self._peers)

    def snapshot(self, peer: PeerId, now: float) -> PeerMeasurement:
        """What is known of `peer` at `now`."""
        known = self._peers.get(peer)
        if known is None:
            return PeerMeasurement()
        return PeerMeasurement(
            rtt=known.rtt.value,
            first_token=known.first_token.value,
            token_interval=known.token.value,
            in_flight=known.in_flight,
            failures=known.failures,
            failing_for=max(0.0, known.resting_until - now),
            last_error=known.last_error,
        )

    def rank(self, peers: Sequence[PeerId], now: float, rng: random.Random) -> list[PeerId]:
        """`peers` in the order in which to ask them.

        Our own first when it is free; then measured speed, the nearly best taking turns by the
        power of two choices; unmeasured ones after them, now and then before; those that failed
        or are full last, the one that rests shortest first.
        """
        resting = [peer for peer in peers if self._resting_until(peer) > now]
        able = [peer for peer in peers if self._resting_until(peer) <= now]
        own = [p for p in able if p == self._me and self._in_flight(p) < self._own_slots]
        others = [peer for peer in able if peer not in own]
        return (
            own
            + self._rank_able(others, rng)
            + sorted(resting, key=lambda peer: (self._resting_until(peer), peer))
        )

    def _rank_able(self, peers: list[PeerId], rng: random.Random) -> list[PeerId]:
        costs = {peer: self._cost(peer) for peer in peers}
        unmeasured = self._spread([peer for peer in peers if costs[peer] == math.inf], rng)
        measured = sorted((p for p in peers if costs[p] < math.inf), key=lambda p: (costs[p], p))
        if not measured:
            return unmeasured
        limit = costs[measured[0]] * NEAR_BEST
        near = self._spread([peer for peer in measured if costs[peer] <= limit], rng)
        ranked = near + measured[len(near) :]
        if unmeasured and rng.random() < EXPLORE:
            return unmeasured[:1] + ranked + unmeasured[1:]
        return ranked + unmeasured

    def _spread(self, peers: list[PeerId], rng: random.Random) -> list[PeerId]:
        """Again and again draw two and take the one with less to do (Mitzenmacher 2001)."""
        left, order = list(peers), []
        while left:
            pair = rng.sample(left, min(2, len(left)))
            taken = min(pair, key=self._in_flight)
            left.remove(taken)
            order.append(taken)
        return order

    def _cost(self, peer: PeerId) -> float:
        known = self._peers.get(peer)
        cost = known.cost() if known else None
        return math.inf if cost is None else cost

    def _in_flight(self, peer: PeerId) -> int:
        known = self._peers.get(peer)
        return known.in_flight if known else 0

    def _resting_until(self, peer: PeerId) -> float:
        known = self._peers.get(peer)
        return known.resting_until if known else 0.0

    def _of(self, peer: PeerId) -> _Peer:
        return self._peers.setdefault(peer, _Peer())
