"""The node's key file: read it, or make it once.

Knows the file and its mode; the key's format is `protocols.signing`'s.
"""

import os
import stat
from pathlib import Path

from protocols.errors import ConfigError
from protocols.signing import Identity


def load_or_create(path: Path) -> Identity:
    """The identity in `path`, made and written (mode 0600) if there is none yet.

    `ConfigError` if the file is damaged, unreadable, or readable by others.
    """
    try:
        return _load(path)
    except FileNotFoundError:
        return _create(path)
    except OSError as error:
        raise ConfigError(f"cannot read the identity {path}: {error.strerror}") from error


def _load(path: Path) -> Identity:
    mode = path.stat().st_mode
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(
            f"the identity {path} can be read by others: run `chmod 600 {path}`, or delete it to "
            "get a new identity if somebody may have copied it"
        )
    try:
        return Identity.from_libp2p(path.read_bytes())
    except ConfigError as error:
        raise ConfigError(
            f"{path}: {error}. Restore it from a copy, or delete it to get a new identity"
        ) from error


def _create(path: Path) -> Identity:
    identity = Identity.generate()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(identity.to_libp2p())
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ConfigError(f"cannot write the identity {path}: {error.strerror}") from error
    return identity
