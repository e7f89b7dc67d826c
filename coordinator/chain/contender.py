"""One specialist's try at one step: what it has said, how sure it was, how it ended.

Knows the events of one answer; must not know who else tries, or who is believed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from coordinator.answer import (
    AnswerEvent,
    Completed,
    Delta,
    Evidence,
    OtherAnswer,
    Resumed,
    Routed,
    Share,
)
from coordinator.chain.actions import Key
from coordinator.chain.evidence import Gauge
from protocols.errors import DslmError
from protocols.ids import PeerId, SpecialistId
from protocols.messages.ask import Likelihood

Comparison = Literal["none", "asked", "done"]


@dataclass(slots=True, eq=False)
class Contender:
    """`shown_top` is how many likely tokens the client asked for, None if it did not ask."""

    key: Key
    specialist: SpecialistId
    shown_top: int | None
    floor: Callable[[SpecialistId, PeerId | None], float]
    """The bound for its evidence, by who answers."""
    peer: PeerId | None = None
    tokens: int = 0
    first_at: float | None = None
    """When its first token came; monotonic seconds."""
    completed: Completed | None = None
    error: DslmError | None = None
    is_dropped: bool = False
    is_judged: bool = False
    """Whether it was said what its evidence says of it."""
    gauge: Gauge = field(default_factory=Gauge)
    comparison: Comparison = "none"
    """Whether the base was asked about its words."""
    ids: list[int] = field(default_factory=list)
    _texts: list[str] = field(default_factory=list)
    _shares: dict[PeerId, int] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be expected."""
        return self.completed is not None or self.error is not None or self.is_dropped

    @property
    def text(self) -> str:
        """All that it has said."""
        return "".join(self._texts)

    @property
    def shares(self) -> tuple[Share, ...]:
        """Which peer gave how much."""
        if self.completed is not None:
            return self.completed.shares
        return tuple(Share(peer, tokens) for peer, tokens in self._shares.items())

    @property
    def evidence(self) -> Evidence | None:
        """How sure it has been so far."""
        return self.gauge.evidence(self.floor(self.specialist, self.peer))

    @property
    def is_cut(self) -> bool:
        """Whether its answer is not whole."""
        return self.completed is None or self.completed.reason == "length"

    def rank(self, *, is_gain_known: bool = False) -> tuple[bool, bool, float]:
        """The greater, the rather it is believed: with words, whole, sure of them.

        If the base was asked about the words of all, what they gain on it counts.
        """
        found = self.evidence
        sure = float("-inf")
        if found is not None:
            sure = found.gain if is_gain_known and found.gain is not None else found.logprob
        return (self.tokens > 0, self.error is None, sure)

    def take(self, event: AnswerEvent, now: float) -> Sequence[AnswerEvent]:
        """What the client is told of `event`, should this contender be believed."""
        match event:
            case Routed():
                self.peer = event.peer
            case Delta():
                return (self._take_delta(event, now),)
            case Resumed():
                self.peer = event.to_peer
                return (event,)
            case Completed():
                self.completed = event
                if event.text and self.peer is not None:
                    self._texts.append(event.text)
                    return (Delta(self.peer, self.tokens, (), event.text, step=self.key.step),)
            case _:
                pass
        return ()

    def as_other(self, why: str) -> OtherAnswer:
        """What the client is told of a try that was not kept."""
        return OtherAnswer(self.specialist, why, self.tokens, self.evidence)

    def _take_delta(self, delta: Delta, now: float) -> Delta:
        self.gauge.add(delta)
        self.tokens += len(delta.ids)
        self.ids += delta.ids
        self._texts.append(delta.text)
        self._shares[delta.peer] = self._shares.get(delta.peer, 0) + len(delta.ids)
        if self.first_at is None:
            self.first_at = now
        return replace(delta, step=self.key.step, logprobs=self._shown(delta.logprobs))

    def _shown(self, found: tuple[Likelihood, ...]) -> tuple[Likelihood, ...]:
        if self.shown_top is None:
            return ()
        return tuple(
            Likelihood(one.logprob, one.spelling, one.top[: self.shown_top]) for one in found
        )


Way = Literal["alone", "doubted", "together"]
"""`alone`: whoever begins is believed; `doubted`: another may have a try when the beginning looks
bad; `together`: all try, and the best is believed."""
