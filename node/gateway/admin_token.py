"""The token that tells the owner of a running node from other users of the machine.

Knows the file in which the owner's commands find it; must not know HTTP. It is new at each start,
so a copy is worth nothing later.
"""

import hmac
import os
import secrets
import stat
from pathlib import Path

from node.swarms.durable import write_file
from protocols.errors import ConfigError

TOKEN_FILE = "admin.token"  # noqa: S105  (a file's name)
"""In the node's state folder."""
_BYTES = 32
_FILE_BYTES_MAX = 256


class AdminToken:
    """One run's token. Its secret is in no text that this object makes of itself."""

    def __init__(self, secret: str) -> None:
        if not secret:
            raise ConfigError("an empty admin token would let everybody in")
        self._secret = secret

    @classmethod
    def create(cls, path: Path) -> "AdminToken":
        """A new token, written to `path` (mode 0600) in place of the last run's.

        Its folder is made, and kept, for its owner alone. `ConfigError` if that cannot be done.
        """
        token = cls(secrets.token_urlsafe(_BYTES))
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _keep_others_out(path.parent)
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {error.strerror}") from error
        write_file(path, token._secret.encode("ascii"))
        return token

    def __repr__(self) -> str:
        return "<AdminToken>"

    def matches(self, presented: str) -> bool:
        """Whether `presented` is the token, in a time that does not tell how much of it is."""
        return hmac.compare_digest(
            presented.encode("utf-8", "surrogatepass"), self._secret.encode()
        )


def read_token(path: Path) -> str:
    """The running node's token, for its owner's commands; empty if there is none to be read."""
    try:
        with path.open("rb") as file:
            return file.read(_FILE_BYTES_MAX).decode("ascii")
    except (OSError, UnicodeDecodeError):
        return ""


def _keep_others_out(folder: Path) -> None:
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & (stat.S_IRWXG | stat.S_IRWXO) and folder.stat().st_uid == os.geteuid():
        folder.chmod(mode & stat.S_IRWXU)
