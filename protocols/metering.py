"""How much a peer may have in a while: leaky buckets, one for each peer and one for all together.

Knows rates, amounts and a time that it is told; must not know what is measured, nor who the peers
are. What a bucket holds is what was taken and has not leaked out yet, so that a peer whose
allowance changes keeps its past, and forgetting an empty bucket loses nothing.
"""

from collections import OrderedDict
from dataclasses import dataclass

from protocols.ids import PeerId

RESERVED_SHARE = 0.25
"""The part of the total that is kept for those who took little of their own share lately."""


@dataclass(frozen=True, slots=True)
class Rate:
    """`per_second` in the long run, `burst` at once."""

    per_second: float
    burst: float


class TokenBucket:
    """What was taken lately. `now` is monotonic, in seconds; it may stand still, not go back."""

    __slots__ = ("_at", "_taken")

    def __init__(self, now: float) -> None:
        self._taken = 0.0
        self._at = now

    def __repr__(self) -> str:
        return f"<TokenBucket taken={self._taken:.1f} at={self._at:.1f}>"

    def taken(self, rate: Rate, now: float) -> float:
        """What counts against the burst now."""
        if now > self._at:
            self._taken = max(0.0, self._taken - (now - self._at) * rate.per_second)
            self._at = now
        return self._taken

    def room(self, rate: Rate, now: float) -> float:
        """What can be taken now; below 0 after `add`."""
        return rate.burst - self.taken(rate, now)

    def take(self, rate: Rate, now: float, amount: float = 1.0) -> bool:
        """Take `amount` if it is there; whether it was."""
        if amount > self.room(rate, now):
            return False
        self._taken += amount
        return True

    def add(self, amount: float) -> None:
        """Count what was had already, allowed or not."""
        self._taken += amount


class Meter:
    """A bucket for each peer within one for all.

    Peers that used up their own share leave `RESERVED_SHARE` of the total to the others, and what
    the total refuses counts against a peer's own share all the same; so a few greedy ones do not
    lock out the rest. The peers remembered are at most `peers_max`; the one longest idle is
    forgotten first, which gives nothing away as long as `peers_max` is more than the total lets
    through while one bucket leaks out.
    """

    def __init__(self, total: Rate, peers_max: int = 4_096) -> None:
        self._total_rate = total
        self._total = TokenBucket(float("-inf"))
        self._peers: OrderedDict[PeerId, TokenBucket] = OrderedDict()
        self._peers_max = peers_max

    def __repr__(self) -> str:
        return f"<Meter {len(self._peers)} peers, {self._total}>"

    def __len__(self) -> int:
        return len(self._peers)

    def take(self, peer: PeerId, rate: Rate, now: float, amount: float = 1.0) -> bool:
        """Take `amount` for `peer`, which may have `rate`; whether both allowed it."""
        bucket = self._peers.get(peer) or TokenBucket(now)
        taken = bucket.taken(rate, now)
        if amount > rate.burst - taken:
            return False
        is_allowed = amount <= self._total_room(taken, rate, now)
        self._add(peer, bucket, amount)
        if is_allowed:
            self._total.add(amount)
        return is_allowed

    def count(self, peer: PeerId, rate: Rate, now: float, amount: float) -> bool:
        """Count what `peer` has had already; whether that was within its share and the total."""
        bucket = self._peers.get(peer) or TokenBucket(now)
        taken = bucket.taken(rate, now)
        is_allowed = amount <= min(rate.burst - taken, self._total_room(taken, rate, now))
        self._add(peer, bucket, amount)
        self._total.add(amount)
        return is_allowed

    def _total_room(self, taken: float, rate: Rate, now: float) -> float:
        """What one who has `taken` so much of its own share may still take of the total."""
        drained = min(1.0, taken / rate.burst) if rate.burst else 1.0
        reserved = RESERVED_SHARE * self._total_rate.burst * drained
        return self._total.room(self._total_rate, now) - reserved

    def _add(self, peer: PeerId, bucket: TokenBucket, amount: float) -> None:
        bucket.add(amount)
        self._peers[peer] = bucket
        self._peers.move_to_end(peer)
        if len(self._peers) > self._peers_max:
            self._peers.popitem(last=False)
