"""The decisions of one plan: which step begins when, with what, and in which order all is told.

Knows the request, the plan, cards and what became of each step; must not know tasks or streams.
Sans-I/O like `coordinator.dispatch.run`: every method returns what is to be done.

A step begins when those that it needs have ended, however they ended: what a failed one had said
stands, and the next goes on from there. The client hears the steps in their order, one after the
other, also when they work side by side.
"""

from dataclasses import replace
from typing import Literal

import msgspec

from coordinator.answer import (
    AnswerEvent,
    AnswerRequest,
    Completed,
    Delta,
    MemoryUse,
    Planned,
    Share,
)
from coordinator.chain import budget
from coordinator.chain.actions import Action, Begin, Key, Prepare
from coordinator.chain.contender import Contender
from coordinator.chain.contest import RETRIES, Bout, Contest, way_of
from coordinator.chain.evidence import (
    JUDGED_TEMPERATURE_MAX,
    LEAD_MAX,
    TOP,
    floor_of,
    lead_of,
)
from coordinator.chain.memory import CardsOf, Memory
from coordinator.chain.transcript import source
from coordinator.dispatch.actions import Emit, End
from coordinator.routing.plan import Plan, Step
from protocols.errors import DeadlineExceeded, DslmError, NoCapacity, TooLong, Unsupported
from protocols.ids import PeerId, RequestId, SpecialistId
from protocols.messages.ask import Chat


class ChainRun:
    """Made for one request; `now` is when its budget began. `Unsupported` unless it is a chat."""

    def __init__(
        self,
        request: AnswerRequest,
        plan: Plan,
        cards: CardsOf,
        now: float,
        *,
        asks_base: bool = False,
    ) -> None:
        """With `asks_base` the base's opinion decides on doubts where the router was unsure."""
        if not isinstance(request.prompt, Chat):
            raise Unsupported("a bare text is continued by one specialist")
        self._request = request
        self._plan = plan
        self._asks_base = asks_base
        self._cards = cards
        self._started = now
        self._deadline = now + request.budget
        self._memory = Memory(request.prompt, plan, cards)
        self._steps: tuple[Step, ...] = plan.steps[:1] if plan.kind == "parallel" else plan.steps
        self._contests = [Contest(self._bout(index)) for index in range(len(self._steps))]
        self._begun: set[int] = set()
        self._ended: set[int] = set()
        self._limits: dict[int, int] = {}
        self._deadlines: dict[int, float] = {}
        self._tries: dict[Key, Begin] = {}
        self._lessened: set[Key] = set()
        self._prepared: set[int] = set()
        self._told = 0
        """Steps of which all has been told."""
        self._first_at: float | None = None
        self._is_over = False

    # What happens to a chain ----------------------------------------------------------------

    def start(self, now: float) -> list[Action]:
        """The first things to do."""
        return [Emit(Planned(self._plan)), *self._go_on(now)]

    def heard(self, key: Key, event: AnswerEvent, now: float) -> list[Action]:
        """An event of one try at one step."""
        if self._is_over:
            return []
        actions = self._contests[key.step].heard(key.attempt, event, now)
        return [*actions, *self._go_on(now)]

    def failed(self, key: Key, error: DslmError, now: float) -> list[Action]:
        """One try at one step ended with `error`; if there was too little room, with less it goes
        on.
        """
        if self._is_over:
            return []
        smaller = self._with_less(key, error)
        if smaller is not None:
            return [smaller]
        actions = self._contests[key.step].failed(key.attempt, error, now)
        return [*actions, *self._go_on(now)]

    def compared(self, key: Key, base: float | None, now: float) -> list[Action]:
        """How likely the base finds what one try said; None if it could not be asked."""
        if self._is_over:
            return []
        actions = self._contests[key.step].compared(key.attempt, base, now)
        return [*actions, *self._go_on(now)]

    def close(self) -> None:
        """The client has left, or all is over."""
        self._is_over = True

    # Steps ----------------------------------------------------------------------------------

    def _go_on(self, now: float) -> list[Action]:
        """Begin what can begin, tell what can be told, end when nothing is left."""
        actions: list[Action] = []
        while True:
            self._remember_ended()
            due = [index for index in range(len(self._steps)) if self._is_due(index)]
            if not due:
                break
            for index in due:
                actions += self._begin(index, now)
        actions += self._prepare()
        actions += self._tell(now)
        if self._told == len(self._contests):
            actions += self._end(now)
        return actions

    def _remember_ended(self) -> None:
        for index, contest in enumerate(self._contests):
            if contest.is_over and index not in self._ended:
                self._ended.add(index)
                if contest.speaker is not None:
                    self._memory.remember(index, contest.speaker, self._reserve())

    def _is_due(self, index: int) -> bool:
        return index not in self._begun and self._ended.issuperset(self._steps[index].after)

    def _begin(self, index: int, now: float) -> list[Action]:
        self._begun.add(index)
        contest, left = self._contests[index], self._deadline - now
        share = budget.seconds_for(self._steps, index, self._ended, left)
        self._deadlines[index] = now + share
        self._limits[index] = limit = self._limit(index)
        if left <= 0:
            contest.give_up(DeadlineExceeded("no time was left for this step"), now)
            return []
        if limit <= 0:
            contest.give_up(NoCapacity("no tokens were left for this step"), now)
            return []
        contest.handed = self._memory.handed(index, self._pages_at(index))
        return contest.begin(now)

    def _pages_at(self, index: int) -> PeerId | None:
        return self._memory.pages_at(index, self._steps[index].specialist)

    def _limit(self, index: int) -> int:
        """The most tokens of this step's answer, which begins now."""
        if not self._request.max_tokens:
            context = self._memory.context(range(len(self._steps)))
            return budget.answer_limit(context, len(self._steps))
        promised = (
            self._spoken(at) if at in self._ended else self._limits[at]
            for at in self._begun - {index}
        )
        waiting = 1 + len(self._steps) - len(self._begun)
        return budget.tokens_for(waiting, self._request.max_tokens - sum(promised))

    def _reserve(self) -> int:
        """Tokens that each later answer shall have room for."""
        count = len(self._steps)
        context = self._memory.context(range(count))
        limit = budget.answer_limit(context, count)
        asked = self._request.max_tokens
        return min(limit, max(1, asked // count)) if asked else limit

    def _spoken(self, index: int) -> int:
        speaker = self._contests[index].speaker
        return speaker.tokens if speaker else 0

    def _bout(self, index: int) -> Bout:
        step, sampling = self._steps[index], self._request.sampling
        is_parallel = self._plan.kind == "parallel"
        if is_parallel:
            asked = tuple(one.specialist for one in self._plan.steps)
        else:
            asked = (step.specialist, *step.alternatives[:RETRIES])
        is_unsure = lead_of(asked[0], asked[1:], self._plan) < LEAD_MAX
        # The scores are those of the whole prompt: of a chain's step they say little.
        is_doubtful = is_unsure or len(self._steps) > 1
        is_judged = sampling.temperature <= JUDGED_TEMPERATURE_MAX and is_doubtful
        return Bout(
            index=index,
            prompt=step.prompt,
            specialists=asked,
            way=way_of(asked, is_parallel=is_parallel, is_judged=is_judged),
            shown_top=sampling.logprobs,
            request=self._make_request,
            floor=self._floor,
            asks_base=self._asks_base and is_unsure,
        )

    def _floor(self, specialist: SpecialistId, peer: PeerId | None) -> float:
        return floor_of(next((one for one in self._cards(specialist) if one.peer == peer), None))

    def _make_request(self, key: Key, specialist: SpecialistId, now: float) -> AnswerRequest:
        request, sampling = self._request, self._request.sampling
        top = max(TOP, sampling.logprobs or 0)
        made = replace(
            request,
            request_id=RequestId(f"{request.request_id[:50]}.{key.step}.{key.attempt}"),
            model=specialist,
            prompt=self._memory.prompt_for(key.step),
            sampling=msgspec.structs.replace(sampling, logprobs=top),
            max_tokens=self._limits[key.step],
            budget=max(0.0, self._deadlines[key.step] - now),
            memory_at=self._memory.pages_at(key.step, specialist),
        )
        self._tries[key] = Begin(key, specialist, made)
        return made

    def _with_less(self, key: Key, error: DslmError) -> Begin | None:
        """The same again with as many tokens as there is room for, once; None if that is no help.

        How long a prompt is in tokens is known to whoever reads it only.
        """
        begun = self._tries[key]
        if not isinstance(error, TooLong) or key in self._lessened:
            return None
        room = error.limit - (error.requested - begun.request.max_tokens)
        if not 0 < room < begun.request.max_tokens:
            return None
        self._lessened.add(key)
        self._limits[key.step] = room
        request = replace(begun.request, max_tokens=room)
        return replace(begun, request=request)

    def _prepare(self) -> list[Action]:
        """Once a step speaks, whoever goes on from it can be made ready."""
        actions: list[Action] = []
        for index, step in enumerate(self._steps):
            main = source(self._steps, index)
            if main is None or index in self._prepared | self._begun:
                continue
            speaker = self._contests[main].speaker
            if speaker is None or speaker.peer is None or not speaker.tokens:
                continue
            self._prepared.add(index)
            self._memory.reading(main, speaker.specialist, speaker.peer)
            request = replace(
                self._request,
                request_id=RequestId(f"{self._request.request_id[:50]}.{index}"),
                model=step.specialist,
                prompt=self._memory.prompt_for(main),
                memory_at=self._pages_at(index),
            )
            actions.append(Prepare(step.specialist, request))
        return actions

    # What the client hears ------------------------------------------------------------------

    def _tell(self, now: float) -> list[Action]:
        actions: list[Action] = []
        while self._told < len(self._contests):
            contest = self._contests[self._told]
            while contest.outbox:
                event = contest.outbox.popleft()
                if isinstance(event, Delta) and self._first_at is None:
                    self._first_at = now
                actions.append(Emit(event))
            if not contest.is_over:
                break
            self._told += 1
        return actions

    def _end(self, now: float) -> list[Action]:
        self._is_over = True
        speakers = [one.speaker for one in self._contests if one.speaker is not None]
        if not any(speaker.tokens or speaker.completed for speaker in speakers):
            errors = [one.error for one in self._contests if one.error is not None]
            return [End(errors[0] if errors else NoCapacity("no step came to anything"))]
        return [Emit(self._completed(speakers, now)), End()]

    def _completed(self, speakers: list[Contender], now: float) -> Completed:
        done = [one.completed for one in speakers if one.completed is not None]
        shares: dict[PeerId, int] = {}
        for speaker in speakers:
            for share in speaker.shares:
                shares[share.peer] = shares.get(share.peer, 0) + share.tokens
        is_whole = len(done) == len(self._contests) and all(one.reason == "stop" for one in done)
        reason: Literal["stop", "length"] = "stop" if is_whole else "length"
        first = now if self._first_at is None else self._first_at
        return Completed(
            specialist=speakers[-1].specialist,
            reason=reason,
            text="",
            prompt_tokens=sum(one.prompt_tokens for one in done),
            completion_tokens=sum(speaker.tokens for speaker in speakers),
            first_token_seconds=first - self._started,
            total_seconds=now - self._started,
            shares=tuple(Share(peer, tokens) for peer, tokens in shares.items()),
            memory=MemoryUse(
                sum(one.memory.pages_reused for one in done),
                sum(one.memory.pages_fetched for one in done),
                sum(one.memory.bytes_fetched for one in done),
            ),
        )
