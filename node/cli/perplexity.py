"""`dslm perplexity`: what each precision costs a model in quality, and saves in memory.

Knows what to tell; `node.hosting.precisions` measures.
"""

import gzip
from pathlib import Path
from typing import Annotated, Literal

import typer

from node.cli.exits import UsageError
from node.cli.output import show_json, show_table
from node.cli.progress import Bars
from node.cli.verb import Invocation, verb
from node.config import let_threads_sleep
from node.quantities import format_size
from node.state import SCHEMA_VERSION
from protocols.errors import UserError

EPILOG = """\b
Examples:
  dslm perplexity smollm2 book.txt
  dslm perplexity ./my-model.gguf notes.md --precision int4 --tokens 20000
  dslm perplexity ./my-model/ book.txt.gz --json

\b
fp32 is what the others are compared with. They are computed as a node computes them.
A ratio of 1.01 is one per cent more perplexed.
"""
_ALL: tuple[Literal["bf16", "int8", "int4"], ...] = ("bf16", "int8", "int4")


@verb
def perplexity(
    invocation: Invocation,
    source: Annotated[str, typer.Argument(help="As for `dslm pull`.")],
    text: Annotated[Path, typer.Argument(help="Text of the kind the model is for; may be gzip.")],
    precision: Annotated[
        list[str], typer.Option(help="bf16, int8 or int4; repeatable; all by default.")
    ] = [],  # noqa: B006  (never changed)
    tokens: Annotated[int, typer.Option(min=2, help="How much of the text counts.")] = 5000,
) -> None:
    """Measure what holding a model in less memory costs, on a text of yours."""
    let_threads_sleep()
    from node.hosting.fetch import resolve
    from node.hosting.kernels import KernelSettings
    from node.hosting.precisions import measure_precisions

    if unknown := [one for one in precision if one not in _ALL]:
        raise UsageError(f"--precision {unknown[0]}: use bf16, int8 or int4")
    wanted = [one for one in _ALL if not precision or one in precision]
    content = _read(text)
    config = invocation.load().config
    kernels = KernelSettings(
        config.engine.kernels,
        config.paths.kernels,
        config.engine.threads,
        fallback=config.paths.own_kernels,
    )
    with Bars() as bars:
        path = resolve(source, config.paths.models, bars)
        bars.start_count("precisions measured", len(wanted) + 1)
        costs = []
        for cost in measure_precisions(path, content, tokens, wanted, kernels):
            costs.append(cost)
            bars.advance_to(len(costs))
    if invocation.json:
        show_json({"schema_version": SCHEMA_VERSION, "costs": costs})
        return
    rows = [
        (
            one.precision,
            format_size(one.weights),
            f"{one.perplexity:.3f}",
            f"{one.ratio:.4f}",
            one.computed_by,
        )
        for one in costs
    ]
    show_table(("precision", "weights", "perplexity", "ratio", "computed by"), rows)


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
