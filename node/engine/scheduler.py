"""Which tokens go through the model next: admission, chunked prefill, and the ends of answers.

Knows requests, token counts and cache slots; must not know tensors. First come, first served: a
request waits until its worst case fits the cache, and nobody overtakes it.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from node.engine.base import Ended, EngineRequest, EngineStatistics, Generated, StepOutput
from node.engine.cache import Extent, ExtentAllocator
from protocols.errors import ProtocolError, TooLong, Unsupported


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    """What one engine may do at once. Counts are tokens, but for `running` (requests).

    `step_tokens` bounds a step's batch: it is shared by one token of each answer under way and
    chunks of prompts, so that a long prompt delays the others by a known time only.
    """

    context_length: int
    cache_tokens: int
    running: int
    step_tokens: int
    vocabulary_size: int

    @property
    def longest(self) -> int:
        """The most tokens, prompt and answer together, that one request can have."""
        return min(self.context_length, self.cache_tokens)


@dataclass(slots=True, eq=False)
class Running:
    """A running request. `tokens` are prompt and answer so far; the first `computed` are cached."""

    request: EngineRequest
    extent: Extent
    tokens: list[int] = field(default_factory=list)
    computed: int = 0

    @property
    def answer_length(self) -> int:
        """Tokens of the answer so far, delivered ones included."""
        return len(self.tokens) - len(self.request.prompt)


@dataclass(frozen=True, slots=True)
class Work:
    """The next `count` tokens of a sequence; `wants_token` if a new one follows from them."""

    sequence: Running
    count: int

    @property
    def wants_token(self) -> bool:
        """Whether these are the last tokens known, so that the model says what comes next."""
        return self.sequence.computed + self.count == len(self.sequence.tokens)

    @property
    def token_ids(self) -> list[int]:
        """The tokens to compute."""
        start = self.sequence.computed
        return self.sequence.tokens[start : start + self.count]


class Scheduler:
    """Call `schedule`, run the work, give the new tokens to `advance`; `submit` at any time."""

    def __init__(self, limits: SchedulerLimits) -> None:
        self._limits = limits
        self._slots = ExtentAllocator(limits.cache_tokens)
        self._waiting: deque[EngineRequest] = deque()
        self._running: dict[str, Running] = {}
        self._done_on_arrival: list[Ended] = []
        self._prompt_tokens = 0
        self._generated_tokens = 0

    def __repr__(self) -> str:
        return f"<Scheduler running={len(self._running)} waiting={len(self._waiting)}>"

    @property
    def has_work(self) -> bool:
        """Whether any request is waiting, running, or ended and not yet told."""
        return bool(self._running or self._waiting or self._done_on_arrival)

    def submit(self, request: EngineRequest) -> None:
        """Queue a request.

        `TooLong` if it can never fit, `Unsupported` for an empty prompt, `ProtocolError` for ids
        outside the vocabulary (delivered ids come from the network) or a request id in use.
        """
        self._check(request)
        if len(request.delivered) >= request.max_tokens:
            self._done_on_arrival.append(Ended(request.request_id, "length"))
        else:
            self._waiting.append(request)

    def cancel(self, request_id: str) -> None:
        """Forget a request in any state; harmless for one that is not there."""
        if request_id in self._running:
            self._release(self._running[request_id])
        self._waiting = deque(r for r in self._waiting if r.request_id != request_id)
        self._done_on_arrival = [e for e in self._done_on_arrival if e.request_id != request_id]

    def ended_on_arrival(self) -> list[Ended]:
        """Requests whose delivered tokens were the whole answer; each is returned once."""
        ended, self._done_on_arrival = self._done_on_arrival, []
        return ended

    def schedule(self) -> list[Work]:
        """Admit what fits, then one token of every answer under way, then chunks of prompts."""
        self._admit()
        answers: list[Work] = []
        prompts: list[Running] = []
        for sequence in self._running.values():
            if len(sequence.tokens) - sequence.computed == 1:
                answers.append(Work(sequence, 1))
            else:
                prompts.append(sequence)
        # Many answers must not stop prompts altogether: a quarter of the step stays theirs.
        room = max(self._limits.step_tokens - len(answers), self._limits.step_tokens // 4, 1)
        chunks: list[Work] = []
        for sequence in prompts:
            count = min(room, len(sequence.tokens) - sequence.computed)
            if count == 0:
                break
            chunks.append(Work(sequence, count))
            room -= count
        return answers + chunks

    def advance(self, work: Sequence[Work], new_tokens: Sequence[int]) -> list[StepOutput]:
        """Record that `work` was run; `new_tokens` has one id for each that `wants_token`."""
        fresh = iter(new_tokens)
        outputs: list[StepOutput] = []
        for item in work:
            sequence, wants_token = item.sequence, item.wants_token
            known = len(sequence.request.prompt) + len(sequence.request.delivered)
            self._prompt_tokens += max(0, min(known - sequence.computed, item.count))
            sequence.computed += item.count
            if wants_token:
                outputs += self._take(sequence, next(fresh))
        return outputs

    def statistics(self) -> EngineStatistics:
        """Counts now; `cache_tokens_used` are slots promised to running requests."""
        return EngineStatistics(
            running=len(self._running),
            waiting=len(self._waiting),
            prompt_tokens=self._prompt_tokens,
            generated_tokens=self._generated_tokens,
            cache_tokens_used=self._slots.used,
            cache_tokens_total=self._slots.capacity,
        )

    def _check(self, request: EngineRequest) -> None:
        wanted = len(request.prompt) + request.max_tokens
        if wanted > self._limits.longest:
            raise TooLong(self._limits.longest, wanted)
        if not request.prompt:
            raise Unsupported("The prompt has no tokens; there is nothing to continue.")
        ids = request.prompt + request.delivered
        if min(ids) < 0 or max(ids) >= self._limits.vocabulary_size:
            raise ProtocolError(
                f"token ids outside the vocabulary of {self._limits.vocabulary_size}"
            )
        known = {r.request_id for r in self._waiting} | self._running.keys()
        if request.request_id in known:
            raise ProtocolError(f"request id {request.request_id!r} is in use")

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self._limits.running:
            request = self._waiting[0]
            extent = self._slots.allocate(len(request.prompt) + request.max_tokens)
            if extent is None:
                return
            self._waiting.popleft()
            tokens = [*request.prompt, *request.delivered]
            self._running[request.request_id] = Running(request, extent, tokens)

    def _take(self, sequence: Running, token_id: int) -> list[StepOutput]:
        request = sequence.request
        if token_id in request.stop_ids:
            self._release(sequence)
            return [Ended(request.request_id, "stop")]
        outputs: list[StepOutput] = [
            Generated(request.request_id, sequence.answer_length, token_id)
        ]
        sequence.tokens.append(token_id)
        self._generated_tokens += 1
        if sequence.answer_length >= request.max_tokens:
            self._release(sequence)
            outputs.append(Ended(request.request_id, "length"))
        return outputs

    def _release(self, sequence: Running) -> None:
        del self._running[sequence.request.request_id]
        self._slots.free(sequence.extent)
