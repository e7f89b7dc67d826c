"""What came of asking each card's specialist at its peer, and how far the card is trusted for it.

Knows outcomes that this peer saw itself, as decaying counts; must not know what a card says or how
it is asked. Pure: time (monotonic seconds) and randomness are arguments. Told to nobody, but kept
over a restart: see `Outcomes.dump`.

A card's trust is a draw from Beta(1 + good, bad) (Thompson, 1933) against what an honest card
reaches, and 1 while nothing bad is known of it. So a card that failed is tried again now and then,
less often the more it failed, and a good record makes up for a bad day.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from coordinator.inspection import Inspector
from protocols.codec import decode_header
from protocols.errors import (
    Busy,
    DslmError,
    NotAdmitted,
    NotHere,
    ProtocolError,
    TooLong,
    TransportDown,
    Unsupported,
)
from protocols.ids import PeerId, SpecialistId
from protocols.ports import Clock
from protocols.records import CapabilityCard

HALF_LIFE_SECONDS = 3_600.0
"""In which an outcome loses half of its weight: peers get better, and are given another chance."""
EXPECTED = 0.8
"""The share of good outcomes from which on a card is trusted like any other."""
CARDS_MAX = 8_192
"""Cards of which outcomes are kept; the one that was reported on longest ago is forgotten."""
NEWCOMER_TRUST_MIN = 0.5
"""However many newcomers failed: one that lies near enough is tried where nobody better is."""
_NEWCOMER_GOOD = 4.0
"""Good outcomes of newcomers that are taken for granted."""
_COUNT_MAX = 1e6
_FORGOTTEN = 0.25
"""With less weight than this left, a card is a newcomer again."""

Trust = Callable[[CapabilityCard], float]
"""From 0 (never ask) to 1 (like any other)."""


class Outcome(StrEnum):
    """How asking a specialist at a peer went.

    The coordinator reports `COMPLETED`, `REFUSED` and `DIED`. Whoever judges the evidence of an
    answer that was completed reports `GOOD` or `WEAK` besides.
    """

    COMPLETED = "completed"
    GOOD = "good"
    WEAK = "weak"
    REFUSED = "refused"
    DIED = "died"


_WEIGHTS: Mapping[Outcome, tuple[float, float]] = {
    Outcome.COMPLETED: (0.5, 0.0),
    Outcome.GOOD: (0.5, 0.0),
    Outcome.WEAK: (-0.5, 1.0),
    Outcome.REFUSED: (0.0, 1.0),
    Outcome.DIED: (0.0, 1.0),
}
"""What an outcome adds to the good and the bad count. `WEAK` takes back what `COMPLETED` gave."""


@dataclass(slots=True)
class _Counts:
    good: float = 0.0
    bad: float = 0.0
    at: float = 0.0

    def add(self, outcome: Outcome, now: float) -> None:
        good, bad = _WEIGHTS[outcome]
        self.fade(now)
        self.good = max(0.0, self.good + good)
        self.bad += bad

    def fade(self, now: float) -> None:
        share = 0.5 ** (max(0.0, now - self.at) / HALF_LIFE_SECONDS)
        self.good, self.bad, self.at = self.good * share, self.bad * share, max(now, self.at)


_Count = Annotated[float, Meta(ge=0, le=_COUNT_MAX)]
_Name = Annotated[str, Meta(max_length=128)]


class _Row(Struct, frozen=True, array_like=True):
    """A card's counts when they were saved."""

    specialist: _Name
    peer: _Name
    good: _Count
    bad: _Count


class _Saved(Struct, frozen=True):
    """`saved_at` is in Unix seconds. Cards in the order of their last reports."""

    version: Literal[1]
    saved_at: Annotated[float, Meta(ge=0, le=1e11)]
    newcomers: tuple[_Count, _Count]
    cards: list[_Row]


class Outcomes:
    """One for all requests of a coordinator."""

    def __init__(self, cards_max: int = CARDS_MAX) -> None:
        self._cards_max = cards_max
        self.reports = 0
        """Since it was made: with more of them than before, there is something to save."""
        self._cards: dict[tuple[str, str], _Counts] = {}
        self._newcomers = _Counts()
        """First outcomes of all cards together: whether strangers can be trusted just now."""

    def __len__(self) -> int:
        return len(self._cards)

    def report(self, specialist: SpecialistId, peer: PeerId, outcome: Outcome, now: float) -> None:
        """`specialist` was asked at `peer`, with this outcome."""
        self.reports += 1
        counts = self._cards.pop((specialist, peer), None) or _Counts(at=now)
        counts.fade(now)
        if counts.good + counts.bad < 1.0:
            self._newcomers.add(outcome, now)
        counts.add(outcome, now)
        self._cards[specialist, peer] = counts
        if len(self._cards) > self._cards_max:
            del self._cards[next(iter(self._cards))]

    def trust(self, card: CapabilityCard, now: float, rng: Random) -> float:
        """How far to trust `card`, in (0, 1]; 1 is nothing against it."""
        return self.at(now, rng)(card)

    def at(self, now: float, rng: Random) -> Trust:
        """`trust` for one decision: newcomers are drawn for once, so that all are treated alike."""
        newcomer = self._newcomer_trust(now, rng)

        def trust(card: CapabilityCard) -> float:
            counts = self._cards.get((card.specialist, card.peer))
            if counts is None:
                return newcomer
            counts.fade(now)
            if counts.good + counts.bad < _FORGOTTEN:
                return newcomer
            return _draw(1.0 + counts.good, counts.bad, rng)

        return trust

    def expected(self, card: CapabilityCard, now: float) -> float:
        """The mean that is drawn around, without chance: to compare replicas within a request."""
        counts = self._cards.get((card.specialist, card.peer))
        if counts is None:
            return 1.0
        counts.fade(now)
        return (1.0 + counts.good) / (1.0 + counts.good + counts.bad)

    def dump(self, now: float, time: float) -> bytes:
        """All that is not forgotten, as bytes; `time` is what a calendar says of `now`."""
        for counts in (self._newcomers, *self._cards.values()):
            counts.fade(now)
        rows = [
            _Row(specialist, peer, min(counts.good, _COUNT_MAX), min(counts.bad, _COUNT_MAX))
            for (specialist, peer), counts in self._cards.items()
            if counts.good + counts.bad >= _FORGOTTEN
        ]
        pool = self._newcomers
        newcomers = (min(pool.good, _COUNT_MAX), min(pool.bad, _COUNT_MAX))
        return msgspec.msgpack.encode(_Saved(1, time, newcomers, rows))

    @classmethod
    def load(cls, data: bytes, now: float, time: float, cards_max: int = CARDS_MAX) -> "Outcomes":
        """What `dump` made, faded by the time since; with a clock that went back, by none.

        `ProtocolError` if it is damaged, or of a version that is not known here.
        """
        saved = decode_header(_decoder, data)
        away = max(0.0, time - saved.saved_at)
        outcomes = cls(cards_max)
        outcomes._newcomers = _Counts(*saved.newcomers, now - away)
        for row in saved.cards[-cards_max:]:
            outcomes._cards[row.specialist, row.peer] = _Counts(row.good, row.bad, now - away)
        return outcomes

    def _newcomer_trust(self, now: float, rng: Random) -> float:
        pool = self._newcomers
        pool.fade(now)
        return max(NEWCOMER_TRUST_MIN, _draw(_NEWCOMER_GOOD + pool.good, pool.bad, rng))


def outcome_of(error: DslmError) -> Outcome | None:
    """What a failed attempt says about the card; None if it says nothing."""
    match error:
        case Busy() | TooLong() | Unsupported() | TransportDown():
            return None
        case NotHere() | NotAdmitted() | ProtocolError():
            return Outcome.REFUSED
        case _:
            return Outcome.DIED


_decoder = msgspec.msgpack.Decoder(_Saved)


def _draw(good: float, bad: float, rng: Random) -> float:
    if bad < 0.01:
        return 1.0
    return min(1.0, rng.betavariate(good, bad) / EXPECTED)


@dataclass(frozen=True, slots=True)
class Reputation:
    """Everything that speaks for or against cards, together."""

    outcomes: Outcomes
    inspector: Inspector
    clock: Clock
    rng: Random

    def trust(self) -> Trust:
        """For one decision now: `Outcomes.at`, and little for cards that were found to lie."""
        drawn = self.outcomes.at(self.clock.monotonic(), self.rng)
        return lambda card: drawn(card) * self.inspector.honesty(card)

    def report(self, specialist: SpecialistId, peer: PeerId, outcome: Outcome) -> None:
        """As `Outcomes.report`, now."""
        self.outcomes.report(specialist, peer, outcome, self.clock.monotonic())

    def expected(self, card: CapabilityCard) -> float:
        """As `Outcomes.expected`, now, and little for cards that were found to lie."""
        now = self.clock.monotonic()
        return self.outcomes.expected(card, now) * self.inspector.honesty(card)

    def failed(self, card: CapabilityCard, error: DslmError) -> None:
        """Asking by `card` failed with `error`."""
        outcome = outcome_of(error)
        if outcome is not None:
            self.report(SpecialistId(card.specialist), PeerId(card.peer), outcome)
