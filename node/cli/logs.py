"""`dslm logs`: what a node in the background wrote.

Knows one file; must not know what is in it.
"""

import time
from pathlib import Path
from typing import Annotated

import typer

from node.cli.output import show, show_json
from node.cli.verb import Invocation, verb
from node.process import tail
from node.state import SCHEMA_VERSION
from protocols.errors import UserError

EPILOG = """\b
Examples:
  dslm logs
  dslm logs -f
  dslm logs -n 200
"""
_POLL_SECONDS = 0.2


@verb
def logs(
    invocation: Invocation,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many lines.")] = 50,
) -> None:
    """Print the end of the log of the node that `dslm up` started."""
    path = invocation.load().config.paths.log_file
    if not path.is_file():
        raise UserError(f"there is no log at {path}: `dslm up` has not been used with this home")
    if invocation.json:
        last = tail(path, lines)
        show_json({"schema_version": SCHEMA_VERSION, "path": str(path), "lines": last})
        return
    offset = path.stat().st_size
    for line in tail(path, lines):
        show(line)
    if follow:
        _follow(path, offset)


def _follow(path: Path, offset: int) -> None:
    """Print whole lines as they come; a log that was set aside is read anew."""
    while True:
        size = path.stat().st_size if path.exists() else 0
        offset = min(offset, size) if size >= offset else 0
        if size > offset:
            with path.open("rb") as file:
                file.seek(offset)
                data = file.read(size - offset)
            whole = data[: data.rfind(b"\n") + 1]
            for line in whole.decode("utf-8", errors="replace").splitlines():
                show(line)
            offset += len(whole)
        time.sleep(_POLL_SECONDS)
