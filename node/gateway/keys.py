"""The API keys of a node: made and shown once, kept as hashes in a file, checked for each request.

Knows the file; must not know HTTP. A key has 256 random bits, so one round of SHA-256 hides it as
well as a slow hash would: there is nothing to guess, unlike with a password.
"""

import fcntl
import hashlib
import hmac
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Protocol

import base58
import msgspec
from msgspec import Meta, Struct

from node.gateway.config import GatewayConfig
from node.swarms.durable import write_file
from protocols.errors import ConfigError, UserError

KEYS_FILE = "api.keys"
"""Name of the file in the node's data folder."""
PREFIX = "dslm-"
KEYS_MAX = 1_000
_SECRET_BYTES = 32
_FILE_BYTES_MAX = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


class Keys(Protocol):
    """What the gateway needs of keys."""

    def names(self) -> tuple[str, ...]:
        """Of all keys; `ConfigError` if they cannot be told."""
        ...

    def check(self, secret: str) -> str | None:
        """The name of the key `secret`; None for whatever is no key."""
        ...


class NoKeys:
    """Nobody has one."""

    def names(self) -> tuple[str, ...]:
        """None."""
        return ()

    def check(self, secret: str) -> str | None:  # noqa: ARG002  (a Keys)
        """None."""
        return None


class KeyRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """One key without its secret. `created` is a date in UTC."""

    name: Annotated[str, Meta(pattern=f"^{_NAME.pattern}$")]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
    created: datetime


class _Content(Struct, frozen=True, forbid_unknown_fields=True):
    version: Annotated[int, Meta(ge=1, le=1)]
    keys: Annotated[tuple[KeyRecord, ...], Meta(max_length=KEYS_MAX)]


def _utc_now() -> datetime:
    return datetime.now(UTC)


class KeyFile:
    """The keys in `path` (mode 0600). Other processes may change the file at any time.

    It fails closed: while the file is missing, empty, damaged, another user's, or open to others,
    `check` knows nobody, and the methods for people raise a `ConfigError` that says why.
    """

    def __init__(self, path: Path, now: Callable[[], datetime] = _utc_now) -> None:
        self._path = path
        self._now = now
        self._seen: tuple[int, ...] | None = None
        self._records: tuple[KeyRecord, ...] = ()

    def create(self, name: str) -> str:
        """A new key, which is stored nowhere; `UserError` if the name is taken or of no use."""
        if not _NAME.fullmatch(name):
            raise UserError(
                f"{name[:64]!r} cannot name a key: use up to 64 letters, digits and . _ - @"
            )
        secret = PREFIX + base58.b58encode(secrets.token_bytes(_SECRET_BYTES)).decode("ascii")
        with self._locked():
            records = _load(self._path)
            if any(record.name == name for record in records):
                raise UserError(f"there is a key called {name!r} already; remove it first")
            if len(records) >= KEYS_MAX:
                raise UserError(f"there are {KEYS_MAX} keys already; remove one first")
            _store(self._path, (*records, KeyRecord(name, _digest(secret), self._now())))
        return secret

    def remove(self, name: str) -> None:
        """Make a key void at once; `UserError` if there is none of that name."""
        with self._locked():
            records = _load(self._path)
            kept = tuple(record for record in records if record.name != name)
            if len(kept) == len(records):
                raise UserError(f"there is no key called {name[:64]!r}")
            _store(self._path, kept)

    def records(self) -> tuple[KeyRecord, ...]:
        """All keys, without their secrets, in the order in which they were made."""
        return _load(self._path)

    def names(self) -> tuple[str, ...]:
        """Of all keys."""
        return tuple(record.name for record in self.records())

    def check(self, secret: str) -> str | None:
        """The name of the key `secret`; the time it takes tells nothing about other keys."""
        self._refresh()
        digest, found = _digest(secret), None
        for record in self._records:
            if hmac.compare_digest(record.sha256, digest):
                found = record.name
        return found

    def _refresh(self) -> None:
        """Read the file again if it is another one, or another content, than last time."""
        try:
            status = self._path.stat()
            seen = (status.st_ino, status.st_mtime_ns, status.st_size, status.st_ctime_ns)
            if seen != self._seen:
                self._records = _load(self._path)
                self._seen = seen
        except (OSError, ConfigError):
            self._records, self._seen = (), None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let no other process change the file in between."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise ConfigError(f"cannot write {self._path}: {error.strerror}") from error
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)


def require_keys(config: GatewayConfig, keys: Keys) -> None:
    """`ConfigError` if these settings make keys necessary and there are none."""
    if config.needs_key and not keys.names():
        raise ConfigError(
            f"{config.why_keys}, so whoever uses the API needs a key, and there is none: "
            "run `dslm key create NAME`"
        )


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _load(path: Path) -> tuple[KeyRecord, ...]:
    """The keys in `path`; none if it is not there, `ConfigError` if it is not to be believed."""
    try:
        with path.open("rb") as file:
            _require_own(path, os.fstat(file.fileno()))
            data = file.read(_FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    try:
        if len(data) > _FILE_BYTES_MAX:
            raise msgspec.ValidationError("it is too large")
        return msgspec.json.decode(data, type=_Content).keys
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the file of API keys {path} is damaged, so no key is valid: restore it from a copy, "
            "or delete it and make new keys with `dslm key create NAME`"
        ) from error


def _require_own(path: Path, status: os.stat_result) -> None:
    if status.st_uid not in (0, os.geteuid()):
        raise ConfigError(f"the file of API keys {path} belongs to another user")
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(
            f"the file of API keys {path} is open to others, so no key is valid: run "
            f"`chmod 600 {path}`"
        )


def _store(path: Path, records: tuple[KeyRecord, ...]) -> None:
    content = msgspec.json.encode(_Content(1, records))
    write_file(path, msgspec.json.format(content, indent=1) + b"\n")
