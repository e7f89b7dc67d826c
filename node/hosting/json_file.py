"""Small JSON files beside a model, each read into one type.

Knows every way in which such a file can be bad; must not know what any of them says.
"""

from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from protocols.errors import ModelFileError

StructT = TypeVar("StructT", bound=Struct)

JSON_ERRORS = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
"""What `msgspec.json.decode` raises: a value nested too deeply is a `RecursionError`."""


def read_json(path: Path, kind: type[StructT]) -> StructT:
    """The file as a `kind`. `ModelFileError` if it cannot be read or is something else."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, *JSON_ERRORS) as error:
        raise ModelFileError(f"{path} cannot be read: {error}.") from error
