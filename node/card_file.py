"""A card file: what a specialist is good at, as its maker wrote it down beside the adapter (TOML).

Knows the file's form and bounds; must not know models or encoders. Such files come with adapters
of strangers: reading one runs nothing, and what it says is bounded as a card is.
"""

import json
import tomllib
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from protocols import limits
from protocols.errors import ModelFileError
from protocols.records import MeasuredScore, Name, Prototype

CARD_FILE = "card.toml"
FILE_BYTES_MAX = 64 * 1024
EXEMPLARS_MAX = 256
"""More than a card holds: those nearest to the prototypes go on the card."""
EXEMPLAR_CHARACTERS_MAX = 4_000
SOURCES_MAX = 64


class FilePrototypes(Struct, frozen=True, forbid_unknown_fields=True):
    """Prototypes made from more examples than the file holds; of use to one encoder only."""

    encoder: Annotated[str, Meta(min_length=1, max_length=64)]
    prototypes: Annotated[
        tuple[Prototype, ...], Meta(min_length=1, max_length=limits.PROTOTYPES_MAX)
    ]


class CardFile(Struct, frozen=True, forbid_unknown_fields=True):
    """What the file says. `sources` are what it was trained on, for people.

    `activated` None leaves it to the adapter itself. `exemplars` come in the order in which they
    should be kept.
    """

    description: Annotated[str, Meta(max_length=limits.DESCRIPTION_BYTES_MAX)] = ""
    domains: Annotated[tuple[Name, ...], Meta(max_length=limits.DOMAINS_MAX)] = ()
    languages: Annotated[tuple[Name, ...], Meta(max_length=limits.LANGUAGES_MAX)] = ()
    modalities: Annotated[tuple[Name, ...], Meta(max_length=limits.MODALITIES_MAX)] = ("text",)
    licence: Name = ""
    sources: Annotated[
        tuple[Annotated[str, Meta(max_length=400)], ...], Meta(max_length=SOURCES_MAX)
    ] = ()
    activated: bool | None = None
    exemplars: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=EXEMPLAR_CHARACTERS_MAX)], ...],
        Meta(max_length=EXEMPLARS_MAX),
    ] = ()
    scores: Annotated[tuple[MeasuredScore, ...], Meta(max_length=limits.MEASURED_SCORES_MAX)] = ()
    encoded: FilePrototypes | None = None


def read_card_file(path: Path) -> CardFile:
    """The card file at `path`; `ModelFileError` says what is wrong with it."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ModelFileError(f"the card file {path} cannot be read: {error.strerror}") from error
    try:
        return parse_card_file(data)
    except ModelFileError as error:
        raise ModelFileError(f"{path} is no card file: {error}") from error


def parse_card_file(data: bytes) -> CardFile:
    """`data` as a card file. `ModelFileError` for what is none or too long."""
    if len(data) > FILE_BYTES_MAX:
        raise ModelFileError(f"it has more than {FILE_BYTES_MAX:,} bytes")
    try:
        document = tomllib.loads(data.decode("utf-8"))
        return msgspec.convert(document, CardFile)
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits
        raise ModelFileError(str(error)[:300]) from error


def format_card_file(card: CardFile) -> str:
    """TOML that `parse_card_file` reads as `card`; `ModelFileError` if it would be too long."""
    lines = [
        f"description = {_text(card.description)}",
        f"domains = {_list(card.domains)}",
        f"languages = {_list(card.languages)}",
        f"modalities = {_list(card.modalities)}",
        f"licence = {_text(card.licence)}",
        f"sources = {_list(card.sources)}",
    ]
    if card.activated is not None:
        lines.append(f"activated = {str(card.activated).lower()}")
    lines += ["exemplars = [", *(f"    {_text(one)}," for one in card.exemplars), "]"]
    for score in card.scores:
        lines += ["", "[[scores]]", *_score(score)]
    if card.encoded is not None:
        lines += ["", "[encoded]", f"encoder = {_text(card.encoded.encoder)}"]
        for one in card.encoded.prototypes:
            vector = msgspec.to_builtins(one.vector)
            scale = _number(one.scale)
            lines += ["", "[[encoded.prototypes]]", f'vector = "{vector}"', f"scale = {scale}"]
    text = "\n".join(lines) + "\n"
    if len(text.encode("utf-8")) > FILE_BYTES_MAX:
        raise ModelFileError(f"a card file of more than {FILE_BYTES_MAX:,} bytes: leave some out")
    return text


def _score(score: MeasuredScore) -> list[str]:
    return [
        f"probe = {_text(score.probe)}",
        f"metric = {_text(score.metric)}",
        f"score = {_number(score.score)}",
        f"examples = {score.examples}",
        f"digest = {_text(score.digest)}",
        f"by = {_text(score.by)}",
    ]


def _text(text: str) -> str:
    """A basic string: JSON's escapes are TOML's, but for the one character that JSON leaves."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _list(texts: tuple[str, ...]) -> str:
    return f"[{', '.join(map(_text, texts))}]"


def _number(value: float) -> str:
    """With a point or an exponent, so that it is read as the same number."""
    return repr(float(value))
