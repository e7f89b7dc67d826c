"""Public sets as gzipped JSON lines in a folder, each row read into its type.

Knows files and fields; must not know prompts. The folder is given by whoever trains: no row of it
is part of the product.
"""

import gzip
import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from node.training.examples import Example
from protocols.errors import UserError


class Question(Struct, frozen=True):
    """A row of GSM8K (worked answer, `#### number` last) or LegalBench (`task`, Yes or No)."""

    split: str
    q: str
    a: str
    task: str = ""


class MedicalQuestion(Struct, frozen=True):
    """A row of MedQuAD; `focus` is the disease, by which the set is split."""

    split: str
    q: str
    a: str
    focus: str


class CodingTask(Struct, frozen=True):
    """A row of MBPP."""

    split: str
    id: int
    q: str
    code: str
    tests: list[str]


class ChoiceQuestion(Struct, frozen=True):
    """A row of MMLU; `answer` is A to D, `bucket` 0 to 9 comes from a hash of the row."""

    split: str
    subject: str
    domain: str
    q: str
    choices: list[str]
    answer: str
    bucket: int


RowT = TypeVar("RowT", bound=Struct)


def read_set(folder: Path, name: str, kind: type[RowT]) -> list[RowT]:
    """All rows of `NAME.jsonl.gz`. `UserError` names the file that is missing or damaged."""
    path = folder / f"{name}.jsonl.gz"
    try:
        lines = gzip.decompress(path.read_bytes()).splitlines()
        return [msgspec.json.decode(line, type=kind) for line in lines]
    except (OSError, EOFError, msgspec.MsgspecError) as error:
        raise UserError(f"The set {name} cannot be read from {path}: {error}.") from error


def bucket_of(text: str, buckets: int) -> int:
    """0 to `buckets` - 1, from the text alone: the same rows are held out everywhere."""
    return int.from_bytes(hashlib.sha1(text.encode()).digest()[:8], "big") % buckets  # noqa: S324


def normalised(text: str) -> str:
    """For finding repeats: lower case, letters and digits only."""
    return re.sub(r"[\W_]+", " ", text.lower()).strip()


def without_repeats(examples: Iterable[Example], held_out: Sequence[Example]) -> list[Example]:
    """`examples` without those whose prompt is among `held_out`, and each of them once."""
    seen = {normalised(example.prompt) for example in held_out}
    kept: list[Example] = []
    pairs: set[tuple[str, str]] = set()
    for example in examples:
        prompt = normalised(example.prompt)
        pair = (prompt, normalised(example.answer))
        if prompt not in seen and pair not in pairs:
            pairs.add(pair)
            kept.append(example)
    return kept
