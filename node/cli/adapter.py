"""`dslm adapter`: specialists that come and go while the node runs.

Knows how they are told to people; the node loads them itself.
"""

from pathlib import Path
from typing import Annotated

import typer
from msgspec import Struct

from node.adapter_state import AdapterOrder, AdaptersState, AdapterState
from node.cli.exits import UsageError
from node.cli.output import show_json, show_table, tell
from node.cli.verb import Invocation, verb
from node.quantities import format_size
from node.shipped import shipped_specialists

EPILOG = """\b
Examples:
  dslm adapter add law
  dslm adapter add ./tax-adapter --id lab/tax
  dslm adapter ls
  dslm adapter remove lab/tax

\b
Requests go on meanwhile. What is added is there until the node ends; [[models]] in the settings
names what it starts with.
"""
_ADD_EPILOG = """\b
Examples:
  dslm adapter add law
  dslm adapter add ./tax-adapter --id lab/tax
  dslm adapter add ./tax-adapter --base smollm2 --domain law/tax
"""
_PATH = "/api/v1/adapters"
_SECONDS_MAX = 120.0
"""Reading an adapter and encoding its examples, or waiting for those who still have it."""

app = typer.Typer(
    help="Load, list and unload adapters on a running node.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
)


class _Name(Struct, frozen=True):
    id: str


@app.command("add", epilog=_ADD_EPILOG)
@verb
def add(
    invocation: Invocation,
    adapter: Annotated[str, typer.Argument(help="An adapter's folder, or a shipped specialist.")],
    id_: Annotated[str, typer.Option("--id", help="Its name; by default its own.")] = "",
    base: Annotated[str, typer.Option("--base", help="The model here that it is for.")] = "",
    domain: Annotated[
        list[str], typer.Option("--domain", help="What it is for; by default what its card says.")
    ] = [],  # noqa: B006  (never changed)
) -> None:
    """Load an adapter, and offer it to the swarm."""
    order = _order(adapter, AdapterOrder(adapter, id_, base, tuple(domain)))
    before = {one.id for one in _adapters(invocation).adapters}
    state = invocation.client(_SECONDS_MAX).post(_PATH, order, AdaptersState)
    if invocation.json:
        show_json(state)
    elif not invocation.quiet:
        for one in state.adapters:
            if one.id not in before:
                tell(f"hosting {one.id} on {one.base}: dslm run {one.id} PROMPT")


@app.command("ls", epilog="\b\nExamples:\n  dslm adapter ls\n  dslm adapter ls --json")
@verb
def list_adapters(invocation: Invocation) -> None:
    """List the adapters of the running node."""
    state = _adapters(invocation)
    if invocation.json:
        show_json(state)
    elif not state.adapters:
        tell("no adapters here; `dslm adapter add FOLDER` loads one")
    else:
        titles = ("SPECIALIST", "BASE", "KIND", "SIZE", "DOMAINS")
        show_table(titles, [_row(one) for one in state.adapters])


@app.command("remove", epilog="\b\nExamples:\n  dslm adapter remove lab/tax")
@verb
def remove(
    invocation: Invocation,
    name: Annotated[str, typer.Argument(help="The specialist, as `dslm adapter ls` names it.")],
) -> None:
    """Offer a specialist no more; requests that are queued or in progress end first."""
    state = invocation.client(_SECONDS_MAX).post(f"{_PATH}/remove", _Name(name), AdaptersState)
    if invocation.json:
        show_json(state)
    elif not invocation.quiet:
        tell(f"removed {name}")


def _adapters(invocation: Invocation) -> AdaptersState:
    return invocation.client().get(_PATH, AdaptersState)


def _order(text: str, order: AdapterOrder) -> AdapterOrder:
    """With the folder in full: the node may run elsewhere. `UsageError` if there is none."""
    folder = Path(text).expanduser()
    if folder.is_dir():
        return AdapterOrder(str(folder.resolve()), order.id, order.base, order.domains)
    shipped = {one.name: one for one in shipped_specialists()}
    if text not in shipped:
        names = ", ".join(shipped) or "none"
        raise UsageError(f"{text} is no folder, and no specialist that ships ({names})")
    found = shipped[text]
    domains = order.domains or found.domains
    return AdapterOrder(str(found.adapter), order.id or found.name, order.base, domains)


def _row(one: AdapterState) -> tuple[str, ...]:
    kind = "activated" if one.is_activated else "ordinary"
    return (one.id, one.base, kind, format_size(one.size), ", ".join(one.domains))
