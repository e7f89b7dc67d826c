"""Writes the reference of the command line from the commands themselves.

Knows how Typer prints help; the text is the verbs' own.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import typer
from typer.testing import CliRunner

from node.cli.app import make_app
from node.config import environment

_HEAD = """\
# Command line

Generated from the commands by `scripts/fix`; `scripts/check` compares it. Exit codes: 0 done,
1 failed, 2 usage, 3 the node is not running, 4 unknown model, peer or swarm, 5 no peer or
capacity is reachable, 6 refused, 7 timed out, 130 Ctrl-C. Errors are one line on stderr,
`error: ...`.
"""
_VARIABLES = {"COLUMNS": "96", "TERMINAL_WIDTH": "96", "NO_COLOR": "1"}


def reference() -> str:
    """The whole page."""
    app = make_app()
    runner = CliRunner(env={**environment(), **_VARIABLES})
    sections = [_HEAD]
    for call in _calls(app):
        shown = runner.invoke(app, [*call, "--help"], prog_name="dslm").output.rstrip()
        title = " ".join(["dslm", *call])
        body = "\n".join(line.rstrip() for line in shown.splitlines())
        sections.append(f"## {title}\n\n```\n{body}\n```\n")
    return "\n".join(sections)


def _calls(app: typer.Typer) -> Iterator[list[str]]:
    """The words that lead to each page of help: verbs, then groups with theirs."""
    yield []
    for command in app.registered_commands:
        yield [command.name or ""]
    for group in app.registered_groups:
        yield [group.name or ""]
        if group.typer_instance is not None:
            for call in group.typer_instance.registered_commands:
                yield [group.name or "", call.name or ""]


def main() -> int:
    """Write the page to the file named by the only argument."""
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python -m node.cli.reference FILE\n")
        return 2
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
