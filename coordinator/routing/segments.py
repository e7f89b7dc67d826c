"""Finds the places where a prompt may be cut: ends of sentences, items and blocks, and capitals.

Knows text only; must not know vectors or cards. Pure; time grows in proportion to the text.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

LEAST_CHARACTERS = 12
"""No place lies nearer to the prompt's ends: what is cut off would say nothing."""
CUTS_MAX = 32
"""More would only cost time: of the loose places, then of the firm ones, some are left out."""

_BLOCK = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_FIRM = re.compile(
    r"(?:[.!?\u2026]+[\"'\u201d\u2019)\]]*(?=\s)"  # a sentence's end, with what closes it
    r"|[\u3002\uff01\uff1f]"  # the same in Chinese and Japanese, where no blank follows
    r"|\n\s*\n"
    r"|\n(?=\s*(?:[-*\u2022]|\(?\d{1,2}[.)])\s))"  # the next item of a list
)
_LOOSE = re.compile(
    # A sentence may begin without the one before having been ended.
    r"(?<=[a-z0-9_)\]:;,\u2019'\"])\s+(?=[\"'\u201c(]?[A-Z0-9])|[:;_](?=\s)|\n"
)
_ABBREVIATION = re.compile(
    r"(?m:\b(?:[A-Za-z]|Mr|Mrs|Ms|Dr|Prof|St|vs|etc|cf|Inc|Ltd|Co|Corp|No|Nos|Art|Sec|Fig|Eq|approx"
    r"|e\.g|i\.e|U\.S|a\.m|p\.m)|^\s*\(?\d{1,2})\.$"
)
_ASKS = re.compile(
    r"\W*(?:Which|What|Who|Whose|When|Where|Why|How|Find|Calculate|Compute|Let|Suppose|Assume|Given"
    r"|If|Explain|Describe|Write|Consider|According|Determine|Evaluate|Solve|Statement|Is|Are|Does"
    r"|Do|Can|Should|Must)\b"
)
_OPENS = re.compile(r"\W*(?:The|A|An|In|For|This|On|At|As|To|During|Under|One|All|Some)\b")
_CUE = re.compile(
    r"\W*(?:and\s+)?(?:then|next|also|after\s+(?:that|this)|afterwards|finally|using\s+(?:that|this)"
    r"|separately|now|based\s+on|in\s+addition)\b",
    re.IGNORECASE,
)
MARKS = 10
"""Numbers in `Cut.marks`."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A place to cut: characters from `at` on are behind it. `marks` say what stands around it.

    Each is 0 or 1: a question mark before it, a full stop, a colon or a gap; no sign that a
    sentence ends; a new line; behind it a word that asks, that opens a sentence, that leads over; a
    small letter; and both no end and a word that asks.
    """

    at: int
    is_firm: bool
    marks: tuple[float, ...]


def cuts(text: str) -> tuple[Cut, ...]:
    """Places to cut `text`, rising, `CUTS_MAX` at most. No fenced block of code is cut."""
    blocks = [block.span() for block in _BLOCK.finditer(text)]
    found: dict[int, bool] = {}
    for pattern, is_firm in ((_LOOSE, False), (_FIRM, True)):
        for match in pattern.finditer(text):
            if is_firm and _ABBREVIATION.search(text[max(0, match.end() - 12) : match.end()]):
                continue
            found[_next_word(text, match.end())] = is_firm
    found |= {_next_word(text, edge): True for block in blocks for edge in block}
    first, last = _next_word(text, 0) + LEAST_CHARACTERS, len(text.rstrip()) - LEAST_CHARACTERS
    places = [
        (at, is_firm)
        for at, is_firm in sorted(found.items())
        if first <= at <= last and not any(begin < at < end for begin, end in blocks)
    ]
    return tuple(Cut(at, is_firm, _marks(text, at, is_firm)) for at, is_firm in _few(places))


def spans(text: str, found: Sequence[Cut]) -> list[tuple[int, int]]:
    """What lies between neighbouring cuts and the ends: together all of `text`."""
    return list(itertools.pairwise([0, *(cut.at for cut in found), len(text)]))


def _next_word(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _few(places: list[tuple[int, bool]]) -> list[tuple[int, bool]]:
    """Firm places first, evenly thinned out where there are too many."""
    if len(places) <= CUTS_MAX:
        return places
    firm = _thinned([one for one in places if one[1]], CUTS_MAX)
    loose = _thinned([one for one in places if not one[1]], CUTS_MAX - len(firm))
    return sorted(firm + loose)


def _thinned(places: list[tuple[int, bool]], count: int) -> list[tuple[int, bool]]:
    if len(places) <= count:
        return places
    return [places[at * len(places) // count] for at in range(count)]


def _marks(text: str, at: int, is_firm: bool) -> tuple[float, ...]:
    before = text[:at].rstrip()
    last, asks = before[-1:], bool(_ASKS.match(text, at))
    found = (
        last == "?",
        last in ".!",
        last in ":_",
        not is_firm,
        "\n" in text[len(before) : at],
        asks,
        bool(_OPENS.match(text, at)),
        bool(_CUE.match(text, at)),
        not text[at].isupper(),
        asks and not is_firm,
    )
    return tuple(map(float, found))
