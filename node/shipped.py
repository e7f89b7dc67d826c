"""The specialists that ship with dslm, and how trial nodes share them out among themselves.

Knows the folder they lie in and the settings that host them; must not know what is in an adapter.
A node that is told nothing else hosts all of them.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec import Struct

from node.config import DEFAULT_MODEL
from protocols.errors import ModelFileError

CARD, ADAPTER = "card.toml", "dslm_adapter.json"
"""The files of a specialist that tell it from any other folder."""
CONTEXT, SLOTS = 2_048, 4
"""Entries that agree on these share one running base."""


class _Card(Struct, frozen=True):
    """What is read of a card file here."""

    domains: tuple[str, ...] = ()
    activated: bool = False


@dataclass(frozen=True, slots=True)
class Specialist:
    """An adapter and its card. With `description` and `examples` the card file is not needed."""

    name: str
    adapter: Path
    domains: tuple[str, ...]
    description: str = ""
    examples: tuple[str, ...] = ()


def shipped_specialists(
    folder: Path | None = None, *, activated: bool = False
) -> tuple[Specialist, ...]:
    """One for each field in `folder`, by name; by default of this installation, maybe none.

    A folder whose card names no domains holds a helper that is not for questions: it is left out.
    Of two for the same domains the ordinary one is taken, or with `activated` the activated one.
    `ModelFileError` for a card that cannot be read.
    """
    place = folder or Path(__file__).resolve().with_name("specialists")
    if not place.is_dir():
        return ()
    folders = [one for one in sorted(place.iterdir()) if (one / ADAPTER).is_file()]
    cards = [(one, _card(one / CARD)) for one in folders]
    found: dict[tuple[str, ...], Specialist] = {}
    for one, card in sorted(cards, key=lambda pair: pair[1].activated != activated):
        if card.domains:
            found.setdefault(card.domains, Specialist(one.name, one, card.domains))
    return tuple(sorted(found.values(), key=lambda specialist: specialist.name))


def share_out(
    specialists: Sequence[Specialist], hosts: Sequence[str], copies: int = 1
) -> Mapping[str, tuple[Specialist, ...]]:
    """Which of `hosts` has which: each specialist `copies` times, as evenly as possible."""
    shares: dict[str, list[Specialist]] = {host: [] for host in hosts}
    for at, specialist in enumerate(specialists):
        for copy in range(min(copies, len(hosts))):
            shares[hosts[(at + copy) % len(hosts)]].append(specialist)
    return {host: tuple(share) for host, share in shares.items()}


def shipped_tables() -> list[dict[str, object]]:
    """What `[[models]]` would say of the default model and all shipped specialists on it."""
    tables: list[dict[str, object]] = [{"path": DEFAULT_MODEL}]
    for one in shipped_specialists():
        tables.append({"path": DEFAULT_MODEL, "id": one.name, "adapter": str(one.adapter)})
    return tables


def models_toml(specialists: Sequence[Specialist], base: str = DEFAULT_MODEL) -> str:
    """The `[[models]]` of a node that hosts `base` and, on it, `specialists`."""
    entries = [_entry({"path": base, "id": base})]
    for one in specialists:
        settings = {"path": base, "id": one.name, "adapter": str(one.adapter)}
        entries.append(
            _entry(
                settings, domains=one.domains, description=one.description, examples=one.examples
            )
        )
    return "\n".join(entries)


def _entry(settings: Mapping[str, str], **more: str | tuple[str, ...]) -> str:
    lines = ["[[models]]", f"context = {CONTEXT}", f"slots = {SLOTS}"]
    for name, value in {**settings, **more}.items():
        if value:
            lines.append(f"{name} = {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


def _card(path: Path) -> _Card:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        return msgspec.convert(document, _Card)
    except (OSError, ValueError, msgspec.ValidationError) as error:
        raise ModelFileError(f"the card {path} cannot be read: {error}") from error
