"""Scores a prompt against the cards: encodes it once, and asks the head about whole and parts.

Knows the encoder port, the head and cards; must not know peers or plans' rules. What can be kept
for the next prompt (cards as arrays, vectors of descriptions) is kept, within bounds.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coordinator.answer import Score
from coordinator.ports import PromptEncoder
from coordinator.routing.card_set import CardSet, Floats, card_set
from coordinator.routing.chains import CHAIN_MIN, Part, divide, owners, parts_of
from coordinator.routing.head import (
    Head,
    Nearness,
    PreparedCards,
    card_logits,
    fit_chance,
    fit_features,
    nearness,
    prepare,
    shares,
)
from coordinator.routing.reading import Reading, read
from coordinator.routing.verdict import Scored
from protocols.errors import Unsupported
from protocols.ids import SpecialistId
from protocols.records import CapabilityCard

SHORTLIST = 32
"""Cards that are compared in full; the others lie too far from the prompt and all its parts."""
CANDIDATES = 64
"""Specialists of which the shortlist is taken; who else is far was seen by a sketch."""
SKETCH_DIRECTIONS = 64
FRESH_MAX = 3
"""Descriptions that are encoded for one prompt; until then a card's prototypes speak for it."""
DESCRIPTIONS_MAX = 4_096
PARTS_MAX = 4
"""Into which a prompt is divided; each is encoded by itself."""
_SENTENCE = re.compile(r"(?<=[.;])\s+")
_SENTENCES_MAX = 8
_TRUST_MIN = 1e-3


@dataclass(frozen=True, slots=True)
class _Known:
    """The cards of the last prompt, ready to be compared. `groups` are rows of one specialist."""

    cards: tuple[CapabilityCard, ...]
    prepared: PreparedCards
    names: tuple[SpecialistId, ...]
    groups: tuple[NDArray[np.intp], ...]
    first: NDArray[np.intp]
    sketch: "_Sketch | None" = None
    """Where there are so many that not all are compared."""

    def near_to(self, projected: Floats) -> "_Known":
        """With the `CANDIDATES` specialists alone that may lie nearest to any of the vectors."""
        if self.sketch is None:
            return self
        best = self.sketch.nearest(projected)
        of_names = best[self.first]
        for at in self.sketch.several:
            of_names[at] = best[self.groups[at]].max()
        chosen = np.sort(np.argpartition(-of_names, CANDIDATES)[:CANDIDATES])
        rows = [self.groups[at] for at in chosen]
        ends = np.cumsum([len(one) for one in rows])
        groups = tuple(np.arange(end - len(one), end) for one, end in zip(rows, ends, strict=True))
        prepared = self.prepared.only(np.concatenate(rows).tolist())
        first = np.array([one[0] for one in groups], dtype=np.intp)
        return _Known(self.cards, prepared, tuple(self.names[at] for at in chosen), groups, first)


@dataclass(frozen=True, slots=True)
class _Sketch:
    """All prototypes in the few directions in which they differ most: tells who may be near."""

    basis: Floats
    columns: Floats
    starts: NDArray[np.intp]
    several: tuple[int, ...]
    """Which specialists have more than one card."""

    def nearest(self, projected: Floats) -> Floats:
        """`[cards]`: about the best cosine of any prototype with any of the vectors."""
        about = ((projected @ self.basis) @ self.columns).max(axis=0)
        found: Floats = np.maximum.reduceat(about, self.starts)
        return found


def _sketch(prepared: PreparedCards, groups: Sequence[NDArray[np.intp]]) -> _Sketch:
    rows = prepared.rows
    several = tuple(at for at, one in enumerate(groups) if len(one) > 1)
    _, directions = np.linalg.eigh(rows.T @ rows)
    basis = np.ascontiguousarray(directions[:, -SKETCH_DIRECTIONS:], dtype=np.float32)
    columns = np.ascontiguousarray((rows @ basis).T)  # so that the product takes half the time
    return _Sketch(basis, columns, prepared.cards.starts, several)


@dataclass(frozen=True, slots=True)
class _Compared:
    """The specialists that are compared in full for a prompt, and the doubts about each."""

    known: _Known
    short: NDArray[np.intp]
    doubts: Floats


class Scorer:
    """Scores for one encoder and its head. Not for use by two tasks at once without care: calls may
    interleave, and each then keeps what it made.
    """

    def __init__(self, encoder: PromptEncoder, head: Head) -> None:
        """The head must be one for this encoder."""
        if head.encoder != encoder.digest:
            raise ValueError("the head was trained for another encoder")
        self._encoder = encoder
        self._head = head
        self._known: _Known | None = None
        self._described: dict[str, Floats] = {}

    async def score(
        self,
        text: str,
        cards: Sequence[CapabilityCard],
        trust: Callable[[CapabilityCard], float] = lambda _: 1.0,
    ) -> Scored:
        """What the head says about `text`, which is not blank; no scores if no card compares.

        A specialist's odds are multiplied by the `trust` in its most trusted replica.
        """
        known = self._prepared(cards)
        if not len(known.prepared.cards):
            return Scored((), 0.0)
        first = await read(self._encoder, text)
        vectors = _sides(first)
        known = known.near_to(self._head.project(vectors))
        near = _per_specialist(nearness(self._head, vectors, known.prepared), known)
        short = _shortlist(near)
        near = near.only(short)
        described = await self._descriptions(vectors, known, short, near)
        doubts = _doubts(known, short, trust)
        logits = card_logits(self._head, near, described) + doubts
        features = fit_features(self._head, vectors[:1], near.of_first(), described[:1])
        fit = float(fit_chance(self._head, features)[0])
        names = tuple(known.names[at] for at in short)
        chance = shares(logits[0])
        ranked = sorted(range(len(names)), key=lambda at: (-chance[at], names[at]))
        scores = tuple(Score(names[at], float(chance[at])) for at in ranked)
        if not first.cuts or len(names) < 2:
            return Scored(scores, fit)
        compared = _Compared(known, short, doubts)
        chain, parts = await self._parts(first, logits, compared)
        return Scored(scores, fit, chain, parts, names)

    async def _parts(
        self, first: Reading, logits: Floats, compared: "_Compared"
    ) -> tuple[float, tuple[Part, ...]]:
        """The chance that a prompt has several owners, and its parts if that is likely.

        It is cut in two where that fits best, and each side, encoded by itself, again. A part's
        owner is told from its own encoding: in that of the whole it has seen the others.
        """
        start, chain = 0, 0.0
        todo = [(first, logits)]
        done: list[tuple[int, Floats]] = []
        while todo:
            read_now, said = todo.pop(0)
            if read_now.cuts and len(todo) + len(done) + 1 < PARTS_MAX:
                middle = 1 + len(read_now.cuts)
                found = divide(self._head, read_now, said[0], (said[1:middle], said[middle:]))
                chain = found.chance if read_now is first else chain
                if found.chance >= CHAIN_MIN:
                    at = read_now.cuts[found.cut].at
                    halves = (read_now.text[:at], read_now.text[at:])
                    todo = [await self._read_part(half, compared) for half in halves] + todo
                    continue
            done.append((start, said[0]))
            start += len(read_now.text)
        if len(done) < 2:
            return chain, ()
        owned = owners(np.stack([whole for _, whole in done]))
        return chain, parts_of(first.text, [start for start, _ in done], owned)

    async def _read_part(self, text: str, compared: "_Compared") -> tuple[Reading, Floats]:
        """`text` encoded by itself, and the logits of its vector and of its cuts' sides."""
        found = await read(self._encoder, text)
        vectors, known, short = _sides(found), compared.known, compared.short
        near = _per_specialist(nearness(self._head, vectors, known.prepared), known).only(short)
        described = await self._descriptions(vectors, known, short, near)
        return found, card_logits(self._head, near, described) + compared.doubts

    async def learn(self, cards: Sequence[CapabilityCard]) -> None:
        """Encode the descriptions of `cards` now, so that prompts need not wait for it."""
        for card in cards:
            if card.encoder == self._encoder.digest and card.prototypes:
                await self._describe(card.description)

    def _prepared(self, cards: Sequence[CapabilityCard]) -> _Known:
        known = self._known
        given = tuple(cards)
        if known is None or len(known.cards) != len(given) or not _same(known.cards, given):
            dimensions = len(self._head.mean)
            known = _known(given, card_set(given, self._encoder.digest, dimensions), self._head)
            self._known = known
        return known

    async def _descriptions(
        self, vectors: Floats, known: _Known, short: NDArray[np.intp], near: Nearness
    ) -> Floats:
        """`[vectors, short]`: cosines with the descriptions, not a number where not known yet."""
        found = np.full((len(vectors), len(short)), np.nan, np.float32)
        fresh = 0
        for at in np.argsort(-near.prototypes.max(axis=0), kind="stable").tolist():
            text = known.prepared.cards.cards[known.first[short[at]]].description
            if not text.strip():
                continue
            if text not in self._described:
                fresh += 1
                if fresh > FRESH_MAX:
                    continue
            found[:, at] = (vectors @ (await self._describe(text)).T).max(axis=1)
        return found

    async def _describe(self, text: str) -> Floats:
        if text not in self._described:
            sentences = description_sentences(text)
            if not sentences:
                return np.zeros((1, len(self._head.mean)), np.float32)
            try:
                vectors = await self._encoder.encode(sentences)
            except Unsupported:  # a stranger's words: the card counts by its prototypes alone
                vectors = np.zeros((1, len(self._head.mean)), np.float32)
            if len(self._described) >= DESCRIPTIONS_MAX:
                del self._described[next(iter(self._described))]
            self._described[text] = vectors
        return self._described[text]


def _doubts(
    known: _Known, short: NDArray[np.intp], trust: Callable[[CapabilityCard], float]
) -> Floats:
    """`[short]`: the logarithm of the trust in each specialist, 0 where it is full."""
    cards = known.prepared.cards.cards
    best = [max(trust(cards[row]) for row in known.groups[at]) for at in short]
    return np.log(np.maximum(np.array(best, np.float32), np.float32(_TRUST_MIN)))


def description_sentences(description: str) -> list[str]:
    """The sentences of a card's description that are compared with prompts, at most eight."""
    return [one for one in _SENTENCE.split(description.strip()) if one][:_SENTENCES_MAX]


def _same(before: Sequence[CapabilityCard], now: Sequence[CapabilityCard]) -> bool:
    return all(one is two for one, two in zip(before, now, strict=True))


def _known(given: tuple[CapabilityCard, ...], cards: CardSet, head: Head) -> _Known:
    rows: dict[SpecialistId, list[int]] = {}
    for at, card in enumerate(cards.cards):
        rows.setdefault(SpecialistId(card.specialist), []).append(at)
    groups = tuple(np.array(found) for found in rows.values())
    first = np.array([found[0] for found in groups], dtype=np.intp)
    prepared = prepare(head, cards)
    sketch = _sketch(prepared, groups) if len(groups) > 2 * CANDIDATES else None
    return _Known(given, prepared, tuple(rows), groups, first, sketch)


def _per_specialist(near: Nearness, known: _Known) -> Nearness:
    """A specialist with several cards (replicas) counts with the lower median of theirs, so that
    one replica that lies about its prototypes does not draw all prompts.
    """
    prototypes, cosine = near.prototypes[:, known.first], near.cosine[:, known.first]
    for at, rows in enumerate(known.groups):
        if len(rows) > 1:
            middle = (len(rows) - 1) // 2
            prototypes[:, at] = np.sort(near.prototypes[:, rows], axis=1)[:, middle]
            cosine[:, at] = np.sort(near.cosine[:, rows], axis=1)[:, middle]
    return Nearness(prototypes, cosine, near.fullness[known.first])


def _shortlist(near: Nearness) -> NDArray[np.intp]:
    """The specialists that lie nearest to the whole prompt or to any part of it."""
    best = near.prototypes.max(axis=0)
    if len(best) <= SHORTLIST:
        return np.arange(len(best))
    return np.sort(np.argpartition(-best, SHORTLIST)[:SHORTLIST])


def _sides(found: Reading) -> Floats:
    """Its vector, then what is before each of its cuts, then what is behind each."""
    return np.concatenate([found.whole[None], found.before, found.behind])
