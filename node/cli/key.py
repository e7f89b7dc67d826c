"""`dslm key`: the API keys of this node.

Knows how keys are told to people; `node.gateway.keys` keeps their hashes.
"""

from typing import TYPE_CHECKING, Annotated

import typer

from node.cli.output import show, show_json, show_table, tell
from node.cli.verb import Invocation, verb
from node.state import SCHEMA_VERSION

if TYPE_CHECKING:
    from node.gateway.keys import KeyFile

EPILOG = """\b
Examples:
  dslm key create laptop      prints the key, this once
  dslm key ls
  dslm key remove laptop      void at once, also for a running node

\b
Keys are needed as soon as the API listens beyond loopback (api.listen), is called by other names
(api.hosts), or api.require_key is set. Programs send one as `Authorization: Bearer KEY`, `dslm`
commands take it from DSLM_API_KEY. No key lets anybody change the node or its swarms.
"""
NameArgument = Annotated[str, typer.Argument(help="What or whom the key is for.")]

app = typer.Typer(
    help="Make, list and remove API keys.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("create", epilog="\b\nExamples:\n  dslm key create laptop\n  dslm key create ci -q")
@verb
def create(invocation: Invocation, name: NameArgument) -> None:
    """Make a key and print it; only its hash is kept, so it is shown this once."""
    secret = _keys(invocation).create(name)
    if invocation.json:
        show_json({"schema_version": SCHEMA_VERSION, "name": name, "key": secret})
        return
    show(secret)
    if not invocation.quiet:
        tell("it is shown this once; use it as `Authorization: Bearer KEY` or in DSLM_API_KEY")


@app.command("ls", epilog="\b\nExamples:\n  dslm key ls\n  dslm key ls --json")
@verb
def list_keys(invocation: Invocation) -> None:
    """List the keys; none can be shown again."""
    records = _keys(invocation).records()
    if invocation.json:
        rows = [{"name": one.name, "created": one.created} for one in records]
        show_json({"schema_version": SCHEMA_VERSION, "keys": rows})
        return
    if not records:
        tell("there are no keys; `dslm key create NAME` makes one")
        return
    rows_shown = [(one.name, f"{one.created.astimezone():%Y-%m-%d %H:%M}") for one in records]
    show_table(("NAME", "CREATED"), rows_shown)


@app.command("remove", epilog="\b\nExamples:\n  dslm key remove laptop")
@verb
def remove(invocation: Invocation, name: NameArgument) -> None:
    """Make a key void at once."""
    _keys(invocation).remove(name)
    if invocation.json:
        show_json({"schema_version": SCHEMA_VERSION, "removed": name})
    elif not invocation.quiet:
        tell(f"removed {name}")


def _keys(invocation: Invocation) -> "KeyFile":
    from node.gateway.keys import KeyFile

    return KeyFile(invocation.load().config.paths.api_keys_file)
