"""A scripted answer by several specialists, for tests and demonstrations of the gateway.

Knows the coordinator's events; must not be used by the daemon.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from coordinator.answer import (
    Activity,
    AnswerEvent,
    AnswerRequest,
    Completed,
    Delta,
    Evidence,
    Handed,
    Planned,
    Share,
    StepEnded,
    StepStarted,
)
from coordinator.routing.plan import Plan, Score, Step
from protocols.ids import PeerId, SpecialistId


@dataclass(frozen=True, slots=True)
class Turn:
    """What one specialist says in a chain; with an `error` it breaks off after its words."""

    specialist: str
    peer: PeerId
    words: Sequence[str]
    error: str = ""


@dataclass(frozen=True, slots=True)
class Debate:
    """A script in which specialists speak in turn, each going on from the one before."""

    turns: Sequence[Turn]

    async def __call__(
        self,
        request: AnswerRequest,  # noqa: ARG002  (a Script)
    ) -> AsyncGenerator[AnswerEvent, None]:
        """`Planned`, the steps, `Completed`."""
        yield Planned(self.plan())
        total = 0
        for index, turn in enumerate(self.turns):
            specialist = SpecialistId(turn.specialist)
            if turn.words:
                handed = Handed(tuple(range(index)), 12 * index)
                yield StepStarted(index, specialist, turn.peer, f"part {index + 1}", handed)
            for position, word in enumerate(turn.words):
                yield Delta(turn.peer, position, (position + 100,), word, step=index)
            count = len(turn.words)
            total += count
            shares = (Share(turn.peer, count),) if count else ()
            evidence = Evidence(-0.25, 1.5, count, -1.5) if count else None
            yield StepEnded(
                index, specialist, evidence, 1.0, count, turn.error, 0.25, 7 * count, shares
            )
        yield self.end(total)

    def plan(self) -> Plan:
        """Each step needs the one before."""
        steps = tuple(
            Step(SpecialistId(turn.specialist), f"part {at + 1}", (at - 1,) if at else ())
            for at, turn in enumerate(self.turns)
        )
        scores = tuple(Score(step.specialist, 0.5 - at / 10) for at, step in enumerate(steps))
        return Plan("chain", steps, "several parts", scores, 0.1)

    def end(self, tokens: int) -> Completed:
        """The last event."""
        spoke = [turn for turn in self.turns if turn.words]
        activity = Activity(
            specialists=tuple(SpecialistId(turn.specialist) for turn in spoke),
            specialists_known=5,
            parameters=140_000_000,
            parameters_known=160_000_000,
            peers=tuple(dict.fromkeys(turn.peer for turn in spoke)),
            bytes_sent=1_000,
            bytes_received=9_000,
        )
        is_whole = not any(turn.error for turn in self.turns)
        return Completed(
            specialist=SpecialistId(spoke[-1].specialist),
            reason="stop" if is_whole else "length",
            text="",
            prompt_tokens=7 * tokens,
            completion_tokens=tokens,
            first_token_seconds=0.25,
            total_seconds=3.0,
            shares=tuple(Share(turn.peer, len(turn.words)) for turn in spoke),
            activity=activity,
        )
