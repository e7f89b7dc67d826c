"""`dslm down`: stop the node of this home.

Knows what to tell; `node.process` does it.
"""

import typer

from node.cli.exits import Exit
from node.cli.output import show_json, tell
from node.cli.verb import Invocation, verb
from node.process import STOP_SECONDS, find, stop
from node.state import SCHEMA_VERSION

EPILOG = """\b
Examples:
  dslm down
  dslm down --home /srv/dslm
"""


@verb
def down(invocation: Invocation) -> None:
    """Stop the node: running answers may end, then it goes. Exits with 3 if none runs."""
    pid_file = invocation.load().config.paths.pid_file
    running = find(pid_file)
    if running is None:
        tell("error: the node is not running")
        raise typer.Exit(Exit.NOT_RUNNING)
    if not invocation.quiet:
        tell(f"stopping pid {running.pid} ...")
    was_killed = stop(pid_file)
    if was_killed:
        tell(f"it did not stop within {STOP_SECONDS:g} s and was killed; `dslm logs` may tell why")
    elif not invocation.quiet:
        tell("stopped")
    if invocation.json:
        report = {"schema_version": SCHEMA_VERSION, "pid": running.pid, "killed": was_killed}
        show_json(report)
