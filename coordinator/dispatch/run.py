"""One request on its way: which peers are being asked, what came, what to do next. No I/O.

Knows deadlines, hedging and failover; must not know streams or tasks. Each method takes the time
(monotonic seconds) and returns what is to be done; exactly one `End` is ever returned.

At most two attempts run at once: the leading one, and a hedge when its first token is late. The
first that brings a token wins and the other is dropped. When an attempt fails, the next peer goes
on from the delivered ids; only the peer that failed is blamed.
"""

from collections.abc import Callable

from coordinator.answer import (
    AnswerRequest,
    Completed,
    MemoryUse,
    Resumed,
    Route,
    Routed,
    Waiting,
)
from coordinator.dispatch.actions import Action, Drop, Emit, End, LookAgain, Predial, Start
from coordinator.dispatch.attempt import Attempt
from coordinator.dispatch.candidates import Candidates, Later
from coordinator.dispatch.delivery import Delivery
from coordinator.measure import PeerMeasurements
from coordinator.routing.router import Choice
from protocols import limits
from protocols.ask import refusal_error
from protocols.errors import (
    DeadlineExceeded,
    DslmError,
    NoCapacity,
    ProtocolError,
    TooLong,
    Unsupported,
)
from protocols.ids import PeerId
from protocols.messages.ask import (
    Accepted,
    Ask,
    Finished,
    Progress,
    Refusal,
    ServerMessage,
    Tokens,
)
from protocols.records import CapabilityCard

ATTEMPTS_MAX = 8
LOOK_AGAIN_EVERY = 0.5
"""While nobody can be asked, how often the directory is looked at."""
LOOK_FOR = 3.0
"""How long to look for new replicas when none is left."""
_FINAL = (TooLong, Unsupported)
"""Refusals of the request itself: when nobody is left who has not given one, it is the answer."""


class AnswerRun:
    """Made for one request; `now` is when its budget began."""

    def __init__(
        self,
        request: AnswerRequest,
        choice: Choice,
        candidates: Candidates,
        measurements: PeerMeasurements,
        now: float,
        is_trusted: Callable[[PeerId], bool] = lambda _: False,
    ) -> None:
        """Peers that are trusted hear where the prompt's memory is, and by which ticket."""
        self._is_trusted = is_trusted
        self._request = request
        self._choice = choice
        self._candidates = candidates
        self._measurements = measurements
        self._started = now
        self._deadline = now + request.budget
        self._delivery = Delivery(request.max_tokens)
        self._active: dict[int, Attempt] = {}
        self._attempts = 0
        self._like: CapabilityCard | None = None
        self._speaker: PeerId | None = None
        self._first_token_at: float | None = None
        self._last_error: DslmError | None = None
        self._look_at: float | None = None
        self._look_until: float | None = None
        self._is_over = False

    # What happens to a run ------------------------------------------------------------------

    def start(self, now: float) -> list[Action]:
        """The first things to do."""
        return self._launch(now)

    def received(
        self, number: int, message: ServerMessage, arrived: float, now: float
    ) -> list[Action]:
        """A message of attempt `number` that `arrived` then and is looked at `now`.

        What dropped attempts still say is ignored.
        """
        attempt = self._active.get(number)
        if attempt is None or self._is_over:
            return []
        if now >= self._deadline and not isinstance(message, Finished):
            return self._end(self._too_late())
        attempt.alive = now
        attempt.is_last_hope = False
        try:
            return self._take(attempt, message, arrived)
        except DslmError as error:
            return [Drop(number), *self.failed(number, error, now)]

    def failed(self, number: int, error: DslmError, now: float) -> list[Action]:
        """Attempt `number` came to nothing."""
        attempt = self._active.pop(number, None)
        if attempt is None or self._is_over:
            return []
        self._measurements.ended(attempt.peer)
        self._candidates.failed(attempt.peer, error, now)
        self._last_error = error
        return [] if self._active else self._launch(now)

    def tick(self, now: float) -> list[Action]:
        """It is `wake_at`, or later."""
        if self._is_over:
            return []
        if now >= self._deadline:
            return self._end(self._too_late())
        actions: list[Action] = []
        for attempt in list(self._active.values()):
            if now >= attempt.gives_up_at(self._measurements) and not self._is_spared(attempt):
                silence = now - attempt.alive
                error = DeadlineExceeded(f"no sign of life from {attempt.peer} for {silence:.1f} s")
                actions += [Drop(attempt.number), *self.failed(attempt.number, error, now)]
        lonely = self._lonely()
        if lonely and now >= lonely.hedge_at(self._measurements):
            lonely.has_been_hedged = True
            actions += self._hedge(now)
        if not self._active and not self._is_over and self._is_due(now):
            actions += self._launch(now)
        return actions

    def wake_at(self) -> float:
        """When `tick` must be called unless something else happens first."""
        times = [self._deadline]
        times += [one.gives_up_at(self._measurements) for one in self._active.values()]
        lonely = self._lonely()
        if lonely:
            times.append(lonely.hedge_at(self._measurements))
        if not self._active and self._look_at is not None:
            times.append(self._look_at)
        return min(times)

    def paused(self, seconds: float) -> None:
        """The client kept us waiting that long: no peer is to blame for it."""
        for attempt in self._active.values():
            attempt.pause(seconds)

    def close(self) -> None:
        """The client has left, or the run is over: nobody is working for it any more."""
        self._is_over = True
        for attempt in self._active.values():
            self._measurements.ended(attempt.peer)
        self._active.clear()

    # Messages -------------------------------------------------------------------------------

    def _take(self, attempt: Attempt, message: ServerMessage, arrived: float) -> list[Action]:
        match message:
            case Accepted():
                if message.model_digest != attempt.card.model_digest:
                    raise ProtocolError("the peer answers with other weights than its card names")
                return []
            case Progress():
                if attempt.has_tokens or attempt is not next(iter(self._active.values())):
                    return []
                return [Emit(Waiting(attempt.peer, message.phase, message.ahead))]
            case Tokens():
                return self._take_tokens(attempt, message, arrived)
            case Finished():
                return self._take_end(attempt, message, arrived)
            case Refusal():
                raise refusal_error(message)

    def _take_tokens(self, attempt: Attempt, tokens: Tokens, arrived: float) -> list[Action]:
        delta = self._delivery.take(attempt.peer, tokens)
        if attempt.has_tokens:
            since = max(0.0, arrived - attempt.last_tokens)
            self._measurements.tokens(attempt.peer, len(tokens.ids), since)
        actions: list[Action] = []
        if not attempt.has_tokens:
            self._measurements.first_token(attempt.peer, max(0.0, arrived - attempt.started))
            actions += self._win(attempt, tokens.position, arrived)
        attempt.has_tokens = True
        attempt.last_tokens = arrived
        self._like = attempt.card
        if self._first_token_at is None:
            self._first_token_at = arrived
        return [*actions, Emit(delta)]

    def _take_end(self, attempt: Attempt, end: Finished, arrived: float) -> list[Action]:
        self._delivery.check_end(end)
        actions = [] if attempt.has_tokens else self._win(attempt, end.completion_tokens, arrived)
        self._measurements.succeeded(attempt.peer)
        first = arrived if self._first_token_at is None else self._first_token_at
        completed = Completed(
            specialist=self._choice.specialist,
            reason=end.reason,
            text=end.text,
            prompt_tokens=end.prompt_tokens,
            completion_tokens=end.completion_tokens,
            first_token_seconds=first - self._started,
            total_seconds=arrived - self._started,
            shares=self._delivery.shares,
            memory=MemoryUse(end.pages_reused, end.pages_fetched, end.bytes_fetched),
        )
        return [*actions, Emit(completed), *self._end(None)]

    def _win(self, winner: Attempt, position: int, now: float) -> list[Action]:
        """`winner` speaks from now on; a slower one is dropped, and its slowness remembered."""
        actions: list[Action] = []
        for loser in [other for other in self._active.values() if other is not winner]:
            del self._active[loser.number]
            self._measurements.ended(loser.peer)
            self._measurements.first_token(loser.peer, max(0.0, now - loser.started))
            actions.append(Drop(loser.number))
        if self._speaker is not None and self._speaker != winner.peer:
            reason = self._last_error.code if self._last_error else DeadlineExceeded.code
            actions.append(Emit(Resumed(self._speaker, winner.peer, position, reason)))
        self._speaker = winner.peer
        return actions

    # Attempts -------------------------------------------------------------------------------

    def _launch(self, now: float) -> list[Action]:
        """Ask the next peer, or wait for one, or give up."""
        if self._attempts >= ATTEMPTS_MAX:
            return self._end(self._give_up(now))
        match self._candidates.next(now, self._like):
            case CapabilityCard() as card:
                return self._start(card, now)
            case Later(at) if at < self._deadline:
                self._look_at = min(at, now + LOOK_AGAIN_EVERY)
                return self._look(now)
            case Later():
                return self._end(self._give_up(now))
            case None:
                if isinstance(self._last_error, _FINAL) or self._looked_enough(now):
                    return self._end(self._give_up(now))
                self._look_at = now + LOOK_AGAIN_EVERY
                return self._look(now)

    def _hedge(self, now: float) -> list[Action]:
        busy = [attempt.peer for attempt in self._active.values()]
        if self._attempts >= ATTEMPTS_MAX:
            return []
        card = self._candidates.next(now, self._like, but=busy)
        return self._start(card, now) if isinstance(card, CapabilityCard) else []

    def _start(self, card: CapabilityCard, now: float) -> list[Action]:
        attempt = Attempt(self._attempts, card, started=now, alive=now)
        self._attempts += 1
        self._active[attempt.number] = attempt
        self._measurements.started(attempt.peer)
        self._look_at = self._look_until = None
        asked = [other.peer for other in self._active.values()]
        like = card if self._like is None else self._like
        second = self._candidates.next(now, like, but=asked)
        actions: list[Action] = []
        if self._speaker is None:
            self._speaker = attempt.peer
            actions.append(Emit(self._routed(attempt.peer, second)))
        actions.append(Start(attempt.number, attempt.peer, self._ask(attempt, now)))
        if isinstance(second, CapabilityCard):
            actions.append(Predial(PeerId(second.peer)))
        return actions

    def _routed(self, peer: PeerId, second: CapabilityCard | Later | None) -> Routed:
        return Routed(
            specialist=self._choice.specialist,
            peer=peer,
            why=self._choice.why,
            scores=self._choice.scores,
            second_choice=PeerId(second.peer) if isinstance(second, CapabilityCard) else None,
        )

    def _ask(self, attempt: Attempt, now: float) -> Ask:
        request = self._request
        may_share = bool(request.memory_ticket) and self._is_trusted(attempt.peer)
        return Ask(
            request_id=request.request_id,
            attempt=attempt.number,
            specialist=self._choice.specialist,
            prompt=request.prompt,
            sampling=request.sampling,
            max_tokens=request.max_tokens,
            budget=min(max(0.0, self._deadline - now), limits.DEADLINE_SECONDS_MAX),
            stop=request.stop,
            delivered=self._delivery.ids,
            constraint=request.constraint,
            tenant=request.tenant,
            memory_at=(request.memory_at or "") if may_share else "",
            memory_ticket=request.memory_ticket if may_share else "",
        )

    # Waiting --------------------------------------------------------------------------------

    def _look(self, now: float) -> list[Action]:
        if self._look_until is not None or self._request.route is Route.LOCAL:
            return []
        self._look_until = now + LOOK_FOR
        return [LookAgain()]

    def _looked_enough(self, now: float) -> bool:
        if self._request.route is Route.LOCAL:
            return True
        return self._look_until is not None and now >= self._look_until

    def _is_due(self, now: float) -> bool:
        return self._look_at is not None and now >= self._look_at

    def _is_spared(self, attempt: Attempt) -> bool:
        """Whether a silent attempt of an answer that has begun gets more time: it is the last."""
        if attempt.is_last_hope or len(self._active) > 1 or self._like is None:
            return False
        attempt.is_last_hope = not self._candidates.has_untried(self._like, [attempt.peer])
        return attempt.is_last_hope

    def _lonely(self) -> Attempt | None:
        """The attempt that may get company, if there is one."""
        if len(self._active) != 1:
            return None
        attempt = next(iter(self._active.values()))
        return None if attempt.has_tokens or attempt.has_been_hedged else attempt

    # Endings --------------------------------------------------------------------------------

    def _end(self, error: DslmError | None) -> list[Action]:
        drops: list[Action] = [Drop(number) for number in self._active]
        self.close()
        return [*drops, End(error)]

    def _too_late(self) -> DslmError:
        error = DeadlineExceeded(
            f"the answer was not complete within its {self._request.budget:g} seconds"
        )
        error.__cause__ = self._last_error
        return error

    def _give_up(self, now: float) -> DslmError:
        if isinstance(self._last_error, _FINAL) and not self._delivery.position:
            return self._last_error
        name = self._choice.specialist
        last = f" The last one said: {self._last_error}" if self._last_error else ""
        left = "any more" if self._delivery.position else "now"
        error = NoCapacity(f"No reachable peer can answer with {name} {left}.{last}")
        match self._candidates.next(now, self._like):
            case Later(at):
                error.retry_after = max(at - now, error.retry_after)
            case _:
                pass
        error.__cause__ = self._last_error
        return error
