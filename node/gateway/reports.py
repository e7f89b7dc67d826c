"""The `dslm` fields of answers and of their chunks, as JSON shapes, and how events become them.

Knows the coordinator's values; must not know any endpoint's shape or when a field is sent.
"""

from collections.abc import Sequence

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from coordinator.answer import (
    Activity,
    Evidence,
    Handed,
    MemoryUse,
    OtherAnswer,
    Share,
    StepEnded,
    StepStarted,
)
from coordinator.routing.plan import Plan


class ShareReport(Struct, frozen=True):
    """What one peer contributed."""

    peer: str
    tokens: int


class PlannedStep(Struct, frozen=True):
    """One step of a plan; `after` are indices of steps, `prompt` is empty for the whole prompt."""

    specialist: str
    prompt: str
    after: tuple[int, ...]
    alternatives: tuple[str, ...]


class PlanReport(Struct, frozen=True):
    """What the router decided, and why; `scores` fall, `margin` is between the two best.

    `fit` is the probability that any specialist fits, `chain` that the prompt has several owners.
    """

    kind: str
    why: str
    margin: float
    scores: dict[str, float]
    steps: tuple[PlannedStep, ...]
    fit: float | UnsetType = UNSET
    chain: float | UnsetType = UNSET


class EvidenceReport(Struct, frozen=True):
    """How sure a specialist was: means over its tokens, in nats. Under `floor` it is doubted.

    Where the plain base was asked, `gain` is how much likelier than the base it found its first
    words; then that decides, under `gain_floor`.
    """

    logprob: float
    margin: float
    tokens: int
    floor: float
    gain: float | UnsetType = UNSET
    gain_floor: float | UnsetType = UNSET


class OtherReport(Struct, frozen=True):
    """Who else tried a step, and why that was not kept."""

    specialist: str
    why: str
    tokens: int
    evidence: EvidenceReport | None


class MemoryReport(Struct, frozen=True):
    """What a step was told of earlier ones, and what of its prompt it did not have to read.

    `dropped` characters of what was said did not fit. Keys and values of `pages_reused` pages were
    there, `pages_fetched` of them came from another peer, in `bytes_fetched` bytes.
    """

    steps: tuple[int, ...]
    characters: int
    dropped: int
    pages_at: str | None
    pages_reused: int
    pages_fetched: int
    bytes_fetched: int


class StepReport(Struct, frozen=True):
    """What became of one step; `error` is null if it was whole, else a sentence."""

    step: int
    specialist: str
    prompt: str
    peers: tuple[ShareReport, ...]
    tokens: int
    prompt_tokens: int
    first_token_ms: float
    seconds: float
    evidence: EvidenceReport | None
    memory: MemoryReport
    others: tuple[OtherReport, ...]
    error: str | None
    text: str
    """What it said."""


class ActivityReport(Struct, frozen=True):
    """What an answer set to work, out of what this node knew of."""

    specialists: tuple[str, ...]
    specialists_known: int
    parameters: int
    parameters_known: int
    peers: tuple[str, ...]
    bytes_sent: int
    bytes_received: int
    bytes_of_pages: int


class Report(Struct, frozen=True):
    """The `dslm` field of an answer: who answered, why they were chosen, and how fast it went.

    `resumed` counts the times that another peer carried the answer on. `tokens_per_second` leaves
    the first token out, and is null for answers of fewer than two. `plan` is there if the router
    made one, `steps` if several specialists were asked. Of several choices it is the first's, and
    `choices` has those of all.
    """

    specialist: str
    peers: tuple[ShareReport, ...]
    why: str
    first_token_ms: float
    tokens_per_second: float | None
    resumed: int
    seed: int
    token_ids: tuple[int, ...] | UnsetType = UNSET
    plan: PlanReport | UnsetType = UNSET
    steps: tuple[StepReport, ...] | UnsetType = UNSET
    activity: ActivityReport | UnsetType = UNSET
    choices: "tuple[Report, ...] | UnsetType" = UNSET


class Mark(Struct, frozen=True, omit_defaults=True):
    """The `dslm` field of a chunk of an answer by several: whose words these are.

    A `heading` is nobody's: it says who speaks next, or why somebody fell silent.
    """

    step: int | UnsetType = UNSET
    specialist: str | UnsetType = UNSET
    heading: bool = False


def plan_report(plan: Plan) -> PlanReport:
    """`plan` for clients."""
    return PlanReport(
        kind=plan.kind,
        why=plan.why,
        margin=round(plan.margin, 4),
        scores={str(score.specialist): round(score.score, 4) for score in plan.scores},
        steps=tuple(
            PlannedStep(step.specialist, step.prompt, step.after, step.alternatives)
            for step in plan.steps
        ),
        fit=UNSET if plan.fit is None else round(plan.fit, 4),
        chain=UNSET if plan.chain is None else round(plan.chain, 4),
    )


def share_reports(shares: Sequence[Share]) -> tuple[ShareReport, ...]:
    """`shares` for clients."""
    return tuple(ShareReport(share.peer, share.tokens) for share in shares)


def step_report(
    ended: StepEnded, started: StepStarted | None, prompt: str, text: str
) -> StepReport:
    """One step for clients; `started` is None if nobody ever spoke."""
    return StepReport(
        step=ended.index,
        specialist=ended.specialist,
        prompt=prompt,
        peers=share_reports(ended.shares),
        tokens=ended.tokens,
        prompt_tokens=ended.prompt_tokens,
        first_token_ms=round(ended.first_token_seconds * 1_000, 1),
        seconds=round(ended.seconds, 3),
        evidence=_evidence(ended.evidence),
        memory=_memory(started.handed if started else Handed(), ended.memory),
        others=tuple(map(_other, ended.others)),
        error=ended.error or None,
        text=text,
    )


def activity_report(activity: Activity) -> ActivityReport:
    """`activity` for clients."""
    return ActivityReport(
        specialists=activity.specialists,
        specialists_known=activity.specialists_known,
        parameters=activity.parameters,
        parameters_known=activity.parameters_known,
        peers=activity.peers,
        bytes_sent=activity.bytes_sent,
        bytes_received=activity.bytes_received,
        bytes_of_pages=activity.bytes_of_pages,
    )


def _evidence(found: Evidence | None) -> EvidenceReport | None:
    if found is None:
        return None
    report = EvidenceReport(
        round(found.logprob, 4), round(found.margin, 4), found.tokens, round(found.floor, 4)
    )
    if found.gain is None:
        return report
    return replace(report, gain=round(found.gain, 4), gain_floor=found.gain_floor)


def _other(other: OtherAnswer) -> OtherReport:
    return OtherReport(other.specialist, other.why, other.tokens, _evidence(other.evidence))


def _memory(handed: Handed, use: MemoryUse) -> MemoryReport:
    return MemoryReport(
        steps=handed.steps,
        characters=handed.characters,
        dropped=handed.dropped,
        pages_at=handed.pages_at,
        pages_reused=use.pages_reused,
        pages_fetched=use.pages_fetched,
        bytes_fetched=use.bytes_fetched,
    )
