"""What a client of the coordinator asks for and what it gets back, as values.

Knows no transport and no HTTP; the gateway and the CLI translate these for people and programs.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from protocols.ids import PeerId, RequestId, SpecialistId
from protocols.messages.ask import Constraint, Likelihood, Prompt, Sampling

AUTO = "auto"
"""The model name that lets the router choose."""


class Route(StrEnum):
    """Which peers may see the prompt."""

    ANY = "any"
    TRUSTED = "trusted"
    """Members of a private swarm; in a public one this node and the peers that its owner named."""
    LOCAL = "local"


@dataclass(frozen=True, slots=True)
class AnswerRequest:
    """One prompt. `budget` is seconds for the whole answer; `max_tokens` 0 means all that fit."""

    request_id: RequestId
    model: str
    prompt: Prompt
    sampling: Sampling
    max_tokens: int
    budget: float
    stop: tuple[str, ...] = ()
    route: Route = Route.ANY
    node: PeerId | None = None
    """Ask this peer only."""
    swarm: str | None = None
    """Name of the swarm to ask in; None means the current one."""
    constraint: Constraint | None = None
    tenant: str = ""
    """For whom this node asks, by a name that means nothing to others."""
    memory_at: PeerId | None = None
    """Who has read the beginning of the prompt with the same base, in an earlier step."""
    memory_ticket: str = ""
    """One for all steps of a task (`coordinator.memory`); empty: nobody may fetch the memory."""


@dataclass(frozen=True, slots=True)
class Score:
    """How near a prompt lies to a card, cosine in [-1, 1]."""

    specialist: SpecialistId
    score: float


@dataclass(frozen=True, slots=True)
class Routed:
    """First event: who is going to answer and why (`why` is a sentence for people)."""

    specialist: SpecialistId
    peer: PeerId
    why: str
    scores: tuple[Score, ...] = ()
    second_choice: PeerId | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """No token yet, but the peer lives. `ahead` counts requests before this one."""

    peer: PeerId
    phase: Literal["queued", "prefill"]
    ahead: int = 0


@dataclass(frozen=True, slots=True)
class Delta:
    """More of the answer: ids at `position` and on, and the text they add (may be empty).

    `logprobs` has one entry for each id if the request asked for them.
    """

    peer: PeerId
    position: int
    ids: tuple[int, ...]
    text: str
    logprobs: tuple[Likelihood, ...] = ()


@dataclass(frozen=True, slots=True)
class Resumed:
    """Another peer carries the answer on from `position`; `reason` is an error code."""

    from_peer: PeerId
    to_peer: PeerId
    position: int
    reason: str


@dataclass(frozen=True, slots=True)
class Share:
    """What one peer contributed to an answer."""

    peer: PeerId
    tokens: int


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """What the peer that ended an answer did not have to compute of the prompt, in pages.

    `pages_fetched` of the `pages_reused` came from another peer, in `bytes_fetched` bytes.
    """

    pages_reused: int = 0
    pages_fetched: int = 0
    bytes_fetched: int = 0


@dataclass(frozen=True, slots=True)
class Completed:
    """Last event of a complete answer. `text` is what was held back; times are in seconds."""

    specialist: SpecialistId
    reason: Literal["stop", "length"]
    text: str
    prompt_tokens: int
    completion_tokens: int
    first_token_seconds: float
    total_seconds: float
    shares: tuple[Share, ...] = field(default=())
    memory: MemoryUse = MemoryUse()


AnswerEvent = Routed | Waiting | Delta | Resumed | Completed
