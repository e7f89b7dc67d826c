"""Which replica of a specialist to ask next, within one request.

Knows cards, measurements and what happened in this request; must not know what was delivered.
Pure: time (monotonic seconds) is an argument, cards come from a function that only looks.
"""

import random
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from coordinator.measure import PeerMeasurements
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
from protocols.ids import PeerId
from protocols.records import CapabilityCard

PAUSE_FIRST = 0.5
PAUSE_FACTOR = 2.5
FAILURES_PER_PEER = 4
"""After so many failures in one request a peer is not asked again: pauses of .5, 1.25 and 3.1 s
in between outlast the restart of a network daemon."""


TRUSTED_SHARE = 0.5
"""Replicas that are trusted less than this share of the most trusted one are asked after others."""


class Opinion(Protocol):
    """What is thought of cards, and what becomes of asking by them."""

    def expected(self, card: CapabilityCard) -> float:
        """How far `card` is trusted, 0 to 1."""
        ...

    def failed(self, card: CapabilityCard, error: DslmError) -> None:
        """Asking by `card` failed."""
        ...


@dataclass(frozen=True, slots=True)
class NoOpinion:
    """All cards are alike."""

    def expected(self, card: CapabilityCard) -> float:  # noqa: ARG002
        """1."""
        return 1.0

    def failed(self, card: CapabilityCard, error: DslmError) -> None:
        """Forgotten."""


@dataclass(frozen=True, slots=True)
class Later:
    """Nobody now; somebody may be asked at `at`."""

    at: float


@dataclass(slots=True)
class _Past:
    failures: int = 0
    rests_until: float = 0.0
    is_excluded: bool = False


class Candidates:
    """`view` gives the living cards of the specialist, as the directory knows them now."""

    def __init__(
        self,
        view: Callable[[], Sequence[CapabilityCard]],
        me: PeerId,
        measurements: PeerMeasurements,
        rng: random.Random,
        opinion: Opinion = NoOpinion(),
    ) -> None:
        self._view = view
        self._opinion = opinion
        self._me = me
        self._measurements = measurements
        self._rng = rng
        self._past: dict[PeerId, _Past] = {}
        self._too_long: dict[PeerId, int] = {}
        self._context_needed = 0

    def next(
        self, now: float, like: CapabilityCard | None, but: Collection[PeerId] = ()
    ) -> CapabilityCard | Later | None:
        """Whom to ask: a card, or when to look again, or None when nobody is left.

        With `like`, only peers with its weights: an answer that has begun goes on with no others.
        Those that hold them in its precision come first, since others may choose other tokens; but
        others before one that is busy or has just failed. Without, those weights are preferred that
        most peers have, so that somebody can carry on.
        """
        eligible = [card for card in self._view() if self._may(card, like, but)]
        ready = [card for card in eligible if self._rests_until(card) <= now]
        alike = [card for card in ready if like is None or _weights(card) == _weights(like)]
        if ready:
            return self._best(alike or ready, now)
        if eligible:
            return Later(min(self._rests_until(card) for card in eligible))
        return None

    def has_untried(self, like: CapabilityCard | None, but: Collection[PeerId]) -> bool:
        """Whether somebody else than `but` may be asked who has not failed in this request."""
        return any(
            self._may(card, like, but) and PeerId(card.peer) not in self._past
            for card in self._view()
        )

    def failed(self, peer: PeerId, error: DslmError, now: float) -> None:
        """Remember for this request how asking `peer` went, and blame it if it is to blame."""
        past = self._past.setdefault(peer, _Past())
        if not past.failures:  # however often it is tried again, it is one request that it failed
            for card in self._view():
                if card.peer == peer:
                    self._opinion.failed(card, error)
        match error:
            case Busy():
                past.rests_until = now + max(error.retry_after, 0.1)
                self._measurements.busy(peer, past.rests_until)
                return
            case TooLong():
                past.is_excluded = True
                self._believe_too_long(peer, error)
                return
            case NotHere() | Unsupported() | NotAdmitted():
                past.is_excluded = True
                return
            case ProtocolError():
                past.is_excluded = True
        past.failures += 1
        past.is_excluded |= past.failures >= FAILURES_PER_PEER
        past.rests_until = now + PAUSE_FIRST * PAUSE_FACTOR ** (past.failures - 1)
        if not isinstance(error, TransportDown):  # that is our own daemon's doing
            self._measurements.failed(peer, now, str(error))

    def _believe_too_long(self, peer: PeerId, error: TooLong) -> None:
        """Spare the peers with less context, once two agree on it, or we found it ourselves.

        One peer's word must not keep a request from all others.
        """
        self._too_long[peer] = error.requested
        if peer == self._me:
            self._context_needed = max(self._context_needed, error.requested)
        elif len(self._too_long) > 1:
            second_largest = sorted(self._too_long.values())[-2]
            self._context_needed = max(self._context_needed, second_largest)

    def _best(self, ready: list[CapabilityCard], now: float) -> CapabilityCard:
        trust = [self._opinion.expected(card) for card in ready]
        least = TRUSTED_SHARE * max(trust)
        by_peer = {
            PeerId(card.peer): card
            for card, trusted in zip(ready, trust, strict=True)
            if trusted >= least
        }
        ranked = [by_peer[peer] for peer in self._measurements.rank(list(by_peer), now, self._rng)]
        if ranked[0].peer == self._me:
            return ranked[0]
        counts = Counter(
            _weights(card) for card in ranked if not self._is_failing(card, now)
        ) or Counter(_weights(card) for card in ranked)
        common = min(counts, key=lambda weights: (-counts[weights], weights))
        return next(card for card in ranked if _weights(card) == common)

    def _may(
        self, card: CapabilityCard, like: CapabilityCard | None, but: Collection[PeerId]
    ) -> bool:
        past = self._past.get(PeerId(card.peer))
        return (
            card.peer not in but
            and not (past and past.is_excluded)
            and (like is None or card.model_digest == like.model_digest)
            and card.context_length >= self._context_needed
        )

    def _rests_until(self, card: CapabilityCard) -> float:
        past = self._past.get(PeerId(card.peer))
        return past.rests_until if past else 0.0

    def _is_failing(self, card: CapabilityCard, now: float) -> bool:
        return self._measurements.snapshot(PeerId(card.peer), now).failing_for > 0


def _weights(card: CapabilityCard) -> tuple[str, str]:
    """What decides the next token: one file rounded to bf16 is another model than in fp32."""
    return card.model_digest, card.precision
