"""What a client of the coordinator asks for and what it gets back, as values.

Knows no transport and no HTTP; the gateway and the CLI translate these for people and programs.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from coordinator.routing.plan import Plan
from coordinator.routing.plan import Score as Score  # noqa: PLC0414 - part of these values too
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


class Planning(StrEnum):
    """How many specialists may work on a prompt whose model is `auto`."""

    AUTO = "auto"
    """As many as the router plans."""
    SINGLE = "single"
    """One."""


class Quality(StrEnum):
    """What an answer may cost."""

    NORMAL = "normal"
    BEST = "best"
    """Two specialists may answer the same prompt, and a doubtful answer is tried again."""


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
    planning: Planning = Planning.AUTO
    quality: Quality = Quality.NORMAL


@dataclass(frozen=True, slots=True)
class Routed:
    """First event: who is going to answer and why (`why` is a sentence for people)."""

    specialist: SpecialistId
    peer: PeerId
    why: str
    scores: tuple[Score, ...] = ()
    second_choice: PeerId | None = None
    plan: Plan | None = None
    """How this came about, where the router decided and not the client."""

    @property
    def way(self) -> str:
        """How it was decided who answers: the plan's kind, `named` if by the client, `single` if
        the plan had more steps than the client wanted.
        """
        if self.plan is None:
            return "named"
        return self.plan.kind if len(self.plan.steps) == 1 else "single"


@dataclass(frozen=True, slots=True)
class Planned:
    """First event of an answer that several specialists work on."""

    plan: Plan


@dataclass(frozen=True, slots=True)
class Evidence:
    """How sure a specialist was of its own words: means over `tokens` tokens, in nats.

    `logprob` is that of what it said, `margin` how much likelier that was than the next best.
    Under `floor` its word is doubted. Where the plain base was asked too, `gain` says how much
    likelier than the base the specialist found its first words; then that is what counts, and
    `gain_floor` the bound.
    """

    logprob: float
    margin: float
    tokens: int
    floor: float
    gain: float | None = None
    gain_floor: float = 0.0

    @property
    def is_low(self) -> bool:
        """Whether another specialist should have a try."""
        if self.gain is not None:
            return self.gain < self.gain_floor
        return self.logprob < self.floor


@dataclass(frozen=True, slots=True)
class Handed:
    """The memory that a step was given: what the steps `steps` said, in this order.

    `dropped` of their characters were left out because there was no room. `pages_at` is who has
    keys and values of the beginning that this step may use.
    """

    steps: tuple[int, ...] = ()
    characters: int = 0
    dropped: int = 0
    pages_at: PeerId | None = None


@dataclass(frozen=True, slots=True)
class StepStarted:
    """From here on `specialist` speaks, at `peer`. `prompt` is its sub-prompt."""

    index: int
    specialist: SpecialistId
    peer: PeerId
    prompt: str
    handed: Handed = Handed()


@dataclass(frozen=True, slots=True)
class Waiting:
    """No token yet, but the peer lives. `ahead` counts requests before this one."""

    peer: PeerId
    phase: Literal["queued", "prefill"]
    ahead: int = 0


@dataclass(frozen=True, slots=True)
class Delta:
    """More of the answer: ids at `position` and on, and the text they add (may be empty).

    `logprobs` has one entry for each id if the request asked for them. Positions count within
    the `step`.
    """

    peer: PeerId
    position: int
    ids: tuple[int, ...]
    text: str
    logprobs: tuple[Likelihood, ...] = ()
    step: int = 0


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
class OtherAnswer:
    """A specialist that was asked in a step, but whose answer was not kept, and why."""

    specialist: SpecialistId
    why: str
    tokens: int = 0
    evidence: Evidence | None = None


@dataclass(frozen=True, slots=True)
class StepEnded:
    """A step is over; after an `error` (a sentence) what it had said by then stands.

    Times are in seconds: `first_token_seconds` and `seconds` since the step began. `specialist` is
    who spoke, or who should have; `prompt_tokens` is 0 if that is not known.
    """

    index: int
    specialist: SpecialistId
    evidence: Evidence | None
    seconds: float
    tokens: int
    error: str = ""
    first_token_seconds: float = 0.0
    prompt_tokens: int = 0
    shares: tuple[Share, ...] = ()
    others: tuple[OtherAnswer, ...] = ()
    memory: MemoryUse = MemoryUse()


@dataclass(frozen=True, slots=True)
class Activity:
    """What an answer set to work, out of what could have been asked; `parameters` in numbers.

    A base counts once however many of its adapters worked. `bytes_sent` and `bytes_received` were
    exchanged with other peers for this answer, as messages, before encryption; `bytes_of_pages` is
    what those peers fetched from each other.
    """

    specialists: tuple[SpecialistId, ...] = ()
    specialists_known: int = 0
    parameters: int = 0
    parameters_known: int = 0
    peers: tuple[PeerId, ...] = ()
    bytes_sent: int = 0
    bytes_received: int = 0
    bytes_of_pages: int = 0


@dataclass(frozen=True, slots=True)
class Completed:
    """Last event of a complete answer. `text` is what was held back; times are in seconds.

    Of several steps, counts are sums; `specialist` and `reason` are those of the last that spoke.
    """

    specialist: SpecialistId
    reason: Literal["stop", "length"]
    text: str
    prompt_tokens: int
    completion_tokens: int
    first_token_seconds: float
    total_seconds: float
    shares: tuple[Share, ...] = field(default=())
    memory: MemoryUse = MemoryUse()
    activity: Activity | None = None


AnswerEvent = Routed | Planned | Waiting | StepStarted | Delta | Resumed | StepEnded | Completed
