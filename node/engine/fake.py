"""An engine without a model, for tests: the token at a position is a hash of prompt and position.

Knows the contract of `node.engine.base`; needs no torch. It schedules like the real engine, so it
queues, prefills in chunks, preempts, refuses and cancels as that does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from node.engine.base import EngineRequest, EngineStatistics, StepOutput, TokenLikelihood
from node.engine.outputs import with_likelihoods
from node.engine.scheduler import Scheduler, SchedulerLimits
from node.engine.sequence import Work
from node.engine.speculation.drafts import Speculation

_SURE = TokenLikelihood(0.0, ())
_UNLIKELY = TokenLikelihood(-5.0, ())


@dataclass(frozen=True, slots=True)
class FakeOptions:
    """The limits of a `FakeEngine`. `tokens_per_step` is how far each answer gets in one step."""

    vocabulary_size: int = 256
    context_length: int = 1024
    cache_tokens: int = 16 * 1024
    running: int = 16
    step_tokens: int = 128
    tokens_per_step: int = 1
    is_cache_shared: bool = False


def fake_token(prompt: Sequence[int], position: int, seed: int, vocabulary_size: int) -> int:
    """The token that a `FakeEngine` gives at `position` of the answer to `prompt`."""
    message = f"{seed} {position} {' '.join(map(str, prompt))}".encode()
    return int.from_bytes(blake2b(message, digest_size=8).digest(), "little") % vocabulary_size


class FakeEngine:
    """Deterministic; the same prompt gets the same answer from every instance.

    Like a real model it resumes exactly, and a seed matters only when the temperature is not 0. It
    is always sure, whatever penalties and matchers say, and finds forced tokens unlikely that it
    would not have chosen.
    """

    def __init__(self, options: FakeOptions, speculation: Speculation | None = None) -> None:
        self._options = options
        self._limits = SchedulerLimits(
            context_length=options.context_length,
            cache_tokens=options.cache_tokens,
            running=options.running,
            step_tokens=options.step_tokens,
            vocabulary_size=options.vocabulary_size,
            is_cache_shared=options.is_cache_shared,
        )
        self._scheduler = Scheduler(self._limits, speculation)
        self.is_closed = False

    @property
    def context_length(self) -> int:
        """The most tokens, prompt and answer together, that one request can have."""
        return self._limits.longest

    def submit(self, request: EngineRequest) -> None:
        """As `Scheduler.submit`."""
        self._scheduler.submit(request)

    def cancel(self, request_id: str) -> None:
        """As `Scheduler.cancel`."""
        self._scheduler.cancel(request_id)

    def step(self) -> Sequence[StepOutput]:
        """Up to `tokens_per_step` rounds of the scheduler."""
        outputs: list[StepOutput] = [*self._scheduler.ended_on_arrival()]
        for _ in range(self._options.tokens_per_step):
            work = self._scheduler.schedule()
            tokens = [self._tokens(item) for item in work if item.wants_token]
            sure = self._sure_of(work)
            outputs += with_likelihoods(self._scheduler.advance(work, tokens), sure)
        return outputs

    @property
    def has_work(self) -> bool:
        """Whether `step` would do anything."""
        return self._scheduler.has_work

    def statistics(self) -> EngineStatistics:
        """What is going on now."""
        return self._scheduler.statistics()

    def close(self) -> None:
        """Remember that it was closed."""
        self.is_closed = True

    def _tokens(self, item: Work) -> list[int]:
        """As `selection.follow`: drafts as far as they are right, and one more."""
        start = item.sequence.answer_length
        tokens: list[int] = []
        for depth, guess in enumerate([*item.drafts, None]):
            tokens.append(self._token(item.sequence.request, start + depth))
            if tokens[-1] != guess:
                break
        return tokens

    def _token(self, request: EngineRequest, position: int) -> int:
        seed = request.sampling.seed if request.sampling.temperature > 0 else -1
        return fake_token(request.prompt, position, seed, self._options.vocabulary_size)

    def _sure_of(self, work: Sequence[Work]) -> dict[tuple[str, int], TokenLikelihood]:
        return {
            (request.request_id, position): self._likelihood(request, position)
            for item in work
            if (request := item.sequence.request).sampling.logprobs is not None or request.forced
            for position in range(item.position, item.position + item.logits)
        }

    def _likelihood(self, request: EngineRequest, position: int) -> TokenLikelihood:
        if request.forced and request.forced[position] != self._token(request, position):
            return _UNLIKELY
        return _SURE
