"""What an engine is to the rest of the node: requests in, numbered tokens out, one step at a time.

Knows no torch; `node.engine.torch_engine` and `node.engine.fake` implement it, and
`node.engine.loop` owns the thread that calls `step`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from protocols.messages.ask import Sampling

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One generation.

    `delivered` are ids of the answer that exist already: they are fed like the prompt, and the
    first token made here has position `len(delivered)`. `max_tokens` counts the whole answer.
    Generation ends before a token in `stop_ids`, which is not emitted. `client` names who asks, or
    is empty for the node itself: clients share the engine evenly, and none can tell from the time
    an answer takes what another one asked.
    """

    request_id: str
    prompt: tuple[int, ...]
    max_tokens: int
    sampling: Sampling
    stop_ids: frozenset[int]
    delivered: tuple[int, ...] = ()
    client: str = ""


@dataclass(frozen=True, slots=True)
class Generated:
    """A token of a request; `position` counts from 0 over the whole answer."""

    request_id: str
    position: int
    token_id: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The last word on a request that was not cancelled."""

    request_id: str
    reason: FinishReason


StepOutput = Generated | Ended


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """A snapshot: requests and pages now; tokens and preemptions since start.

    `prompt_tokens` counts each token that was given once, found in the cache or computed;
    `prefix_hit_tokens` those that were not computed because the cache had them, also when a
    preempted request came back. Pages hold `cache_tokens_total / pages_total` tokens each:
    `pages_used` by running requests, `pages_cached` kept for those that may come.
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


class Engine(Protocol):
    """Synchronous and used from one thread only."""

    @property
    def context_length(self) -> int:
        """The most tokens, prompt and answer together, that one request can have."""
        ...

    def submit(self, request: EngineRequest) -> None:
        """Queue a request; `TooLong` if prompt and `max_tokens` cannot fit the context."""
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
