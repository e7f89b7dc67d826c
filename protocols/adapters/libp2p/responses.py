"""Who answers us and how fast: whom to believe, whom to leave alone, how long to wait for one.

Knows peers and times that it is told; must not know what is asked. Peers that take every question
and answer none would otherwise cost each search and each store its whole time limit.
"""

import statistics
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import TypeVar

from hivemind.p2p import PeerID

from protocols.ports import Clock

SLOW_BANS_SECONDS = (5.0, 30.0, 300.0)
"""How long one is left alone that kept us waiting in vain, once, twice and from then on."""
QUICK_BANS_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""The same for one that failed at once, which costs nobody anything."""
ALONE_SECONDS = 10.0
"""When nobody at all has answered for so long, it is our own connection that fails."""
FORGET_SECONDS = 600.0
"""After so long without a failure they begin anew."""
PROBE_SECONDS_MAX = 30.0
"""One that calls us, though it was struck out, is given a chance after so long at the latest."""
PATIENCE_FACTOR = 4.0
PATIENCE_SECONDS_MIN, PATIENCE_SECONDS_MAX = 0.25, 1.0
"""Bounds of what `PATIENCE_FACTOR` times the usual round trip is."""
STRANGER_FACTOR = 2.0
"""One that never answered may have to be dialled and greeted first."""
SAMPLES = 64
PEERS_MAX = 4_096
_T = TypeVar("_T")


@dataclass(slots=True)
class _Failures:
    """How often in a row of time, and until when that counts; monotonic seconds."""

    count: int = 0
    last: float = float("-inf")
    out_until: float = float("-inf")
    probe_at: float = float("-inf")


class Responses:
    """What came of our calls; stands in for hivemind's `Blacklist` as well.

    Bounded: of more than `PEERS_MAX` peers those unheard of for longest are forgotten.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._believed: OrderedDict[PeerID, None] = OrderedDict()
        self._failures: OrderedDict[PeerID, _Failures] = OrderedDict()
        self._round_trips: deque[float] = deque(maxlen=SAMPLES)
        self._usual = PATIENCE_SECONDS_MAX
        self._last_answer = float("-inf")

    def __repr__(self) -> str:
        return f"<Responses {len(self._believed)} answered, {len(self._failures)} failed>"

    def __contains__(self, peer: PeerID) -> bool:
        """Whether `peer` is struck out at the moment."""
        failures = self._failures.get(peer)
        return failures is not None and self._clock.monotonic() < failures.out_until

    def has_answered(self, peer: PeerID) -> bool:
        """Whether it answered a call of ours, and has not failed since."""
        return peer in self._believed

    def may_probe(self, peer: PeerID) -> bool:
        """Whether it is time to try a peer that says it is there."""
        failures = self._failures.get(peer)
        return failures is None or self._clock.monotonic() >= failures.probe_at

    def patience(self, peer: PeerID) -> float:
        """Seconds after which to go on without `peer`, for the time being."""
        factor = 1.0 if peer in self._believed else STRANGER_FACTOR
        usual = PATIENCE_FACTOR * self._usual
        return factor * min(max(usual, PATIENCE_SECONDS_MIN), PATIENCE_SECONDS_MAX)

    def succeed(self, peer: PeerID, seconds: float) -> None:
        """It answered after so long. Its failures still count for the next, or it could take turns.

        The usual time is a median, so that those who answer as late as they may do not stretch it.
        """
        if (failures := self._failures.get(peer)) is not None:
            failures.out_until = float("-inf")
        _remember(self._believed, peer, None)
        self._last_answer = self._clock.monotonic()
        self._round_trips.append(seconds)
        self._usual = statistics.median(self._round_trips)

    def fail(self, peer: PeerID, seconds: float) -> None:
        """It did not answer, and we knew after so long."""
        now = self._clock.monotonic()
        self._believed.pop(peer, None)
        failures = self._failures.get(peer) or _Failures()
        _remember(self._failures, peer, failures)
        if now < failures.out_until:
            return  # one of several calls that were under way together
        if now - failures.last > FORGET_SECONDS:
            failures.count = 0
        is_slow = seconds >= PATIENCE_SECONDS_MIN
        bans = SLOW_BANS_SECONDS if is_slow else QUICK_BANS_SECONDS
        ban = bans[min(failures.count, len(bans) - 1)]
        if now - self._last_answer - seconds > ALONE_SECONDS:
            ban = bans[0]
        else:
            failures.count += 1
        failures.last, failures.out_until = now, now + ban
        failures.probe_at = now + (min(ban, PROBE_SECONDS_MAX) if is_slow else bans[0])

    def register_failure(self, peer: PeerID) -> None:
        """hivemind's name, of a failure about which nothing else is known."""
        self.fail(peer, 0.0)

    def register_success(self, peer: PeerID) -> None:
        """hivemind's name; all is said by `succeed`."""


def _remember(peers: "OrderedDict[PeerID, _T]", peer: PeerID, value: _T) -> None:
    peers[peer] = value
    peers.move_to_end(peer)
    if len(peers) > PEERS_MAX:
        peers.popitem(last=False)
