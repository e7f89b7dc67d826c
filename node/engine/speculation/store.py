"""Drafts from answers that the same client got before, bounded in memory.

Knows finished texts by salt. Texts of different salts never meet: how fast an answer comes would
otherwise tell one client what another one was told.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from node.engine.speculation.drafts import Draft, Text
from node.engine.speculation.suffixes import SuffixIndex, Trail, kind_of, prior_of

_ORDERS = (4,)
_SHELF_TOKENS = 8 * 1024
_STORE_TOKENS = 64 * 1024
_CONTEXT = 32
"""So much of what preceded an answer is kept with it, to find the answer's first tokens by."""
_BORDER = -1
"""Between two texts: no token."""


@dataclass(slots=True)
class _Shelf:
    """The texts of one salt, one after the other; `edition` changes when old ones go."""

    most: int
    edition: int
    tokens: list[int] = field(default_factory=lambda: [_BORDER])
    index: SuffixIndex = field(default_factory=lambda: SuffixIndex(_ORDERS))

    def add(self, tokens: Sequence[int]) -> None:
        self.tokens += tokens[-(self.most // 2) :]
        self.tokens.append(_BORDER)
        if len(self.tokens) > self.most:
            # Half goes at a time, so that the new index costs a constant for each token.
            self.tokens = [_BORDER, *self.tokens[-(self.most // 2) :]]
            self.index = SuffixIndex(_ORDERS)
            self.edition += 1
        self.index.cover(self.tokens)

    def onwards(self, place: int, most: int) -> list[int]:
        found = self.tokens[place : place + most]
        return found[: found.index(_BORDER)] if _BORDER in found else found


@dataclass(slots=True)
class _Reader:
    edition: int
    trail: Trail = field(default_factory=Trail)


class SuffixStore:
    """Implements `Drafter`. Keeps the latest `store_tokens`, and `shelf_tokens` of one salt.

    Some 250 bytes for each of them.
    """

    def __init__(
        self, shelf_tokens: int = _SHELF_TOKENS, store_tokens: int = _STORE_TOKENS
    ) -> None:
        self._shelf_tokens = shelf_tokens
        self._store_tokens = store_tokens
        self._shelves: OrderedDict[str, _Shelf] = OrderedDict()
        self._readers: dict[int, _Reader] = {}
        self._editions = 0
        self._size = 0

    def __repr__(self) -> str:
        return f"<SuffixStore salts={len(self._shelves)} tokens={self.size}>"

    @property
    def size(self) -> int:
        """Tokens kept."""
        return self._size

    @property
    def is_free(self) -> bool:
        """Microseconds."""
        return True

    def propose(self, text: Text, most: int) -> Draft | None:
        """See `Drafter`."""
        shelf = self._shelves.get(text.salt)
        if shelf is None:
            return None
        reader = self._readers.get(text.ticket)
        if reader is None or reader.edition != shelf.edition:
            reader = self._readers[text.ticket] = _Reader(shelf.edition)
        trail = reader.trail
        trail.follow(text.tokens, shelf.tokens, shelf.index)
        onwards = shelf.onwards(trail.place, most) if trail.place else []
        if not onwards:
            return None
        return Draft(onwards, f"store {kind_of(trail.matched)}", prior_of(trail.matched))

    def leave(self, text: Text) -> None:
        """Keep the answer, whatever ended it."""
        self._readers.pop(text.ticket, None)
        answer = len(text.request.prompt)
        if len(text.tokens) == answer:
            return
        shelf = self._shelves.get(text.salt)
        if shelf is None:
            self._editions += 1
            shelf = self._shelves[text.salt] = _Shelf(self._shelf_tokens, self._editions << 32)
            self._size += len(shelf.tokens)
        before = len(shelf.tokens)
        shelf.add(text.tokens[max(0, answer - _CONTEXT) :])
        self._size += len(shelf.tokens) - before
        self._shelves.move_to_end(text.salt)
        while self._size > self._store_tokens and len(self._shelves) > 1:
            _, oldest = self._shelves.popitem(last=False)
            self._size -= len(oldest.tokens)
