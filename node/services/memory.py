"""The memory of this node's models: what may be passed on, and counts of what was.

Knows models' pages, notes and links; must not know streams. Shared by all swarms that the node is
in; who may be told what is each swarm's business.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from node.services.memory_links import MemoryLinks
from node.services.memory_notes import MemoryNotes, Note
from node.services.memory_ports import PageMemory
from protocols.ids import SpecialistId
from protocols.memory import common_pages, page_names
from protocols.messages.memory import Encoding, Want
from protocols.ports import Clock

TRANSFERS_MAX = 4
"""Sent at once, to all peers together: answers under way wait for each a little."""


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """`encoding` is what is asked for. The last `window` tokens of what could come from elsewhere
    are computed all the same."""

    encoding: Encoding = "i8"
    window: int = 0


@dataclass(slots=True)
class MemoryCounts:
    """Since start."""

    pages_sent: int = 0
    bytes_sent: int = 0
    pages_fetched: int = 0
    bytes_fetched: int = 0
    transfers_failed: int = 0


class NodeMemory:
    """The parts, for those who serve and those who fetch."""

    def __init__(
        self,
        models: Mapping[SpecialistId, PageMemory],
        clock: Clock,
        settings: MemorySettings | None = None,
    ) -> None:
        self.models = dict(models)
        self.clock = clock
        self.settings = settings or MemorySettings()
        self.notes = MemoryNotes()
        self.links = MemoryLinks()
        self.counts = MemoryCounts()
        self.sending = 0

    def __repr__(self) -> str:
        return f"<NodeMemory {self.notes!r} {self.links!r}>"

    def look_up(self, want: Want) -> tuple[Note, int] | None:
        """The note that has most of what is wanted, and how many pages of it; None if none does."""
        best: tuple[Note, int] | None = None
        for note in self.notes.find(want.ticket, self.clock.monotonic()):
            model = self.models.get(note.specialist)
            if model is None or model.layout != want.layout:
                continue
            tokens = note.pages.tokens
            most = min(len(want.names), len(tokens) // want.layout.page_tokens)
            names = page_names(want.layout, want.ticket, tokens, most)
            count = common_pages(names, want.names)
            if count > want.first and (best is None or count > best[1]):
                best = note, count
        return best
