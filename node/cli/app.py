"""The `dslm` command: its verbs, and how every error becomes one line and an exit code.

Knows all verbs; must not know what they do.
"""

import logging
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Annotated

import typer

from node.cli import (
    adapter,
    card,
    chat,
    config,
    doctor,
    down,
    invite,
    join,
    key,
    logs,
    ls,
    peers,
    perplexity,
    ping,
    ps,
    pull,
    quickstart,
    route,
    run,
    serve,
    stats,
    status,
    swarm,
    up,
    version,
)
from node.cli.exits import Exit, advice_for, exit_of
from node.cli.output import show, tell
from protocols import versions
from protocols.errors import DslmError

_VERBS: Sequence[ModuleType] = (
    *(up, down, status, join, invite, chat, run, route, ls, ps, stats, peers, ping),
    *(pull, perplexity, serve, logs, doctor, quickstart, version),
)


def make_app() -> typer.Typer:
    """All verbs, in the order in which help shows them."""
    app = typer.Typer(
        name="dslm",
        help="A peer-to-peer network of specialised small language models.",
        epilog="\b\nStart with:\n  dslm up\n  dslm chat",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_accept_version)
    for module in _VERBS:
        name = module.__name__.rpartition(".")[2]
        app.command(name, epilog=module.EPILOG)(getattr(module, name))
    for group in (swarm, adapter, key, card, config):
        app.add_typer(group.app, name=group.__name__.rpartition(".")[2])
    return app


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        show(f"dslm {versions.SOFTWARE}")
        raise typer.Exit


def _accept_version(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """What people try first; `dslm version` tells more."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code. `arguments` are those of this process by default."""
    try:
        make_app()(args=None if arguments is None else list(arguments), prog_name="dslm")
    except DslmError as error:
        tell(f"error: {error}")
        if advice := advice_for(error):
            tell(f"  {advice}")
        return exit_of(error)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # Else Python complains while it flushes at the end.
        return Exit.FAILED
    except OSError as error:  # A full disk, a folder that cannot be written or is a file.
        logging.getLogger(__name__).debug("the system refused", exc_info=error)
        where = f"{error.filename}: " if error.filename else ""
        tell(
            f"error: {where}{error.strerror or error}. `dslm doctor` looks at folders and disk, "
            "`--home FOLDER` keeps all files elsewhere"
        )
        return Exit.FAILED
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else Exit.FAILED
    return Exit.OK
