"""`dslm ls`: the specialists of the swarm, or the model files on this machine.

Knows two tables; must not know what a model is made of.
"""

from pathlib import Path
from typing import Annotated

import typer

from node.cli.output import show_json, show_table, tell
from node.cli.settings import SwarmFlag, in_swarm
from node.cli.verb import Invocation, verb
from node.quantities import format_size
from node.state import SCHEMA_VERSION, SpecialistsState

EPILOG = """\b
Examples:
  dslm ls                specialists that the swarm has, and how many peers host each
  dslm ls --files        model files on this machine; needs no running node
  dslm ls --json
"""
_MODEL_SUFFIXES = (".gguf", ".safetensors", ".onnx")


@verb
def ls(
    invocation: Invocation,
    files: Annotated[bool, typer.Option("--files", help="List files on this machine.")] = False,
    swarm: SwarmFlag = "",
) -> None:
    """List the specialists that can be asked."""
    if files:
        _show_files(invocation)
        return
    state = invocation.client().get(in_swarm("/api/v1/models", swarm), SpecialistsState)
    if invocation.json:
        show_json(state)
        return
    if not state.models:
        tell("no specialist is known yet: host one, or join a swarm with `dslm join INVITE`")
        return
    rows = [
        (
            one.id,
            str(len(one.peers)),
            "yes" if one.is_local else "no",
            ",".join(one.precisions),
            str(one.context_length),
            f"{one.parameters / 1e6:.0f} M",
            ",".join(one.domains) or ("base" if one.is_base else "-"),
            one.licence or "-",
        )
        for one in state.models
    ]
    titles = ("NAME", "PEERS", "HERE", "PRECISION", "CONTEXT", "PARAMETERS", "DOMAINS", "LICENCE")
    show_table(titles, rows)


def _show_files(invocation: Invocation) -> None:
    folder = invocation.load().config.paths.models
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in _MODEL_SUFFIXES and not path.relative_to(folder).parts[0].startswith(".")
    )
    if invocation.json:
        rows = [{"path": str(path), "size": path.stat().st_size} for path in found]
        show_json({"schema_version": SCHEMA_VERSION, "folder": str(folder), "files": rows})
        return
    if not found:
        tell(f"no model files in {folder}; `dslm pull smollm2` gets one")
        return
    show_table(("FILE", "SIZE"), [_file_row(path, folder) for path in found])


def _file_row(path: Path, folder: Path) -> tuple[str, str]:
    return str(path.relative_to(folder)), format_size(path.stat().st_size)
