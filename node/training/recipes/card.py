"""The card beside a trained adapter: what is known in words, and what was measured.

Knows the card file's text; must not know training.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CARD_FILE = "card.toml"
_SHIPPED = Path(__file__).parents[2] / "specialists"
_BLANK = 'description = ""\ndomains = []\nlanguages = ["en"]\nmodalities = ["text"]\n'


@dataclass(frozen=True, slots=True)
class Score:
    """`examples` of the set `probe`, which `digest` names, were measured with."""

    probe: str
    metric: str
    score: float
    examples: int
    digest: str


def write_card(folder: Path, name: str, scores: Sequence[Score], by: str = "") -> None:
    """Into `folder`: the words of the card that comes with dslm under `name`, and `scores`.

    Without such a card its words are left to be written. `by` says who measured.
    """
    shipped = _SHIPPED / name / CARD_FILE
    text = shipped.read_text(encoding="utf-8") if shipped.is_file() else _BLANK
    words, _, _ = text.partition("\n[[scores]]")
    parts = [words.rstrip(), *(_table(score, by) for score in scores)]
    (folder / CARD_FILE).write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _table(score: Score, by: str) -> str:
    return "\n".join(
        [
            "[[scores]]",
            f"probe = {json.dumps(score.probe)}",
            f"metric = {json.dumps(score.metric)}",
            f"score = {round(score.score, 4)!r}",
            f"examples = {score.examples}",
            f"digest = {json.dumps(score.digest)}",
            f"by = {json.dumps(by)}",
        ]
    )
