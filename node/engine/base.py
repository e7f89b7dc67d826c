"""What an engine is to the rest of the node: requests in, numbered tokens out, one step at a time.

Knows no torch; `node.engine.torch_engine` and `node.engine.fake` implement it, and
`node.engine.loop` owns the thread that calls `step`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from protocols.messages.ask import Sampling

FinishReason = Literal["stop", "length"]


class Matcher(Protocol):
    """Says which tokens keep an answer within its constraint. Used by one thread at a time.

    A function of the answer alone (it keeps state only to be quick), so it may be asked about any
    answer in any order: one that is resumed, or that grows by tokens which are then taken back.
    Never raises: where it cannot say, only the ids that end an answer are allowed, and `failure`
    says why.
    """

    @property
    def failure(self) -> str:
        """Why the constraint cannot be followed any further; empty while it can."""
        ...

    def allowed(self, answer: Sequence[int]) -> bytes:
        """Who may come after `answer`: bit i % 8 (the lowest is 0) of byte i // 8 is id i's.

        Ids beyond the last byte may not. At least one bit is set.
        """
        ...


@dataclass(frozen=True, slots=True)
class Alternative:
    """A token that was likely; `logprob` in nats."""

    token_id: int
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLikelihood:
    """How likely the model found the chosen token, before all processing, and the likeliest."""

    logprob: float
    top: tuple[Alternative, ...]


@dataclass(frozen=True, slots=True)
class AdapterUse:
    """The adapter named `digest`, applied to every token from position `start` on.

    An ordinary adapter starts at 0. An activated one starts at its invocation: the keys and values
    of all tokens before are the base model's, and shared with everybody who has those tokens.
    """

    digest: str
    start: int = 0


@dataclass(frozen=True, slots=True)
class PageOwner:
    """Whose prompts may find a page: `client`, `tenant` and `chain` as of `EngineRequest`."""

    client: str = ""
    tenant: str = ""
    chain: str = ""


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One generation.

    `delivered` are ids of the answer that exist already: they are fed like the prompt, and the
    first token made here has position `len(delivered)`. `max_tokens` counts the whole answer.
    Generation ends before a token in `stop_ids`, which is not emitted. `client` names who asks, or
    is empty for the node itself: clients share the engine evenly, and none can tell from the time
    an answer takes what another one asked, nor can the `tenant`s of one client. With a `matcher`,
    tokens are chosen among those that it allows. Without an `adapter` the base model answers.
    Requests of one `chain`, steps of a task, find pages that came from other peers for it.

    With `forced` ids the answer is given: nothing is chosen, but each of them comes out with its
    likelihood, and the request ends with `length`. `max_tokens` counts just these, nothing else may
    be known of the answer, and `stop_ids` are ids like any others.
    """

    request_id: str
    prompt: tuple[int, ...]
    max_tokens: int
    sampling: Sampling
    stop_ids: frozenset[int]
    delivered: tuple[int, ...] = ()
    matcher: Matcher | None = None
    client: str = ""
    tenant: str = ""
    adapter: AdapterUse | None = None
    chain: str = ""
    forced: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Generated:
    """A token of a request; `position` counts from 0 over the whole answer.

    `likelihood` is there if the request's sampling asks for it, or the token was given.
    """

    request_id: str
    position: int
    token_id: int
    likelihood: TokenLikelihood | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """The last word on a request that was not cancelled.

    `reused_tokens` of what it was given were found in the cache when they were first needed.
    """

    request_id: str
    reason: FinishReason
    reused_tokens: int = 0


StepOutput = Generated | Ended


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """A snapshot: requests and pages now; tokens and preemptions since start.

    `prompt_tokens` counts each token that was given once, found in the cache or computed;
    `prefix_hit_tokens` those that were not computed because the cache had them, also when a
    preempted request came back. Of `drafted_tokens`, guessed and computed ahead of their turn,
    `accepted_tokens` were right: so many steps were saved. Pages hold
    `cache_tokens_total / pages_total` tokens each: `pages_used` by running requests,
    `pages_cached` kept for those that may come. `prompt_rate` is how many tokens of prompts were
    computed in a second lately, 0 before the first.
    """

    running: int
    waiting: int
    prompt_tokens: int
    generated_tokens: int
    cache_tokens_used: int
    cache_tokens_total: int
    pages_used: int = 0
    pages_cached: int = 0
    pages_total: int = 0
    prefix_hit_tokens: int = 0
    preemptions: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    prompt_rate: float = 0.0


class Engine(Protocol):
    """Synchronous and used from one thread only."""

    @property
    def context_length(self) -> int:
        """The most tokens, prompt and answer together, that one request can have."""
        ...

    def submit(self, request: EngineRequest) -> None:
        """Queue a request; `TooLong` if prompt and `max_tokens` cannot fit the context.

        `UnknownAdapter` if it names an adapter that is not loaded.
        """
        ...

    def cancel(self, request_id: str) -> None:
        """Forget a request and free what it holds; harmless for one that is not there."""
        ...

    def step(self) -> Sequence[StepOutput]:
        """Run one batch: schedule, forward, sample. Empty when there is nothing to do."""
        ...

    @property
    def has_work(self) -> bool:
        """Whether `step` would do anything."""
        ...

    def statistics(self) -> EngineStatistics:
        """What is going on now."""
        ...

    def close(self) -> None:
        """Free the weights."""
        ...
