"""Files that survive a crash at any moment: the old content or the new one, never a part.

Knows temporary names, fsync and modes; must not know what is in the files.
"""

import os
import shutil
import stat
import tempfile
from pathlib import Path

from protocols.errors import ConfigError

_PRIVATE = 0o700
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_REMOVED = ".removed-"


def make_private_folder(path: Path) -> None:
    """See to it that `path` is a folder that only its owner may enter."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=_PRIVATE)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {path}: {error.strerror}") from error
    require_private(path)


def require_private(path: Path) -> None:
    """`ConfigError` if others may read `path`; `FileNotFoundError` if it is not there."""
    mode = path.stat().st_mode
    if mode & _OTHERS:
        wanted = "700" if stat.S_ISDIR(mode) else "600"
        raise ConfigError(
            f"{path} can be read by others: run `chmod {wanted} {path}`, and think of what is in "
            "it as known if somebody may have read it"
        )


def write_file(path: Path, data: bytes) -> None:
    """Replace the content of `path` (mode 0600); it is on disk when this returns.

    `ConfigError` if the disk is full or the folder cannot be written; then the file is unchanged.
    """
    _write(path, data, is_new=False)


def write_new_file(path: Path, data: bytes) -> None:
    """Like `write_file`, but `ConfigError` if there is a file already."""
    _write(path, data, is_new=True)


def read_file(path: Path, bytes_max: int) -> bytes:
    """The content of `path`, empty if there is no such file; `ConfigError` if it cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(bytes_max + 1)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > bytes_max:
        raise ConfigError(f"{path} is larger than such a file can be")
    return data


def remove_folder(path: Path) -> None:
    """Delete a folder with everything in it; a crash leaves none of it under its name.

    What an earlier crash left goes too.
    """
    try:
        for left in path.parent.glob(f"{_REMOVED}*"):
            shutil.rmtree(left)
        hidden = Path(tempfile.mkdtemp(prefix=_REMOVED, dir=path.parent))
        path.rename(hidden / path.name)
        sync_folder(path.parent)
        shutil.rmtree(hidden)
    except OSError as error:
        raise ConfigError(f"cannot remove {path}: {error.strerror}") from error


def sync_folder(path: Path) -> None:
    """Have the names in a folder written to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, data: bytes, *, is_new: bool) -> None:
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:  # mkstemp made it with mode 0600
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            os.link(temporary, path)  # Unlike a rename, it fails if the name is taken.
            os.unlink(temporary)
        else:
            os.rename(temporary, path)
        sync_folder(path.parent)
    except FileExistsError as error:
        Path(temporary).unlink(missing_ok=True)
        raise ConfigError(f"{path} is there already, and is never overwritten") from error
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
