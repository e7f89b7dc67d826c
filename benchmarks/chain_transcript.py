"""How chains went, as Markdown for people to read.

Knows what was seen of each answer; must not know how nodes are run.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from chain_prompts import Composite
from node.cli.answering import Answer, Note, Report, StepReport

Names = Mapping[str, str]
"""What each peer id is called."""


@dataclass
class Seen:
    """One answer as it came. Times are seconds since it was asked."""

    composite: Composite
    notes: list[tuple[float, Note]] = field(default_factory=list)
    events: list[tuple[float, str]] = field(default_factory=list)
    """What was done to the nodes meanwhile, in words."""
    names: dict[str, str] = field(default_factory=dict)
    answer: Answer | None = None
    error: str = ""
    seconds: float = 0.0

    @property
    def report(self) -> Report:
        """Who did what; empty if nothing came of it."""
        return self.answer.report if self.answer else Report()

    @property
    def steps(self) -> tuple[StepReport, ...]:
        """Those of a chain; none if one specialist answered alone."""
        return self.report.steps

    @property
    def specialists(self) -> tuple[str, ...]:
        """Who spoke, in order."""
        if self.steps:
            return tuple(step.specialist for step in self.steps if step.tokens)
        return (self.report.specialist,) if self.answer else ()

    @property
    def is_whole(self) -> bool:
        """Whether all of it was answered."""
        return self.answer is not None and not any(step.error for step in self.steps)


def section(title: str, seen: Sequence[Seen]) -> list[str]:
    """A heading and all answers under it."""
    lines = [f"### {title}", ""]
    for number, one in enumerate(seen, start=1):
        lines += entry(number, one)
    return lines


def struck_section(title: str, seen: Sequence[Seen], calm: Sequence[Seen]) -> list[str]:
    """A heading and what became of those answers in which a node died; `calm` is without that."""
    lines = [f"### {title}", ""]
    spared = [number for number, one in enumerate(seen, start=1) if not one.events]
    if spared:
        told = ", ".join(map(str, spared))
        lines += [f"Nobody was killed in {told}: there was no moment of that kind.", ""]
    for number, (one, before) in enumerate(zip(seen, calm, strict=True), start=1):
        if one.events:
            domains = " + ".join(one.composite.domains)
            lines += [f"#### {number}. {domains}", "", *_timeline(one), *_outcome(one, before)]
    return lines


def _outcome(seen: Seen, calm: Seen) -> list[str]:
    """Who said how much; the words only where they are other ones than in `calm`."""
    if seen.answer is None or calm.answer is None or seen.answer.text != calm.answer.text:
        return [*_words(seen), *_sums(seen)]
    spoken = "; ".join(f"{step.specialist} ({_shares(seen, step)})" for step in seen.steps)
    whole = "" if seen.is_whole else " It is not whole."
    same = f"The text is that of the undisturbed answer.{whole}"
    return [f"{spoken}. {same}" if spoken else same, "", *_sums(seen)]


def _shares(seen: Seen, step: StepReport) -> str:
    told = [f"{seen.names.get(one.peer, one.peer[-6:])} {one.tokens} tokens" for one in step.peers]
    return ", ".join(told) or "nobody"


def entry(number: int, seen: Seen) -> list[str]:
    """One answer: prompt, plan, what happened when, the words, the sums."""
    domains = " + ".join(seen.composite.domains)
    lines = [f"#### {number}. {domains}", "", *_quoted(seen.composite.text), ""]
    lines += _plan(seen)
    lines += _timeline(seen)
    lines += _words(seen)
    lines += _sums(seen)
    return lines


def _plan(seen: Seen) -> list[str]:
    plan = seen.report.plan
    if plan is None:
        return []
    lines = [f"*Plan* ({plan.kind}): {plan.why}", ""]
    if len(plan.steps) < 2:
        return lines
    lines += ["| step | specialist | after | sub-prompt |", "|---|---|---|---|"]
    for at, step in enumerate(plan.steps, start=1):
        after = ", ".join(str(index + 1) for index in step.after) or "-"
        lines.append(f"| {at} | {step.specialist} | {after} | {_cell(step.prompt)} |")
    return [*lines, ""]


def _timeline(seen: Seen) -> list[str]:
    told = [(at, _note(note, seen.names)) for at, note in seen.notes]
    rows = sorted((*[row for row in told if row[1]], *seen.events))
    if not rows:
        return []
    return [
        "| s | what happened |",
        "|---|---|",
        *(f"| {at:.2f} | {what} |" for at, what in rows),
        "",
    ]


def _note(note: Note, names: Names) -> str:
    peer = names.get(note.peer, note.peer[-6:])
    match note.phase:
        case "planned":
            return "the plan is made"
        case "routed":
            return f"{note.specialist} is asked at {peer}"
        case "step":
            return f"step {note.step + 1}: {note.specialist} answers at {peer}"
        case "step_ended":
            return f"step {note.step + 1} is over"
        case "resumed":
            to = names.get(note.to_peer, note.to_peer[-6:])
            return f"**{to} carries the answer on**"
        case _:
            return ""


def _words(seen: Seen) -> list[str]:
    if seen.answer is None:
        return [f"**Failed**: {seen.error}", ""]
    if not seen.steps:
        return [*_quoted(seen.answer.text), ""]
    lines: list[str] = []
    for step in seen.steps:
        lines += [f"**{step.specialist}** ({_shares(seen, step)}):", ""]
        lines += [*_quoted(step.text.strip() or "(nothing)"), ""]
        lines += [_step_facts(step), ""]
    return lines


def _step_facts(step: StepReport) -> str:
    facts = [f"{step.seconds:.2f} s, first token after {step.first_token_ms / 1000:.2f} s"]
    if step.evidence is not None:
        facts.append(
            f"{step.evidence.logprob:.2f} nats a token (doubted under {step.evidence.floor:.2f}), "
            f"margin {step.evidence.margin:.2f}"
        )
    memory = step.memory
    if memory.steps:
        told = ", ".join(str(index + 1) for index in memory.steps)
        pages = (
            "no pages on offer"
            if memory.pages_at is None
            else (
                f"{memory.pages_reused} pages used again, {memory.pages_fetched} of them fetched "
                f"({memory.bytes_fetched:,} bytes)"
            )
        )
        read = f"read {memory.characters} characters of step {told}"
        facts.append(f"{read} ({memory.dropped} left out); {pages}")
    facts += [f"also tried: {other.specialist} ({other.why})" for other in step.others]
    if step.error:
        facts.append(f"**failed: {step.error}**")
    return "*" + "; ".join(facts) + "*" if not step.error else "; ".join(facts)


def _sums(seen: Seen) -> list[str]:
    done = seen.report.activity
    if done is None:
        return []
    return [
        f"In all {seen.seconds:.2f} s; {len(done.specialists)} of {done.specialists_known} "
        f"specialists, {done.parameters / 1e6:.1f} of {done.parameters_known / 1e6:.1f} million "
        f"parameters, {len(done.peers)} peers, {done.bytes_sent + done.bytes_received:,} bytes.",
        "",
    ]


def _quoted(text: str) -> Iterable[str]:
    """As a block quote; so that code and lists in it cannot break out, as preformatted text."""
    return ["~~~text", *text.replace("~~~", "~ ~ ~").splitlines(), "~~~"]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|") or "(the whole prompt)"
