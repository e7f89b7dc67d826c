"""The kept inputs of each target: `tests/fuzz/corpus/TARGET/`, one small file each.

Knows files and names; which inputs are worth keeping is `tests.fuzz.distill`'s business.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

_FOLDER = Path(__file__).parent / "corpus"


def corpus_of(target: str) -> tuple[bytes, ...]:
    """The kept inputs of `target`, in a fixed order; none if there is no folder for it."""
    return tuple(file.read_bytes() for file in sorted((_FOLDER / target).glob("*")))


def write_corpus(target: str, inputs: Iterable[bytes]) -> None:
    """Keep exactly `inputs` for `target`."""
    folder = _FOLDER / target
    folder.mkdir(parents=True, exist_ok=True)
    names = {hashlib.sha256(data).hexdigest()[:12]: data for data in inputs}
    for file in folder.iterdir():
        if file.name not in names:
            file.unlink()
    for name, data in names.items():
        (folder / name).write_bytes(data)


def kept() -> dict[str, int]:
    """How many bytes are kept for each target."""
    return {
        folder.name: sum(file.stat().st_size for file in folder.iterdir())
        for folder in sorted(_FOLDER.iterdir())
    }
