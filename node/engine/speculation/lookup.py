"""Drafts from the text itself: what followed the last tokens when they occurred before.

Knows one text at a time; must not know other texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from node.engine.speculation.drafts import Draft, Text
from node.engine.speculation.suffixes import SuffixIndex, Trail, kind_of, prior_of

_ORDERS = (4, 2)


@dataclass(slots=True)
class _Own:
    index: SuffixIndex = field(default_factory=lambda: SuffixIndex(_ORDERS))
    trail: Trail = field(default_factory=Trail)


class PromptLookup:
    """Implements `Drafter`. Some 300 bytes for each token of each text inside."""

    def __init__(self) -> None:
        self._texts: dict[int, _Own] = {}

    def __repr__(self) -> str:
        return f"<PromptLookup texts={len(self._texts)}>"

    @property
    def is_free(self) -> bool:
        """Microseconds."""
        return True

    def propose(self, text: Text, most: int) -> Draft | None:
        """See `Drafter`. A draft that reaches the text's end goes on as if it came round again."""
        tokens = text.tokens
        own = self._texts.setdefault(text.ticket, _Own())
        own.index.cover(tokens)
        own.trail.follow(tokens, tokens, own.index)
        place, matched = own.trail.place, own.trail.matched
        if not place:
            return None
        return Draft(_onwards(tokens, place, most), f"own {kind_of(matched)}", prior_of(matched))

    def leave(self, text: Text) -> None:
        """See `Drafter`."""
        self._texts.pop(text.ticket, None)


def _onwards(tokens: Sequence[int], place: int, most: int) -> list[int]:
    found = list(tokens[place : place + most])
    period = len(found)
    while len(found) < most:
        found.append(found[-period])
    return found
