"""The turnstile: how many streams, requests and bytes of each peer come in, and of all together.

Knows the gate, allowances and meters; must not know how anything travels. It decides at once and
without a look at what is sent, so that saying no costs next to nothing.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from protocols import admission, allowances, limits
from protocols.errors import Busy, NotAdmitted
from protocols.ids import PeerId
from protocols.metering import Meter, Rate
from protocols.ports import Allowance, Clock, Gate

_OPENINGS = Rate(limits.STREAM_OPENINGS_PER_SECOND, limits.STREAM_OPENINGS_BURST)
_REQUESTS = Rate(limits.DHT_REQUESTS_PER_SECOND, limits.DHT_REQUESTS_BURST)
_BYTES = Rate(limits.STREAM_BYTES_PER_SECOND, limits.STREAM_BYTES_BURST)
_REFUSALS = Rate(limits.REFUSALS_PER_SECOND, limits.REFUSALS_BURST)
_QUESTIONS = Rate(allowances.NEWCOMER.requests_per_second, allowances.NEWCOMER.burst)
ROUTING_STREAMS_PER_PEER = 2
_UNLIMITED = Rate(1e12, 1e12)
SHUT_OUT_SECONDS_FIRST, SHUT_OUT_SECONDS_MAX = 10.0, 600.0
"""For how long one that floods us gets nothing, the first time and at most."""
SHUT_OUT_PEERS_MAX = 4_096


@dataclass(frozen=True, slots=True)
class _ShutOut:
    """Until when (monotonic), and for how long it was."""

    until: float
    seconds: float


class Turnstile:
    """Counts for one swarm; both the streams and the record store pass it."""

    def __init__(self, clock: Clock, gate: Gate | None = None) -> None:
        self.gate = gate
        self._clock = clock
        self._open: Counter[PeerId] = Counter()
        self._seated = 0
        self._running = 0
        self._openings = Meter(_OPENINGS)
        self._requests = Meter(_REQUESTS)
        self._routing: Counter[PeerId] = Counter()
        self._questions = Meter(_REQUESTS)
        self._bytes = Meter(
            Rate(
                limits.STREAM_BYTES_TOTAL_FACTOR * _BYTES.per_second,
                limits.STREAM_BYTES_TOTAL_FACTOR * _BYTES.burst,
            )
        )
        self._refusals = Meter(_UNLIMITED)
        self._shut_out: OrderedDict[PeerId, _ShutOut] = OrderedDict()
        self.on_flood: Callable[[PeerId], None] = lambda _: None
        """Called each time that a peer goes on and on although it was refused."""
        self.on_shut_out: Callable[[PeerId], None] = lambda _: None
        """Called once whenever such a peer is shut out for a while."""

    def __repr__(self) -> str:
        return f"<Turnstile {self._seated} streams, {self._running} requests>"

    def enter_stream(self, peer: PeerId, protocol: str) -> bool:
        """Whether `peer` may have one more stream, of `protocol`; if so, `leave_stream` later."""
        if self.is_shut_out(peer):
            self._refuse(peer)
            return False
        if not admission.is_admitted(self.gate, peer, protocol):
            self._refuse(peer)
            return False
        allowance = admission.allowance_of(self.gate, peer)
        if not self._has_seat(peer, allowance) or not self._openings.take(
            peer, _rate(allowance), self._clock.monotonic()
        ):
            self._refuse(peer)
            return False
        self._open[peer] += 1
        self._seated += 1
        return True

    def leave_stream(self, peer: PeerId) -> None:
        """A stream that had entered is over."""
        self._seated -= 1
        self._open[peer] -= 1
        if not self._open[peer]:
            del self._open[peer]

    def enter_request(self, peer: PeerId, protocol: str) -> None:
        """Let in one request to the record store; `leave_request` later.

        `NotAdmitted` and `Busy` say why not.
        """
        if self.is_shut_out(peer):
            self._refuse(peer)
            raise Busy("too many requests")
        if not admission.is_admitted(self.gate, peer, protocol):
            self._refuse(peer)
            raise NotAdmitted("say hello first")
        rate = _rate(admission.allowance_of(self.gate, peer))
        if not self._requests.take(peer, rate, self._clock.monotonic()):
            self._refuse(peer)
            raise Busy("too many requests")
        if self._running >= limits.DHT_REQUESTS_MAX:
            raise Busy("too many requests at once")
        self._running += 1

    def charge_request(self, peer: PeerId, amount: float) -> None:
        """Count a request that turned out to be worth `amount` more than one; `Busy` if it is."""
        rate = _rate(admission.allowance_of(self.gate, peer))
        if not self._requests.take(peer, rate, self._clock.monotonic(), amount):
            self._refuse(peer)
            raise Busy("too many requests")

    def leave_request(self) -> None:
        """A request that had entered was answered."""
        self._running -= 1

    def enter_routing(self, peer: PeerId) -> bool:
        """Whether `peer` may have one more stream on which it asks who is where.

        p2pd opens those by itself, before anybody says hello; so they have seats of their own.
        """
        is_full = self._routing.total() >= limits.ROUTING_STREAMS_MAX
        has_all = self._routing.get(peer, 0) >= ROUTING_STREAMS_PER_PEER
        if is_full or has_all or self.is_shut_out(peer):
            self._refuse(peer)
            return False
        self._routing[peer] += 1
        return True

    def leave_routing(self, peer: PeerId) -> None:
        """Such a stream is over."""
        self._routing[peer] -= 1
        if not self._routing[peer]:
            del self._routing[peer]

    def count_routing(self, peer: PeerId) -> None:
        """Count one such question; `Busy` if it is one too many."""
        if not self._questions.take(peer, _QUESTIONS, self._clock.monotonic()):
            self._refuse(peer)
            raise Busy("too many questions")

    def count_bytes(self, peer: PeerId, amount: int) -> bool:
        """Count bytes that `peer` has sent; whether it stays within its share."""
        return self._bytes.count(peer, _BYTES, self._clock.monotonic(), amount)

    def is_shut_out(self, peer: PeerId) -> bool:
        """Whether `peer` flooded us a while ago and gets nothing yet."""
        found = self._shut_out.get(peer)
        return found is not None and self._clock.monotonic() < found.until

    def _has_seat(self, peer: PeerId, allowance: Allowance) -> bool:
        """A part of all seats is kept for peers that have none, whatever the others do."""
        mine = self._open.get(peer, 0)
        if mine >= allowance.streams or self._seated >= limits.STREAMS_IN_MAX:
            return False
        return not mine or self._seated < limits.STREAMS_IN_MAX - limits.STREAMS_IN_RESERVED

    def _refuse(self, peer: PeerId) -> None:
        if self._refusals.take(peer, _REFUSALS, self._clock.monotonic()):
            return
        if not self.is_shut_out(peer):
            self._shut(peer)
            self.on_shut_out(peer)
        self.on_flood(peer)

    def _shut(self, peer: PeerId) -> None:
        """Shut it out, for twice as long as before if it is not long since then."""
        now, seconds = self._clock.monotonic(), SHUT_OUT_SECONDS_FIRST
        before = self._shut_out.get(peer)
        if before is not None and now < before.until + SHUT_OUT_SECONDS_MAX:
            seconds = min(2 * before.seconds, SHUT_OUT_SECONDS_MAX)
        self._shut_out[peer] = _ShutOut(now + seconds, seconds)
        self._shut_out.move_to_end(peer)
        if len(self._shut_out) > SHUT_OUT_PEERS_MAX:
            self._shut_out.popitem(last=False)


def _rate(allowance: Allowance) -> Rate:
    return Rate(allowance.requests_per_second, float(allowance.burst))
