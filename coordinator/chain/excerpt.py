"""Makes an answer fit the room that the next specialist has for it, without changing what counts.

Knows text only. Whole sentences are left out; code, quotations and numbers are never cut in two.
"""

import itertools
import re
from bisect import bisect_left, insort
from collections.abc import Sequence

MARK = "[...] "
"""Stands where something was left out."""
LAST_SENTENCES = 2
"""An answer's end says what it comes to."""

_EXACT = re.compile(
    r"```.*?(?:```|\Z)"  # code, also if its end is missing
    r"|`[^`\n]+`"
    r"|\"[^\"\n]{1,400}\""
    r"|“[^”\n]{1,400}”"
    r"|[$€£]?\d(?:[\d.,: /*+=^-]*\d)?%?",
    re.DOTALL,
)
_END = re.compile(r"(?<=[.!?:;])[\"')\]]*\s+|\n+")


def excerpt(text: str, characters_max: int) -> str:
    """`text` if it fits, else the sentences of it that matter most, in their order.

    First the last sentences, then those with code, quotations or numbers (later ones first, since
    results come late), then the beginning. Never longer than `characters_max`.
    """
    if len(text) <= characters_max:
        return text
    exact = _exact_spans(text)
    units = _units(text, exact)
    room, kept = characters_max, list[int]()
    for at in _by_weight(units, exact):
        start, stop = units[at]
        cost = stop - start + len(MARK)
        if cost <= room:
            room -= cost
            insort(kept, at)
    if not kept:
        return _tail(text, exact, characters_max)
    return _joined(text, units, kept)


def _exact_spans(text: str) -> list[tuple[int, int]]:
    return [found.span() for found in _EXACT.finditer(text)]


def _units(text: str, exact: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sentences and lines with the white space after them; no exact span is in two of them."""
    ends = [found.end() for found in _END.finditer(text)]
    cuts = [end for end in ends if not _is_inside(end, exact)]
    edges = [0, *(cut for cut in cuts if 0 < cut < len(text)), len(text)]
    return [(start, stop) for start, stop in itertools.pairwise(edges) if start < stop]


def _is_inside(at: int, spans: Sequence[tuple[int, int]]) -> bool:
    """Whether a cut at `at` would go through one of `spans`, which are in order and apart."""
    before = bisect_left(spans, (at, 0)) - 1
    return before >= 0 and spans[before][0] < at < spans[before][1]


def _by_weight(units: Sequence[tuple[int, int]], exact: Sequence[tuple[int, int]]) -> list[int]:
    """Indices of `units`, the most important first."""
    last = range(len(units) - 1, max(-1, len(units) - 1 - LAST_SENTENCES), -1)
    starts = [start for start, _ in exact]
    holds = [
        at
        for at, (start, stop) in enumerate(units)
        if bisect_left(starts, start) < bisect_left(starts, stop)
    ]
    return list(dict.fromkeys([*last, *reversed(holds), *range(len(units))]))


def _joined(text: str, units: Sequence[tuple[int, int]], kept: Sequence[int]) -> str:
    pieces, previous = [], -1
    for at in kept:
        start, stop = units[at]
        pieces.append(text[start:stop] if at == previous + 1 else MARK + text[start:stop])
        previous = at
    return "".join(pieces)


def _tail(text: str, exact: Sequence[tuple[int, int]], characters_max: int) -> str:
    """The end of one long sentence, from between two words on; empty if nothing fits."""
    for found in re.compile(r"\s+").finditer(text, max(0, len(text) - characters_max)):
        at = found.end()
        if not _is_inside(at, exact) and len(text) - at + len(MARK) <= characters_max:
            return MARK + text[at:] if at < len(text) else ""
    return ""
