"""Where the end of one text occurs in another, or earlier in itself, at constant cost for a token.

Knows lists of tokens; must not know requests. The longest match is approached as in prompt lookup
decoding (Saxena 2023), but by an index that grows with the text instead of a scan for each token,
and at the most recent place instead of the first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

MATCHED_MAX = 16
"""Matches are told apart up to this length."""
_MANY = 32
"""From so many new tokens on it is quicker to take them all at once."""


class SuffixIndex:
    """For each run of `orders` tokens (longest first) where it was last followed by something."""

    def __init__(self, orders: Sequence[int]) -> None:
        self._followed: list[tuple[int, dict[tuple[int, ...], int]]]
        self._followed = [(order, {}) for order in orders]
        self._covered = 0

    def cover(self, tokens: Sequence[int]) -> None:
        """Take in what was added to `tokens`, always the same list, since the last call."""
        for order, followed in self._followed:
            start = max(self._covered, order)
            if len(tokens) - start > _MANY:
                columns = (
                    tokens[start - back : len(tokens) - back] for back in range(order, 0, -1)
                )
                places = range(start, len(tokens))
                followed.update(zip(zip(*columns, strict=True), places, strict=True))
                continue
            for place in range(start, len(tokens)):
                followed[tuple(tokens[place - order : place])] = place
        self._covered = len(tokens)

    def find(self, tokens: Sequence[int]) -> int:
        """The position that follows the longest known run that `tokens` end with, or 0."""
        for order, followed in self._followed:
            place = followed.get(tuple(tokens[-order:]))
            if place is not None:
                return place
        return 0


@dataclass(slots=True)
class Trail:
    """One text's way through another (or itself): its next token may be the other's at `place`.

    0 is nowhere. The last `matched` tokens agree, counted up to `MATCHED_MAX`; `seen` is how much
    of the text was looked at.
    """

    place: int = 0
    matched: int = 0
    seen: int = 0

    def follow(self, tokens: Sequence[int], source: Sequence[int], index: SuffixIndex) -> None:
        """Go on with what is new in `tokens`; where it differs, ask `index`, that of `source`."""
        if self.place:
            self._walk(tokens, source)
        self.seen = len(tokens)
        if not self.place:
            self.place = index.find(tokens)
            self.matched = _agreeing(tokens, source, self.place)

    def _walk(self, tokens: Sequence[int], source: Sequence[int]) -> None:
        for position in range(self.seen, len(tokens)):
            if self.place >= len(source) or source[self.place] != tokens[position]:
                self.place = 0
                return
            self.place += 1
            self.matched = min(self.matched + 1, MATCHED_MAX)
        if self.place >= len(source):
            self.place = 0


def _agreeing(tokens: Sequence[int], source: Sequence[int], place: int) -> int:
    most = min(place, len(tokens), MATCHED_MAX)
    for back in range(1, most + 1):
        if tokens[-back] != source[place - back]:
            return back - 1
    return most


def kind_of(matched: int) -> str:
    """Matches of 1, 2 to 3, 4 to 7, 8 to 15 and at least 16 tokens fare differently."""
    return str(1 << (matched.bit_length() - 1)) if matched else "0"


def prior_of(matched: int) -> float:
    """How likely the next token agrees after so many did; in plain prose it is about as much."""
    return matched / (matched + 4)
