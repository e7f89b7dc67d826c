"""`dslm ps`: the models that this node holds in memory.

Knows one table; the numbers are the node's.
"""

from node.cli.output import show_json, show_table, tell
from node.cli.verb import Invocation, verb
from node.quantities import format_size
from node.state import NodeState

EPILOG = """\b
Examples:
  dslm ps
  dslm ps --json
"""


@verb
def ps(invocation: Invocation) -> None:
    """List the models that this node holds in memory."""
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
            format_size(model.size),
            f"{state.device.kind} {model.precision}",
            str(model.context_length),
            f"{model.running}/{model.slots}",
            str(model.waiting),
        )
        for model in state.hosted
    ]
    show_table(("NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "RUNNING", "WAITING"), rows)
