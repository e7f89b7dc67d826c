"""The folder for one node's sockets: short path, mode 0700, gone when the node is.

Knows files and locks; must not know what is put into the folder.
"""

import fcntl
import os
import shutil
import stat
import tempfile
from pathlib import Path
from types import TracebackType

from protocols.errors import ConfigError

SOCKET_PATH_BYTES_MAX = 107
"""What a Unix socket address holds (`sun_path`, less its final zero)."""
_PREFIX = "p2pd-"
_LOCK = "lock"
_LONGEST_NAME = "p2pclient-xxxxxxxxxxx.sock"


class RuntimeFolder:
    """A folder of our own under `parent`; a context manager.

    The lock in it is held as long as the process lives, so folders of killed nodes are known by
    their free lock and swept away by the next node that starts.
    """

    def __init__(self, parent: Path) -> None:
        self._parent = parent
        self._lock = -1
        self.path = parent

    def __enter__(self) -> "RuntimeFolder":
        try:
            self._parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._require_own()
            self._sweep()
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._parent)).absolute()
        except OSError as error:
            raise ConfigError(
                f"cannot make a folder for sockets in {self._parent}: {error.strerror}"
            ) from error
        self._check_length()
        self._lock = os.open(self.path / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)

    def write_private(self, name: str, data: bytes) -> Path:
        """A new file that only we can read."""
        path = self.path / name
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        return path

    def _require_own(self) -> None:
        """The parent may lie in a folder that all users share: somebody else may have made it."""
        found = self._parent.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise ConfigError(
                f"{self._parent} belongs to another user; remove it or have it removed"
            )
        self._parent.chmod(0o700)

    def _check_length(self) -> None:
        length = len(os.fsencode(self.path / _LONGEST_NAME))
        if length > SOCKET_PATH_BYTES_MAX:
            self.path.rmdir()
            raise ConfigError(
                f"the path {self._parent} is too long for sockets by "
                f"{length - SOCKET_PATH_BYTES_MAX} bytes; choose a shorter runtime folder"
            )

    def _sweep(self) -> None:
        for folder in self._parent.glob(f"{_PREFIX}*"):
            if _is_abandoned(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False  # not ours, or its owner has not got as far as the lock
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True
