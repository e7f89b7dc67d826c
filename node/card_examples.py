"""Example prompts as people have them: a folder or a file of text, JSON lines or CSV.

Knows files and their forms; must not know cards. Nothing is kept of a file but its prompts.
"""

import csv
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from node.hosting.json_file import JSON_ERRORS
from protocols.errors import UserError

EXAMPLES_MAX = 600
"""Of more, every so manieth is taken: they are encoded, which takes its time."""
CHARACTERS_MAX = 4_000
FILE_BYTES_MAX = 64 * 2**20
FIELDS = ("prompt", "q", "question", "instruction", "input", "text")
"""The field or column that holds the prompt: the first of these that is there."""
_TEXT, _LINES, _TABLE = {".txt", ".md"}, {".jsonl", ".ndjson"}, {".csv", ".tsv"}


def read_examples(source: Path) -> tuple[str, ...]:
    """The prompts in `source`, each once, at most `EXAMPLES_MAX` spread over all.

    In a folder every text file is one prompt; a text file alone has one in each line. `UserError`
    says what is wrong, and with what.
    """
    found = dict.fromkeys(text for text in _all(source) if text)
    if not found:
        raise UserError(
            f"{source} holds no examples. Give a folder of text files (one prompt each), or files "
            f"with a prompt in each line (.txt), in a field {' or '.join(FIELDS[:3])} (.jsonl) or "
            "in a column of such a name (.csv)"
        )
    step = -(-len(found) // EXAMPLES_MAX)
    return tuple(found)[::step]


def _all(source: Path) -> Iterator[str]:
    if source.is_dir():
        files = [path for path in sorted(source.rglob("*")) if _is_of_use(path, source)]
    elif source.is_file():
        files = [source]
    else:
        raise UserError(f"there is no file or folder {source}")
    for path in files:
        for text in _prompts(path, is_alone=len(files) == 1):
            yield text.strip()[:CHARACTERS_MAX].strip()


def _is_of_use(path: Path, root: Path) -> bool:
    is_hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    return path.suffix.lower() in _TEXT | _LINES | _TABLE and path.is_file() and not is_hidden


def _prompts(path: Path, *, is_alone: bool) -> Iterator[str]:
    text = _read(path)
    kind = path.suffix.lower()
    if kind in _LINES:
        yield from _json_lines(path, text)
    elif kind in _TABLE:
        yield from _table(path, text, "\t" if kind == ".tsv" else ",")
    elif is_alone:
        yield from text.splitlines()
    else:
        yield text


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise UserError(
                f"{path} has more than {FILE_BYTES_MAX // 2**20} MiB: take a part of it"
            )
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} as UTF-8 text: {error}") from error


def _json_lines(path: Path, text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row: object = msgspec.json.decode(line)
        except JSON_ERRORS as error:
            raise UserError(f"{path}, line {number}, is no JSON: {error}") from error
        yield _prompt_of(row, f"{path}, line {number}")


def _prompt_of(row: object, where: str) -> str:
    if isinstance(row, str):
        return row
    fields: Mapping[str, Any] = row if isinstance(row, dict) else {}
    for name in FIELDS:
        if isinstance(fields.get(name), str):
            return str(fields[name])
    raise UserError(f"{where}, has no text in a field called {', '.join(FIELDS)}")


def _table(path: Path, text: str, delimiter: str) -> Iterator[str]:
    """The column with a known name; where there is none, the only one, and that without a head."""
    try:
        rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if any(row)]
    except csv.Error as error:
        raise UserError(f"{path} is no table: {error}") from error
    if not rows:
        return
    column = _column(rows[0])
    if column is None and all(len(row) == 1 for row in rows):
        yield from itertools.chain.from_iterable(rows)
        return
    if column is None:
        raise UserError(f"{path} has no column called {', '.join(FIELDS)}")
    yield from (row[column] for row in rows[1:] if len(row) > column)


def _column(head: Sequence[str]) -> int | None:
    names = [cell.strip().lower() for cell in head]
    return next((names.index(name) for name in FIELDS if name in names), None)
