"""Who is let in: a bounded number of requests in a model, the rest are told when to come again.

Knows counts, durations and whose turn it is, decides without waiting; must not know what a request
is. Peers, not requests, take turns (fair queueing with longest-queue drop, as in Demers, Keshav and
Shenker 1989 and Suter et al. 1998), so that nobody gains by asking more often than others.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto

from protocols.errors import Busy

_SMOOTHING = 0.2
_RETRY_SECONDS_MIN, _RETRY_SECONDS_MAX = 0.5, 60.0


class PlaceState(Enum):
    """How far a request has come."""

    WAITING = auto()
    RUNNING = auto()
    DROPPED = auto()
    """Its place in the queue went to a peer that had fewer."""


class Place:
    """One request's place in a model, made by `Admission.enter`."""

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.state = PlaceState.WAITING
        self._settled = asyncio.Event()

    def settle(self, state: PlaceState) -> None:
        """Waiting is over."""
        self.state = state
        self._settled.set()

    async def wait_settled(self) -> None:
        """Until it is this request's turn, or never will be."""
        await self._settled.wait()


class Admission:
    """The requests of one model. `slots` run at once, `waiting_slots` more may queue."""

    def __init__(self, slots: int, waiting_slots: int) -> None:
        self.slots = slots
        self.waiting_slots = waiting_slots
        self.draining = False
        self._running: Counter[str] = Counter()
        self._queues: dict[str, deque[Place]] = {}
        """By peer; the first in line had its turn longest ago."""
        self._seconds_per_request = 2.0

    @property
    def running(self) -> int:
        """Requests that hold a slot."""
        return self._running.total()

    @property
    def waiting(self) -> int:
        """Requests that queue."""
        return sum(map(len, self._queues.values()))

    def enter(self, peer: str = "") -> Place:
        """Take a place for `peer` (empty: this node's own request); `Busy` when there is none.

        When the queue is full, a peer that has fewer requests here gets the last place of the one
        that has most.
        """
        if self.draining:
            raise Busy("this peer is shutting down", retry_after=1.0)
        if self.running >= self.slots and self.waiting >= self.waiting_slots:
            self._drop_for(peer)
        place = Place(peer)
        self._queues.setdefault(peer, deque()).append(place)
        self._give_turns()
        return place

    def leave(self, place: Place, seconds: float) -> None:
        """Give the place back, however far it came, after `seconds` of work."""
        if place.state is PlaceState.RUNNING:
            self._running[place.peer] -= 1
            if not self._running[place.peer]:
                del self._running[place.peer]
            self._seconds_per_request += _SMOOTHING * (seconds - self._seconds_per_request)
        elif place.state is PlaceState.WAITING:
            self._take_out(place)
        self._give_turns()

    def ahead(self, place: Place) -> int:
        """How many of those that queue have their turn before `place`, if nobody else comes."""
        own = self._queues.get(place.peer, ())
        if place not in own:
            return 0
        rounds = list(own).index(place)
        peers = list(self._queues)
        before = peers.index(place.peer)
        others = (
            min(len(queue), rounds + (index < before))
            for index, (peer, queue) in enumerate(self._queues.items())
            if peer != place.peer
        )
        return rounds + sum(others)

    def retry_after(self) -> float:
        """Seconds after which a place is likely to be free."""
        rounds = (self.waiting + 1) / self.slots
        seconds = rounds * self._seconds_per_request
        return min(_RETRY_SECONDS_MAX, max(_RETRY_SECONDS_MIN, seconds))

    def _give_turns(self) -> None:
        """Fill the free slots: the peer with the fewest running goes first, then the next in line.

        Without the first rule, a peer with long answers would come to hold all slots.
        """
        while self._queues and self.running < self.slots:
            peer = min(self._queues, key=lambda peer: self._running[peer])
            queue = self._queues.pop(peer)
            place = queue.popleft()
            if queue:
                self._queues[peer] = queue  # At the end of the line.
            self._running[peer] += 1
            place.settle(PlaceState.RUNNING)

    def _drop_for(self, peer: str) -> None:
        def inside(one: str) -> int:
            return self._running[one] + len(self._queues.get(one, ()))

        greediest = max(self._queues, key=inside, default=peer)
        if inside(greediest) <= inside(peer) + 1:
            raise Busy("this peer is full", retry_after=self.retry_after())
        last = self._queues[greediest][-1]
        self._take_out(last)
        last.settle(PlaceState.DROPPED)

    def _take_out(self, place: Place) -> None:
        queue = self._queues[place.peer]
        queue.remove(place)
        if not queue:
            del self._queues[place.peer]


class Quotas:
    """How many answers each peer has at a time, over all models."""

    def __init__(self) -> None:
        self._inside: Counter[str] = Counter()

    @contextmanager
    def one(self, peer: str, most: int, retry_after: float) -> Iterator[None]:
        """Count the block as an answer of `peer`; `Busy` if it has `most` already."""
        if self._inside[peer] >= most:
            self._forget_if_out(peer)
            raise Busy(
                f"this peer makes {most} answers at a time for you; wait for them", retry_after
            )
        self._inside[peer] += 1
        try:
            yield
        finally:
            self._inside[peer] -= 1
            self._forget_if_out(peer)

    def __len__(self) -> int:
        return len(self._inside)

    def _forget_if_out(self, peer: str) -> None:
        if not self._inside[peer]:
            del self._inside[peer]
