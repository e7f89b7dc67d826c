"""What a presence keeps over a restart: who was there, who has been how good to us, what cards did.

Knows when each is written; must not know what is made of it, or how anybody is dialled.
"""

import asyncio
import logging
from dataclasses import dataclass
from random import Random

from coordinator.answer import Completed
from coordinator.directory import Directory
from node.swarms.company import Company
from node.swarms.conduct import ConductBook
from node.swarms.outcome_book import OutcomeBook
from node.swarms.remembered import PeerMemory
from protocols.errors import DslmError
from protocols.ids import PeerId
from protocols.ports import Clock

SAVE_SECONDS_FIRST, SAVE_SECONDS_MAX = 2.0, 20.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Books:
    """What is kept, each in a file of its own. Addresses only where `has_addresses`."""

    memory: PeerMemory
    conduct: ConductBook
    outcomes: OutcomeBook
    has_addresses: bool


class Keeper:
    """`run` it for as long as the presence lives, and `save` once more at the end."""

    def __init__(
        self, books: Books, company: Company, directory: Directory, clock: Clock, rng: Random
    ) -> None:
        self._books = books
        self._company = company
        self._directory = directory
        self._clock = clock
        self._rng = rng

    async def run(self) -> None:
        """See who is there and keep all news, first soon, then every 20 s."""
        pause = SAVE_SECONDS_FIRST
        while True:
            await asyncio.sleep(pause * self._rng.uniform(0.5, 1.0))
            pause = min(2 * pause, SAVE_SECONDS_MAX)
            await self._company.refresh()
            self.save()

    def save(self) -> None:
        """Write down what is new. What cannot be written now is tried again the next time."""
        books = self._books
        try:
            if books.has_addresses:
                self._note_addresses()
                books.memory.save()
            books.conduct.save()
            books.outcomes.save()
        except (DslmError, OSError) as error:  # a full disk, say
            _log.warning("what peers did cannot be kept: %s", error)

    def credit(self, completed: Completed, me: PeerId) -> None:
        """An answer came to its end: remember who made how much of it for us."""
        for share in completed.shares:
            if share.peer != me:
                self._books.conduct.served(share.peer, share.tokens)

    def _note_addresses(self) -> None:
        now = self._clock.now()
        for peer in self._company.peers():
            node = self._directory.node(peer, now)
            if node is not None:
                self._books.memory.note(peer, node.addresses)
