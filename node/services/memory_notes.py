"""Which prompts were read here under which ticket, so that their pages can be named.

Knows tokens, tickets and times; must not know pages, streams or who may be told.
"""

from array import array
from collections import OrderedDict
from dataclasses import dataclass

from node.services.memory_ports import PromptPages
from protocols.ids import SpecialistId

NOTE_SECONDS = 600.0
NOTES_MAX = 256
NOTES_PER_CLIENT_MAX = 64
TOKENS_MAX = 1_000_000
"""Of all notes together."""
NOTES_PER_TICKET_MAX = 8
READS_MAX = 16
"""How often the pages of one note are sent: a task has few steps."""


@dataclass(slots=True, eq=False)
class Note:
    """A prompt that `specialist` has read, or is reading."""

    specialist: SpecialistId
    pages: PromptPages
    until: float
    reads_left: int = READS_MAX


class MemoryNotes:
    """At most 256 for ten minutes; the oldest go first, and each client has a share of 64."""

    def __init__(self) -> None:
        self._notes: OrderedDict[int, Note] = OrderedDict()
        self._by_ticket: dict[str, list[int]] = {}
        self._tokens = 0
        self._next = 0

    def __len__(self) -> int:
        return len(self._notes)

    def __repr__(self) -> str:
        return f"<MemoryNotes {len(self)} of {self._tokens} tokens>"

    def add(self, specialist: SpecialistId, pages: PromptPages, now: float) -> None:
        """The prompt of `pages` is read under the ticket `pages.chain`."""
        self._expire(now)
        kept = PromptPages(array("I", pages.tokens), pages.client, pages.tenant, pages.chain)
        if len(kept.tokens) > TOKENS_MAX:
            return
        own = [number for number, one in self._notes.items() if one.pages.client == kept.client]
        for number in own[: max(0, len(own) - NOTES_PER_CLIENT_MAX + 1)]:
            self._drop(number)
        same = self._by_ticket.setdefault(kept.chain, [])
        for number in same[: max(0, len(same) - NOTES_PER_TICKET_MAX + 1)]:
            self._drop(number)
        self._notes[self._next] = Note(specialist, kept, now + NOTE_SECONDS)
        self._by_ticket.setdefault(kept.chain, []).append(self._next)
        self._tokens += len(kept.tokens)
        self._next += 1
        while len(self._notes) > NOTES_MAX or self._tokens > TOKENS_MAX:
            self._drop(next(iter(self._notes)))

    def find(self, ticket: str, now: float) -> tuple[Note, ...]:
        """What was read under `ticket` and may be sent still."""
        self._expire(now)
        found = (self._notes[number] for number in self._by_ticket.get(ticket, ()))
        return tuple(note for note in found if note.reads_left > 0)

    def _expire(self, now: float) -> None:
        while self._notes and next(iter(self._notes.values())).until <= now:
            self._drop(next(iter(self._notes)))

    def _drop(self, number: int) -> None:
        note = self._notes.pop(number)
        self._tokens -= len(note.pages.tokens)
        same = self._by_ticket[note.pages.chain]
        same.remove(number)
        if not same:
            del self._by_ticket[note.pages.chain]
