"""`dslm card`: make, look at and check the card of a specialist.

Knows what to tell; `node.card_draft` makes cards, `node.card_checks` judges them.
"""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node.cli.card_shown import show_card, show_checks, show_draft
from node.cli.card_sources import Source, find_source, known_cards, load_encoder
from node.cli.exits import UsageError
from node.cli.settings import SwarmFlag
from node.cli.verb import Invocation, verb
from protocols.errors import ProtocolError, UserError
from protocols.ids import parse_specialist_id

if TYPE_CHECKING:
    from node.card_file import CardFile
    from node.state import Check

EPILOG = """\b
Examples:
  dslm card new ./examples --adapter ./tax-adapter --domain law/tax
  dslm card check ./tax-adapter/card.toml
  dslm card show lab/tax

\b
A card is how a swarm learns what a specialist is good at. docs/specialist-howto.md tells more.
"""
app = typer.Typer(
    help="Make, look at and check the card of a specialist.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
)
WhichArgument = Annotated[str, typer.Argument(help="Specialist id, or a card file.")]
_NEW_EPILOG = """\b
Examples:
  dslm card new ./examples --adapter ./tax-adapter
  dslm card new prompts.jsonl --adapter ./tax-adapter --id lab/tax --domain law/tax
  dslm card new prompts.csv --out tax.toml --description "German income tax" --language en

\b
Examples are prompts such as the specialist shall answer, thirty or more: a folder of text files
(one prompt each), a text file with one in each line, .jsonl with a field prompt, q or question, or
.csv with a column of such a name.
"""


@app.command("new", epilog=_NEW_EPILOG)
@verb
def new(  # noqa: PLR0913, PLR0917  (flags)
    invocation: Invocation,
    examples: Annotated[Path, typer.Argument(help="Folder or file of example prompts.")],
    adapter: Annotated[Path | None, typer.Option(help="The adapter's folder.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write the card file.")] = None,
    name: Annotated[str, typer.Option("--id", help="Specialist id, such as lab/tax.")] = "",
    description: Annotated[str, typer.Option(help="What it is for, in a sentence.")] = "",
    domain: Annotated[list[str], typer.Option(help="Such as law/tax; repeatable.")] = [],  # noqa: B006
    language: Annotated[list[str], typer.Option(help="Such as en; repeatable.")] = [],  # noqa: B006
    licence: Annotated[str, typer.Option(help="Of the adapter.")] = "",
    force: Annotated[bool, typer.Option(help="Write over a card file that is there.")] = False,
) -> None:
    """Make a card file from a folder of examples, and print the lines that host it."""
    from node.card_draft import draft
    from node.card_examples import read_examples
    from node.card_file import CARD_FILE, format_card_file

    specialist = _specialist(name, adapter, examples)
    path = out or (adapter or Path()) / CARD_FILE
    if adapter is not None and not adapter.is_dir():
        raise UsageError(f"--adapter {adapter}: there is no such folder")
    if path.exists() and not force:
        raise UserError(f"{path} is there already; --force writes over it, --out names another")
    given = _given(description, domain, language, licence)
    prompts = read_examples(examples)
    encoder = load_encoder(invocation)
    made = asyncio.run(draft(prompts, given, known_cards(invocation, ""), encoder))
    path.write_text(format_card_file(made.file), encoding="utf-8")
    show_draft(invocation, made, len(prompts), (specialist, path, adapter))


@app.command(
    "show",
    epilog="\b\nExamples:\n  dslm card show lab/tax\n  dslm card show ./tax-adapter/card.toml\n"
    "  dslm card show lab/tax --json",
)
@verb
def show(invocation: Invocation, which: WhichArgument, swarm: SwarmFlag = "") -> None:
    """Print a card: of a specialist that the running node knows, or of a file."""
    show_card(invocation, find_source(invocation, which, swarm))


@app.command(
    "check",
    epilog="\b\nExamples:\n  dslm card check ./tax-adapter/card.toml\n  dslm card check lab/tax\n\n"
    "\b\nExits with 1 if something is wrong. What others know is compared if a node runs here.",
)
@verb
def check(invocation: Invocation, which: WhichArgument, swarm: SwarmFlag = "") -> None:
    """Look for what is wrong with a card, and how it ranks against those that are known."""
    source = find_source(invocation, which, swarm)
    show_checks(invocation, source.name, asyncio.run(_checks(invocation, source, swarm)))


async def _checks(invocation: Invocation, source: Source, swarm: str) -> "list[Check]":
    from node.card_checks import check_prototypes, check_sealed, check_words
    from node.cli.swarm_home import unix_now
    from node.state import Check

    found: list[Check] = []
    for published in source.published:
        found += check_sealed(published.sealed, unix_now())
    try:
        encoder = load_encoder(invocation)
    except UserError as error:
        card = await source.card(None)
        return [*found, *check_words(card), Check("prototypes", False, str(error))]
    card = await source.card(encoder)
    found += check_words(card)
    known = known_cards(invocation, swarm)
    return found + await check_prototypes(card, known, encoder)


def _specialist(name: str, adapter: Path | None, examples: Path) -> str:
    from node.config import derived_model_id

    try:
        return parse_specialist_id(name or derived_model_id(str((adapter or examples).resolve())))
    except ProtocolError as error:
        raise UsageError(f"--id {name}: {error}") from error


def _given(description: str, domain: list[str], language: list[str], licence: str) -> "CardFile":
    import msgspec

    from node.card_file import CardFile

    said = {
        "description": description,
        "domains": domain,
        "languages": language,
        "licence": licence,
    }
    try:
        return msgspec.convert(said, CardFile)
    except msgspec.ValidationError as error:
        raise UsageError(f"this does not fit on a card: {error}") from error
