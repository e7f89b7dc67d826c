"""How `dslm card` shows cards, checks and drafts, to people and as JSON.

Knows layout; must not know where cards come from or what is right.
"""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from node.cli.card_sources import Source, opened
from node.cli.exits import Exit
from node.cli.output import optional, short_peer, show, show_json, tell
from node.cli.verb import Invocation
from node.state import SCHEMA_VERSION, CardState, Check
from protocols import limits

if TYPE_CHECKING:
    from node.card_draft import Draft
    from protocols.records import CapabilityCard

_WIDTH = 96


def show_card(invocation: Invocation, source: Source) -> None:
    """One card, and at which peers it is published."""
    import msgspec

    card = asyncio.run(source.card(None))
    if invocation.json:
        rows = [
            {"card": opened(one), "trust": one.trust, "agreement": one.agreement}
            for one in source.published
        ]
        cards = rows or [{"card": card, "trust": None, "agreement": None}]
        show_json(msgspec.to_builtins({"schema_version": SCHEMA_VERSION, "cards": cards}))
        return
    for title, value in _lines(card, source):
        show(f"{title:<13}{value}")
    for one in source.published:
        show(f"{'at':<13}{_place(one)}")


def show_checks(invocation: Invocation, name: str, checks: Sequence[Check]) -> None:
    """Each check with what to do; exits with 1 if one failed."""
    if invocation.json:
        show_json({"schema_version": SCHEMA_VERSION, "card": name, "checks": checks})
    else:
        for check in checks:
            show(f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {check.detail}")
            if not check.ok and check.fix:
                show(f"     {check.fix}")
    if not all(check.ok for check in checks):
        raise typer.Exit(Exit.FAILED)


def show_draft(
    invocation: Invocation, made: "Draft", examples: int, place: tuple[str, Path, Path | None]
) -> None:
    """What was made, and the lines of the configuration that host it; `place` has specialist, card
    file and adapter.
    """
    specialist, path, adapter = place
    lines = _models_lines(specialist, path, adapter)
    file = made.file
    if invocation.json:
        show_json(
            {
                "schema_version": SCHEMA_VERSION,
                "id": specialist,
                "path": str(path),
                "examples": examples,
                "domains": file.domains,
                "description": file.description,
                "exemplars": file.exemplars,
                "nearest": made.near,
                "models": "\n".join(lines),
            }
        )
        return
    if not invocation.quiet:
        tell(f"{path}: made from {examples} examples; look it over, it is yours to change")
        tell(f"domains {', '.join(file.domains)}: {made.why}")
        tell(f"description: {file.description}")
        for one in made.near:
            tell(f"near: {one.specialist} ({', '.join(one.domains)}), cosine {one.cosine:.2f}")
        tell("to host it, add this to the configuration (`dslm config path` says where that is):")
    for line in lines:
        show(line)


def _models_lines(specialist: str, path: Path, adapter: Path | None) -> list[str]:
    import json

    folder = str(adapter.resolve()) if adapter else "FOLDER OF THE ADAPTER"
    lines = [
        "[[models]]",
        f"id = {json.dumps(specialist, ensure_ascii=False)}",
        'path = "smollm2"',
        f"adapter = {json.dumps(folder, ensure_ascii=False)}",
    ]
    if adapter is None or path.resolve().parent != adapter.resolve() or path.name != "card.toml":
        lines.append(f"card = {json.dumps(str(path.resolve()), ensure_ascii=False)}")
    return lines


def _lines(card: "CapabilityCard", source: Source) -> Iterator[tuple[str, str]]:
    from node.card_content import sealed_size

    yield "specialist", card.specialist
    yield "description", card.description or "-"
    yield "domains", ", ".join(card.domains) or "- (a plain base)"
    yield "languages", ", ".join(card.languages) or "-"
    yield "modalities", ", ".join(card.modalities) or "-"
    yield "licence", card.licence or "-"
    for one in source.file.sources if source.file else ():
        yield "source", one
    if card.base:
        yield "base", f"{card.base} {card.base_digest[:12]}"
        kind = "activated" if card.is_activated else "ordinary"
        yield "adapter", f"{card.adapter[:12]} ({kind})" if card.adapter else "- (none)"
        yield "context", f"{card.context_length} tokens, {card.precision}"
        yield "parameters", f"{card.parameters / 1e6:.0f} M"
    encoder = f" of encoder {card.encoder[:12]}" if card.encoder else ""
    yield "prototypes", f"{len(card.prototypes)}{encoder}"
    for text in card.exemplars:
        yield "exemplar", _short(text)
    for score in card.scores:
        about = f"{score.metric} {score.score:g} on {score.probe} (n = {score.examples})"
        yield "score", f"{about}, by {score.by or 'nobody'}, set {score.digest[:12] or '-'}"
    yield "size", f"{sealed_size(card):,} of {limits.RECORD_BYTES_MAX:,} bytes"


def _place(state: CardState) -> str:
    card = opened(state)
    here = ", this node" if state.is_local else ""
    trust = optional(state.trust, digits=2)
    agreement = optional(state.agreement, digits=2)
    return f"{short_peer(card.peer)}{here}: trust {trust}, texts bear prototypes out by {agreement}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _WIDTH else f"{line[: _WIDTH - 3]}..."
