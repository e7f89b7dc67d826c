"""Who is let in: a bounded number of requests in a model, the rest are told when to come again.

Knows counts and durations, decides without waiting; must not know what a request is.
"""

from dataclasses import dataclass, field

from protocols.errors import Busy

_SMOOTHING = 0.2
_RETRY_SECONDS_MAX = 60.0


@dataclass(slots=True)
class Admission:
    """Counts the requests of one model. `slots` run at once, `waiting_slots` more may queue."""

    slots: int
    waiting_slots: int
    draining: bool = False
    _inside: int = field(default=0, init=False)
    _seconds_per_request: float = field(default=2.0, init=False)

    @property
    def running(self) -> int:
        """Requests that hold a slot."""
        return min(self._inside, self.slots)

    @property
    def waiting(self) -> int:
        """Requests that queue."""
        return max(0, self._inside - self.slots)

    def enter(self) -> int:
        """Take a place; how many requests queue before it. `Busy` when full or draining."""
        if self.draining:
            raise Busy("this peer is shutting down", retry_after=1.0)
        if self._inside >= self.slots + self.waiting_slots:
            raise Busy("this peer is full", retry_after=self.retry_after())
        self._inside += 1
        return self.waiting

    def leave(self, seconds: float) -> None:
        """Give the place back after `seconds` of work."""
        self._inside -= 1
        self._seconds_per_request += _SMOOTHING * (seconds - self._seconds_per_request)

    def retry_after(self) -> float:
        """Seconds after which a place is likely to be free."""
        rounds = (self.waiting + 1) / self.slots
        return min(_RETRY_SECONDS_MAX, max(0.5, rounds * self._seconds_per_request))
