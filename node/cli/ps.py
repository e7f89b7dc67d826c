"""`dslm ps`: the models that this node holds in memory.

Knows one table; the numbers are the node's.
"""

from collections.abc import Iterator, Sequence

from node.cli.output import show_json, show_table, tell
from node.cli.verb import Invocation, verb
from node.quantities import format_size
from node.state import HostedState, NodeState

EPILOG = """\b
Examples:
  dslm ps
  dslm ps --json
"""


@verb
def ps(invocation: Invocation) -> None:
    """List the models that this node holds in memory; a base counts once, with its first."""
    state = invocation.client().get("/api/v1/state", NodeState)
    if invocation.json:
        show_json({"schema_version": state.schema_version, "models": state.hosted})
        return
    if not state.hosted:
        tell("this node hosts nothing; `dslm up --model smollm2` does")
        return
    rows = [
        (
            model.id,
            model.model_digest[:12],
            format_size(size),
            f"{state.device.kind} {model.precision}",
            str(model.context_length),
            f"{model.running}/{model.slots}",
            str(model.waiting),
        )
        for model, size in zip(state.hosted, sizes(state.hosted), strict=True)
    ]
    show_table(("NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "RUNNING", "WAITING"), rows)


def sizes(hosted: Sequence[HostedState]) -> Iterator[int]:
    """What each takes besides those before it: who shares a base with one of them, its own part."""
    seen: set[str] = set()
    for model in hosted:
        yield model.own if model.copy and model.copy in seen else model.size
        seen.add(model.copy)
