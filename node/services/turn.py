"""Waiting for one's turn in a model, and giving the place back with the time it was held.

Knows one place of an `Admission` and a clock; must not know what is done in a turn.
"""

import asyncio

from node.services.admission import Admission, PlaceState
from protocols.errors import Busy
from protocols.ports import Clock


class Turn:
    """A place taken for `peer` (empty: this node itself); `Busy` if there is none."""

    def __init__(self, admission: Admission, peer: str, clock: Clock) -> None:
        self._admission = admission
        self._clock = clock
        self.peer = peer
        """Who has it; empty for this node itself."""
        self._place = admission.enter(peer)
        self.began = clock.monotonic()
        """Since when it has been its turn, in monotonic seconds."""
        self._is_over = False

    @property
    def is_waiting(self) -> bool:
        """Whether it is not yet this request's turn."""
        return self._place.state is PlaceState.WAITING

    @property
    def ahead(self) -> int:
        """How many queue before it."""
        return self._admission.ahead(self._place)

    async def wait(self, seconds: float) -> None:
        """Until the turn comes, but at most `seconds`; `Busy` if the place went to another peer."""
        try:
            async with asyncio.timeout(seconds):
                await self._place.wait_settled()
        except TimeoutError:
            if self.is_waiting:
                return
        if self._place.state is PlaceState.DROPPED:
            raise Busy("this peer is full, and others ask less", self._admission.retry_after())
        self.began = self._clock.monotonic()

    def end(self) -> None:
        """Give the place back, however far it came; harmless when called again."""
        if self._is_over:
            return
        self._is_over = True
        self._admission.leave(self._place, self._clock.monotonic() - self.began)
