"""`dslm stats`: what the answers asked here have set to work, and what that was out of.

Knows the node's sums; must not know how they came about.
"""

from node.cli.output import show, show_json, show_table, table_lines, tell
from node.cli.verb import Invocation, verb
from node.quantities import format_count, format_size
from node.work_state import StatsState

EPILOG = """\b
Examples:
  dslm stats
  dslm stats --json
"""


@verb
def stats(invocation: Invocation) -> None:
    """Sum up all answers asked at this node since it started: who worked, out of how many."""
    state = invocation.client().get("/api/v1/stats", StatsState)
    if invocation.json:
        show_json(state)
        return
    if not state.answers and not state.failed:
        tell('nothing has been asked here yet; dslm run auto "..." does')
        return
    for line in table_lines(summary(state)):
        show(f"  {line}")
    rows = [
        (
            work.id,
            str(work.answers),
            str(work.failed),
            str(work.doubted),
            str(work.tokens),
            f"{work.seconds:.1f} s",
        )
        for work in state.by_specialist
    ]
    show_table(("SPECIALIST", "ANSWERS", "FAILED", "DOUBTED", "TOKENS", "TIME"), rows)


def summary(state: StatsState) -> list[tuple[str, str]]:
    """The sums, a name and a value in each row."""
    plans = ", ".join(f"{count} {kind}" for kind, count in state.plans.items()) or "none"
    answers = max(1, state.answers)
    moved = f"{format_size(state.bytes_sent)} sent, {format_size(state.bytes_received)} received"
    if state.bytes_of_pages:
        moved += f", {format_size(state.bytes_of_pages)} of pages between peers"
    return [
        ("answers", f"{state.answers} whole, {state.failed} failed, {state.tokens} tokens"),
        ("plans", plans),
        ("steps", f"{state.steps}, carried on by another peer {state.resumed} times"),
        (
            "specialists",
            f"{state.specialists / answers:.2f} of {state.specialists_known / answers:.1f} known "
            "worked on an answer",
        ),
        (
            "parameters",
            f"{format_count(round(state.parameters / answers))} of "
            f"{format_count(round(state.parameters_known / answers))} known",
        ),
        ("peers", f"{state.peers / answers:.2f} contacted for an answer"),
        ("moved", moved),
    ]
