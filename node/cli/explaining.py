"""Plans and steps as lines for people.

Knows the API's shapes of a plan and of what became of it; must not know where the lines are shown.
"""

from node.cli.answering import Plan, Report, StepReport
from node.cli.output import table_lines
from node.quantities import format_count, format_size

_PROMPT_SHOWN = 60
_SCORES_SHOWN = 8


def plan_lines(plan: Plan) -> list[str]:
    """What the router decided, and the scores that it came from."""
    rows = []
    for number, step in enumerate(plan.steps, start=1):
        after = ", ".join(str(index + 1) for index in step.after)
        asked = _short(step.prompt) if step.prompt else "the whole prompt"
        others = f"else {', '.join(step.alternatives)}" if step.alternatives else ""
        rows.append(
            (f"  {number}", step.specialist, f"after {after}" if after else "", asked, others)
        )
    lines = [f"plan: {plan.kind}. {plan.why} (margin {plan.margin:.3f})"]
    lines += table_lines(rows) if rows else []
    ranked = sorted(plan.scores.items(), key=lambda item: -item[1])
    if ranked:
        shown = ", ".join(f"{name} {score:.3f}" for name, score in ranked[:_SCORES_SHOWN])
        more = len(ranked) - _SCORES_SHOWN
        lines.append(f"scores: {shown}" + (f" and {more} more" if more > 0 else ""))
    chances = [
        f"{said} {chance:.2f}"
        for said, chance in (
            ("any specialist fits", plan.fit),
            ("parts for several", plan.chain),
        )
        if chance is not None
    ]
    return [*lines, f"probabilities: {', '.join(chances)}"] if chances else lines


def report_lines(report: Report) -> list[str]:
    """What became of each step, and what was set to work."""
    lines = [_step_line(step) for step in report.steps]
    done = report.activity
    if done is not None:
        lines.append(
            f"at work: {len(done.specialists)} of {done.specialists_known} specialists, "
            f"{format_count(done.parameters)} of {format_count(done.parameters_known)} parameters, "
            f"{len(done.peers)} peers, {format_size(done.bytes_sent + done.bytes_received)} moved"
        )
    return lines


def _step_line(step: StepReport) -> str:
    parts = [
        f"step {step.step + 1}: {step.specialist}, {step.tokens} tokens in {step.seconds:.2f} s"
    ]
    if step.evidence is not None:
        parts.append(f"{step.evidence.logprob:.2f} nats a token, margin {step.evidence.margin:.2f}")
        if step.evidence.gain is not None:
            parts.append(f"likelier than to the base by {step.evidence.gain:.2f}")
    if step.memory.steps:
        told = ", ".join(str(index + 1) for index in step.memory.steps)
        parts.append(f"read {step.memory.characters} characters of step {told}")
    parts += [f"not kept: {other.specialist} ({other.why})" for other in step.others]
    if step.error:
        parts.append(f"failed: {step.error}")
    return "; ".join(parts)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return f'"{line}"' if len(line) <= _PROMPT_SHOWN else f'"{line[: _PROMPT_SHOWN - 3]}..."'
