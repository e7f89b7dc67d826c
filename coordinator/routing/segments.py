"""Cuts a prompt into the parts that may have different owners: sentences, list items, code.

Knows text only; must not know vectors or cards. Pure; time grows in proportion to the text.
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

CRUMB_CHARACTERS = 25
"""What is shorter than this says too little by itself and joins a neighbour."""
SEGMENTS_MAX = 12
"""More would only cost time: the shortest neighbours are joined until so many are left."""

_BLOCK = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_END = re.compile(
    r"(?:[.!?\u2026]+[\"'\u201d\u2019)\]]*(?=\s)"  # a sentence's end, with what closes it
    r"|[\u3002\uff01\uff1f]"  # the same in Chinese and Japanese, where no blank follows
    r"|\n\s*\n"
    # A sentence that begins without the one before having been ended.
    r"|(?<=[a-z0-9_)\]:])\s+(?=(?:Which|What|Who|Whose|When|Where|Why|How|Find|Calculate|Compute|Let"
    r"|Suppose|Assume|Given|If|Explain|Describe|Write|Consider|According|The|A|An|In|For|This)\s)"
    r"|\n(?=\s*(?:[-*\u2022]|\(?\d{1,2}[.)])\s))"  # the next item of a list
)
_ABBREVIATION = re.compile(
    r"(?m:\b(?:[A-Za-z]|Mr|Mrs|Ms|Dr|Prof|St|vs|etc|cf|Inc|Ltd|Co|Corp|No|Nos|Art|Sec|Fig|Eq|approx"
    r"|e\.g|i\.e|U\.S|a\.m|p\.m)|^\s*\(?\d{1,2})\.$"
)


@dataclass(frozen=True, slots=True)
class Segment:
    """Characters `start` to `end` of a prompt."""

    start: int
    end: int

    def of(self, text: str) -> str:
        """What it says, without blanks around it."""
        return text[self.start : self.end].strip()


def segments(text: str) -> tuple[Segment, ...]:
    """Neighbouring segments that together cover `text`; one or more unless `text` is blank.

    No fenced block of code is cut. None but a lone one is a crumb, and there are `SEGMENTS_MAX` at
    most.
    """
    if not text.strip():
        return ()
    cuts = [0, *_cuts(text), len(text)]
    found = [Segment(start, end) for start, end in itertools.pairwise(cuts) if start < end]
    return tuple(_join(text, found))


def _cuts(text: str) -> Iterator[int]:
    """Where sentences, items and blocks end, rising."""
    begin = 0
    for block in _BLOCK.finditer(text):
        yield from _prose_cuts(text, begin, block.start())
        if block.start():
            yield block.start()
        yield block.end()
        begin = block.end()
    yield from _prose_cuts(text, begin, len(text))


def _prose_cuts(text: str, start: int, end: int) -> Iterator[int]:
    for found in _END.finditer(text, start, end):
        before = text[max(start, found.end() - 12) : found.end()]
        if not _ABBREVIATION.search(before):
            yield found.end()


def _join(text: str, found: list[Segment]) -> list[Segment]:
    """Join crumbs with the shorter neighbour, then the shortest ones until they are few."""
    lengths = [len(one.of(text)) for one in found]
    while len(found) > 1:
        shortest = min(range(len(found)), key=lengths.__getitem__)
        if lengths[shortest] >= CRUMB_CHARACTERS and len(found) <= SEGMENTS_MAX:
            break
        at = _left_of_pair(lengths, shortest)
        found[at : at + 2] = [Segment(found[at].start, found[at + 1].end)]
        lengths[at : at + 2] = [len(found[at].of(text))]
    return found


def _left_of_pair(lengths: list[int], shortest: int) -> int:
    """The first of the pair that is to be joined: `shortest` and a neighbour.

    A crumb mostly leads over to what follows ("Then:", "Hello!"), so that equal ones go right.
    """
    if shortest == 0:
        return 0
    if shortest == len(lengths) - 1:
        return shortest - 1
    return shortest if lengths[shortest + 1] <= lengths[shortest - 1] else shortest - 1
