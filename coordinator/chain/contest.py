"""One step of a chain: who tries it, who is believed, and what the client is told of it.

Knows the tries at this step; must not know other steps. Sans-I/O: events come in, actions go out,
and what the client is to be told collects in `outbox`.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from coordinator.answer import (
    AnswerEvent,
    AnswerRequest,
    Completed,
    Handed,
    MemoryUse,
    OtherAnswer,
    StepEnded,
    StepStarted,
    Waiting,
)
from coordinator.chain.actions import Action, Begin, Compare, Drop, Judge, Key
from coordinator.chain.contender import Contender, Way
from coordinator.dispatch.actions import Emit
from coordinator.opinion import Question
from protocols import limits
from protocols.errors import DslmError
from protocols.ids import PeerId, SpecialistId

HELD_TOKENS = 16
"""So many tokens of a try are judged before the first of them is shown, where another specialist
could be asked instead."""
RETRIES = 1


@dataclass(frozen=True, slots=True)
class Bout:
    """What a contest is about. `specialists` are asked in this order, or all at once."""

    index: int
    prompt: str
    specialists: tuple[SpecialistId, ...]
    way: Way
    shown_top: int | None
    request: Callable[[Key, SpecialistId, float], AnswerRequest]
    """The request for a try that begins now."""
    floor: Callable[[SpecialistId, PeerId | None], float]
    """The bound for the evidence of a specialist at a peer."""
    asks_base: bool = False
    """Whether the base is asked about the first words of a try that may be doubted."""


class Contest:
    """`begin` it once. When `is_over`, `StepEnded` is the last event in the outbox."""

    def __init__(self, bout: Bout) -> None:
        self._bout = bout
        self._tries: list[Contender] = []
        self._held: dict[int, list[AnswerEvent]] = {}
        self._requests: list[AnswerRequest] = []
        self._began = 0.0
        self.handed = Handed()
        """The memory that it was given; told with `StepStarted`."""
        self.speaker: Contender | None = None
        self.error: DslmError | None = None
        self.is_over = False
        self.outbox: deque[AnswerEvent] = deque()

    @property
    def specialist(self) -> SpecialistId:
        """Who speaks, or should have."""
        return self.speaker.specialist if self.speaker else self._bout.specialists[0]

    def begin(self, now: float) -> list[Action]:
        """The first things to do."""
        self._began = now
        count = len(self._bout.specialists) if self._bout.way == "together" else 1
        return [self._try(now) for _ in range(count)]

    def heard(self, attempt: int, event: AnswerEvent, now: float) -> list[Action]:
        """An event of try number `attempt`."""
        one = self._tries[attempt]
        if one.is_over or self.is_over:
            return []
        if isinstance(event, Waiting):
            return [] if self.speaker not in {None, one} else [Emit(event)]
        told = one.take(event, now)
        if one is self.speaker:
            self.outbox.extend(told)
        else:
            self._held[attempt].extend(told)
        actions = self._settle(now)
        return [*actions, *self._verdict_on(one, isinstance(event, Completed))]

    def compared(self, attempt: int, base: float | None, now: float) -> list[Action]:
        """The base finds what try number `attempt` said that likely; None if it could not say."""
        one = self._tries[attempt]
        one.comparison = "done"
        if base is not None:
            one.gauge.compare(base)
        if self.is_over or one.is_dropped:
            return []
        return [*self._settle(now), *self._verdict_on(one, one.completed is not None)]

    def failed(self, attempt: int, error: DslmError, now: float) -> list[Action]:
        """Try number `attempt` came to nothing, or to no more than it has said."""
        one = self._tries[attempt]
        if one.is_over or self.is_over:
            return []
        one.error = error
        return self._settle(now)

    def give_up(self, error: DslmError, now: float) -> None:
        """It cannot even begin."""
        self._began = now
        self._end(error, now)

    # ------------------------------------------------------------------------------------------

    def _settle(self, now: float) -> list[Action]:
        """Decide what can be decided."""
        actions: list[Action] = []
        if self.speaker is None:
            actions += self._choose(now)
        if self.speaker is not None and self.speaker.is_over:
            self._end(self.speaker.error, now)
        if self.is_over:  # whatever the base may still say comes too late
            actions += [found for one in self._tries if one.completed for found in _verdict(one)]
        return actions

    def _choose(self, now: float) -> list[Action]:
        match self._bout.way:
            case "alone":
                return self._choose_first(now)
            case "doubted":
                return self._choose_doubting(now)
            case "together":
                return self._choose_best(now) if all(one.is_over for one in self._tries) else []

    def _choose_first(self, now: float) -> list[Action]:
        (only,) = self._tries
        return self._choose_best(now) if only.is_over or only.peer is not None else []

    def _verdict_on(self, one: Contender, is_complete: bool) -> list[Action]:
        """When it is complete and all that will be known of it is known."""
        return _verdict(one) if is_complete and one.comparison != "asked" else []

    def _comparisons(self) -> list[Action]:
        """The base is asked about all that have said enough, while nobody is believed yet."""
        actions: list[Action] = []
        for one in self._tries:
            is_due = self._bout.asks_base and one.comparison == "none" and _has_said_enough(one)
            if not is_due or one.peer is None or not 0 < len(one.ids) == one.gauge.tokens:
                continue
            one.comparison = "asked"
            one.gauge.mark()
            request = self._requests[one.key.attempt]
            ids = tuple(one.ids[: limits.FORCED_TOKENS_MAX])
            actions.append(Compare(one.key, Question(one.specialist, one.peer, request, ids)))
        return actions

    def _choose_doubting(self, now: float) -> list[Action]:
        asked = self._comparisons()
        if asked:
            return asked
        if not all(_is_ready(one) for one in self._tries):
            first, *rest = self._tries
            if first.error is not None and any(one.tokens for one in rest):
                return self._choose_best(now)  # nobody is left to compare with
            return []
        if len(self._tries) <= RETRIES and len(self._tries) < len(self._bout.specialists):
            (first,) = self._tries
            found = first.evidence
            if first.error is not None or found is None or found.is_low:
                return [self._try(now)]
        return self._choose_best(now)

    def _choose_best(self, now: float) -> list[Action]:
        """Believe the best of those who have said something; none if nobody has."""
        found = [one.evidence for one in self._tries]
        is_gain_known = all(one is not None and one.gain is not None for one in found)
        best = max(self._tries, key=lambda one: one.rank(is_gain_known=is_gain_known))
        if best.peer is None or (best.error is not None and not best.tokens):
            self._end(best.error, now)
            return []
        self.speaker = best
        bout = self._bout
        self.outbox.append(
            StepStarted(bout.index, best.specialist, best.peer, bout.prompt, self.handed)
        )
        self.outbox.extend(self._held[best.key.attempt])
        actions: list[Action] = []
        for other in self._tries:
            if other is not best and not other.is_over:
                other.is_dropped = True
                actions += [*_verdict(other), Drop(other.key)]
        return actions

    def _try(self, now: float) -> Action:
        key = Key(self._bout.index, len(self._tries))
        specialist = self._bout.specialists[key.attempt]
        self._tries.append(Contender(key, specialist, self._bout.shown_top, self._bout.floor))
        self._held[key.attempt] = []
        self._requests.append(self._bout.request(key, specialist, now))
        return Begin(key, specialist, self._requests[-1])

    def _end(self, error: DslmError | None, now: float) -> None:
        self.is_over, self.error = True, error
        speaker = self.speaker
        done = speaker.completed if speaker else None
        first = speaker.first_at if speaker and speaker.first_at is not None else now
        self.outbox.append(
            StepEnded(
                index=self._bout.index,
                specialist=self.specialist,
                evidence=speaker.evidence if speaker else None,
                seconds=now - self._began,
                tokens=speaker.tokens if speaker else 0,
                error=_sentence(error) if error else "",
                first_token_seconds=first - self._began,
                prompt_tokens=done.prompt_tokens if done else 0,
                shares=speaker.shares if speaker else (),
                others=self._others(),
                memory=done.memory if done else MemoryUse(),
            )
        )

    def _others(self) -> tuple[OtherAnswer, ...]:
        return tuple(
            one.as_other(_why_not(one, self.speaker))
            for one in self._tries
            if one is not self.speaker
        )


def _is_ready(one: Contender) -> bool:
    """Whether it can be judged now, or never will be."""
    return one.error is not None or (_has_said_enough(one) and one.comparison != "asked")


def _has_said_enough(one: Contender) -> bool:
    return one.is_over or one.tokens >= HELD_TOKENS


def _verdict(one: Contender) -> list[Action]:
    """What its own evidence says of a try from which no more is wanted; once."""
    found = one.evidence
    if one.is_judged or one.peer is None or found is None:
        return []
    one.is_judged = True
    return [Judge(one.specialist, one.peer, found)]


def _why_not(one: Contender, speaker: Contender | None) -> str:
    if one.error is not None:
        return _sentence(one.error)
    if speaker is None:
        return "nothing came of it"
    if all(
        found is not None and found.gain is not None for found in (one.evidence, speaker.evidence)
    ):
        return f"{speaker.specialist} gained more on the base"
    return f"{speaker.specialist} was surer of its words"


def _sentence(error: DslmError) -> str:
    """The error on one line, without what single peers said."""
    return " ".join(str(error).partition(" The last one said: ")[0].split())


def way_of(specialists: Sequence[SpecialistId], *, is_parallel: bool, is_judged: bool) -> Way:
    """How a step with these specialists is carried out."""
    if is_parallel:
        return "together"
    return "doubted" if is_judged and len(specialists) > 1 else "alone"
