"""A prompt as the encoder sees it, with what lies before and behind each place to cut it.

Knows the encoder port and pooled vectors; must not know cards or scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordinator.ports import EncodedPrompt, PromptEncoder
from coordinator.routing.card_set import Floats
from coordinator.routing.segments import Cut, cuts, spans

NEIGHBOURHOOD = 160
"""Characters on each side of a cut that are compared with each other, and more by a sentence."""


@dataclass(frozen=True, slots=True)
class Reading:
    """`text`, its vector `whole` [dimensions], and where it may be cut.

    `before` and `behind` [cuts, dimensions] are all that is on either side of each cut, `last` and
    `next` only what is near. Rows have unit length.
    """

    text: str
    whole: Floats
    cuts: tuple[Cut, ...]
    before: Floats
    behind: Floats
    last: Floats
    next: Floats


async def read(encoder: PromptEncoder, text: str) -> Reading:
    """`text`, which is not blank, in one pass of the encoder, or two if it is very long."""
    found = cuts(text)
    return reading(text, found, await encoded_spans(encoder, text, found))


async def encoded_spans(encoder: PromptEncoder, text: str, found: Sequence[Cut]) -> EncodedPrompt:
    """`text` and its spans; those behind what the encoder can see at once are read by themselves.

    Spans that even then are not seen are rows of zeros.
    """
    wanted = spans(text, found) if found else []
    encoded = await encoder.encode_prompt(text, wanted)
    unseen = np.flatnonzero(~encoded.parts.any(axis=1))
    if not len(unseen) or unseen[0] == 0:
        return encoded
    rest = [wanted[at] for at in range(int(unseen[0]), len(wanted))]
    start = rest[0][0]
    moved = [(begin - start, end - start) for begin, end in rest]
    later = await encoder.encode_prompt(text[start:], moved)
    return EncodedPrompt(encoded.whole, np.concatenate([encoded.parts[: unseen[0]], later.parts]))


def reading(text: str, found: Sequence[Cut], encoded: EncodedPrompt) -> Reading:
    """What `encoded` [cuts + 1 spans] says on both sides of each of the cuts `found`.

    Sides are means of their spans, weighted by length. A cut with a side that was not seen is
    none.
    """
    edges = np.array([0, *(cut.at for cut in found), len(text)], dtype=np.intp)
    if not len(found):
        nothing = np.zeros((0, encoded.whole.size), np.float32)
        return Reading(text, encoded.whole, (), nothing, nothing, nothing, nothing)
    sums = np.cumsum(encoded.parts * np.diff(edges)[:, None], axis=0, dtype=np.float32)
    sums = np.concatenate([np.zeros_like(sums[:1]), sums])
    at = np.arange(1, len(edges) - 1)
    first = np.minimum(np.searchsorted(edges, edges[at] - NEIGHBOURHOOD), at - 1)
    after = np.searchsorted(edges, edges[at] + NEIGHBOURHOOD, side="right") - 1
    final = np.maximum(after, at + 1)
    sides = (sums[at], sums[-1] - sums[at], sums[at] - sums[first], sums[final] - sums[at])
    seen = np.all([np.abs(one).max(axis=1) > 1e-3 for one in sides], axis=0)
    before, behind, last, following = (_unit(one[seen]) for one in sides)
    kept = tuple(cut for cut, is_seen in zip(found, seen, strict=True) if is_seen)
    return Reading(text, encoded.whole, kept, before, behind, last, following)


def _unit(rows: NDArray[np.float32]) -> Floats:
    unit: Floats = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    return unit
