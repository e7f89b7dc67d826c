"""This node's papers in one swarm, in memory and on disk: the book of members and our credential.

Knows what is kept and when it is saved; who sends and asks for papers is the services' business.
"""

from node.swarms.folder import SwarmFolder
from protocols.ids import PeerId
from protocols.membership.book import MemberBook
from protocols.membership.ledger import Ledger, load_ledger
from protocols.ports import Clock


class Papers:
    """Read from the folder when made; every change is saved before it counts."""

    def __init__(self, folder: SwarmFolder, clock: Clock) -> None:
        self.folder = folder
        self.me: PeerId = folder.identity.peer_id
        self._clock = clock
        self.book = MemberBook(folder.charter)
        for data in folder.delegations():
            self.book.offer_delegation(data, clock.now())
        if revocations := folder.revocations():
            self.book.offer_revocations(revocations)
        self._credential = folder.credential()
        ledger = folder.ledger()
        self.ledger = load_ledger(ledger) if ledger else Ledger()

    def credential(self) -> bytes:
        """What we show; empty if we have none."""
        return self._credential

    def take_credential(self, data: bytes) -> None:
        """Show `data` from now on, after a restart as well. `NotAdmitted` if it is not ours."""
        self.book.believe(self.me, data, self._clock.now())
        self.folder.save_credential(data)
        self._credential = data
        self.save_delegations()

    def save_delegations(self) -> None:
        """Keep the delegations that the book knows now."""
        self.folder.save_delegations(self.book.delegations())

    def save_revocations(self) -> None:
        """Keep the list that is in force now."""
        self.folder.save_revocations(self.book.revocations_bytes)

    def documents(self) -> tuple[bytes, ...]:
        """What the owner signed: the list in force, if there is one, then the delegations."""
        revocations = self.book.revocations_bytes
        return (*((revocations,) if revocations else ()), *self.book.delegations())
