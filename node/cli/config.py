"""`dslm config`: the settings in force, and where each came from.

Knows how settings are told; `node.config_reader` reads them.
"""

from typing import Annotated

import typer

from node.cli.output import show, show_json, show_table
from node.cli.verb import Invocation, verb
from node.config_reader import Explained
from node.state import SCHEMA_VERSION

EPILOG = """\b
Examples:
  dslm config show --origin
  dslm config path
  dslm config env
"""

app = typer.Typer(
    help="Show the settings. Flags win over environment, user file, system file and defaults.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("show", epilog=EPILOG)
@verb
def show_settings(
    invocation: Invocation,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each came from.")] = False,
) -> None:
    """Print every setting in force."""
    rows = invocation.load().explained
    if invocation.json:
        show_json({"schema_version": SCHEMA_VERSION, "settings": rows})
        return
    titles = ("SETTING", "VALUE", "ORIGIN") if origin else ("SETTING", "VALUE")
    show_table(titles, [_row(one, with_origin=origin) for one in rows])


@app.command("path", epilog=EPILOG)
@verb
def show_paths(invocation: Invocation) -> None:
    """Print where the files of this node are."""
    paths = invocation.load().config.paths
    rows = {
        "config": str(paths.config_file),
        "data": str(paths.data),
        "identity": str(paths.identity_file),
        "log": str(paths.log_file),
        "pid": str(paths.pid_file),
        "models": str(paths.models),
    }
    if invocation.json:
        show_json({"schema_version": SCHEMA_VERSION, "paths": rows})
        return
    show_table(("WHAT", "WHERE"), list(rows.items()))


@app.command("env", epilog=EPILOG)
@verb
def show_variables(invocation: Invocation) -> None:
    """Print the environment variable of every setting, its value now and what it is for."""
    rows = invocation.load().explained
    if invocation.json:
        show_json({"schema_version": SCHEMA_VERSION, "settings": rows})
        return
    show_table(
        ("VARIABLE", "VALUE", "ORIGIN", "FOR"),
        [(one.variable, one.value, one.origin, one.about) for one in rows],
    )
    show("also DSLM_HOME (one folder for all), DSLM_CONFIG, DSLM_URL and DSLM_MODELS_DIR")


def _row(one: Explained, *, with_origin: bool) -> tuple[str, ...]:
    return (one.key, one.value, one.origin) if with_origin else (one.key, one.value)
