"""`python -m node.training.recipes NAME --model FILE --data DIR --out DIR`.

Knows the command line; must not know how anything is trained.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer

from node.training.recipes.bench import open_bench
from node.training.recipes.run import run
from node.training.recipes.settings import RECIPES, Kind, recipe, recipe_domain
from node.training.recipes.trainings import Trainings
from protocols.errors import UserError


def main(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(RECIPES)}.")],
    model: Annotated[Path, typer.Option(help="The base: a GGUF file or a folder.")],
    data: Annotated[Path, typer.Option(envvar="DSLM_DATA", help="Folder with NAME.jsonl.gz.")],
    out: Annotated[Path, typer.Option(help="Where the adapter and its card go.")],
    kind: Annotated[Kind, typer.Option(help="As shipped, or as in the first trial.")] = "final",
    work: Annotated[
        Path | None, typer.Option(help="Keep single trainings here, and go on from them.")
    ] = None,
) -> None:
    """Train one specialist as it was trained for dslm, measure it, and write its card.

    On a GPU if there is one.
    """
    if name not in RECIPES:
        raise typer.BadParameter(f"there is no recipe {name!r}; see --help")
    try:
        examples = recipe_domain(data, name, kind)
        bench = open_bench(model, "cuda" if torch.cuda.is_available() else "cpu")
        _, made = run(recipe(name, kind), examples, Trainings(bench, print, work), out)
    except (UserError, KeyError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    print(made)


if __name__ == "__main__":
    typer.run(main)
