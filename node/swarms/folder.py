"""The files of one swarm on this machine: charter, key, papers, ledger, addresses.

Knows names, formats and modes of the files, and writes each so that a crash leaves the old content
or the new one; must not know when a document holds or who may see it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from coordinator.standing import Standing
from node.identity import load_or_create
from node.swarms.durable import (
    make_private_folder,
    read_file,
    remove_folder,
    require_private,
    sync_folder,
    write_file,
)
from protocols import limits
from protocols.errors import ConfigError, ProtocolError, UserError
from protocols.membership.charter import Charter
from protocols.membership.documents import (
    open_certificate,
    open_delegation,
    open_revocations,
    unpack_credential,
)
from protocols.membership.ledger import load_ledger
from protocols.signing import Identity

T = TypeVar("T")

REMEMBERED_MAX = 64
OUTCOMES_BYTES_MAX = 4 * 2**20
"""Of 8,192 cards with the longest names they are half of it."""
_CURRENT = ".current"
_FIRST = ".first"
"""No swarm can have these names: they do not begin with a letter or digit."""
_FILE_BYTES_MAX = 64 * 2**20
"""A ledger of a thousand invites with a thousand uses each is the largest file."""


class _CharterFile(Struct, frozen=True):
    """The charter, with its id to notice damage."""

    charter: Charter
    swarm: str


class SwarmFolder:
    """One swarm's folder. Whoever holds it may write to it; two writers at once lose nothing but
    the earlier one's words. Each read is of the disk, and raises a `ConfigError` that names the
    file and what to do if it is damaged."""

    def __init__(self, path: Path, charter: Charter, identity: Identity) -> None:
        """Of files that exist: use `create` or `load`."""
        self.path = path
        self.charter = charter
        self.identity = identity
        """Who this node is in the swarm."""

    def __repr__(self) -> str:
        return f"<SwarmFolder {self.path}>"

    @property
    def name(self) -> str:
        """The swarm's name, which is the folder's as well."""
        return self.charter.name

    @classmethod
    def create(cls, parent: Path, charter: Charter, identity: Identity) -> "SwarmFolder":
        """Make the folder of a swarm that this node was not in; it is complete or not there.

        `UserError` if there is a swarm of that name already.
        """
        path = parent / charter.check().name
        make_private_folder(parent)
        if path.exists():
            raise UserError(
                f"this node is in a swarm named {charter.name} already: `dslm swarm ls` lists "
                f"them, `dslm swarm leave {charter.name}` deletes its papers"
            )
        building = parent / f".new-{charter.name}"
        if building.exists():  # Left behind by a crash.
            remove_folder(building)
        make_private_folder(building)
        described = _CharterFile(charter, charter.swarm)
        write_file(building / "charter.json", msgspec.json.encode(described))
        write_file(building / "identity.key", identity.to_libp2p())
        try:
            building.rename(path)
            sync_folder(parent)
        except OSError as error:
            raise ConfigError(f"cannot make the folder {path}: {error.strerror}") from error
        return cls(path, charter, identity)

    @classmethod
    def load(cls, path: Path) -> "SwarmFolder":
        """The swarm whose files are in `path`.

        `ConfigError` if there are none, if they are damaged, or if others can read them.
        """
        try:
            require_private(path)
        except OSError as error:
            raise ConfigError(f"cannot read the swarm in {path}: {error.strerror}") from error
        charter = _load_charter(path / "charter.json", path.name)
        key = path / "identity.key"
        if not key.exists():
            raise ConfigError(f"{key} is missing. {_anew(path.name)}")
        return cls(path, charter, load_or_create(key))

    @classmethod
    def all_in(cls, parent: Path) -> tuple["SwarmFolder", ...]:
        """Every swarm below `parent`, by name; errors as of `load`."""
        return tuple(cls.load(parent / name) for name in swarm_names(parent))

    def check(self) -> None:
        """Read everything; `ConfigError` for the first file that is damaged."""
        self.credential()
        self.delegations()
        self.revocations()
        self.ledger()
        self.remembered()
        self.listen_addresses()
        self.standing()
        self.outcomes()

    def remove(self) -> None:
        """Delete everything: the node has left the swarm."""
        remove_folder(self.path)

    def credential(self) -> bytes:
        """This node's credential as last saved; empty if there is none."""
        return self._read("credential", self._check_credential)

    def save_credential(self, data: bytes) -> None:
        """Keep the packed credential."""
        write_file(self.path / "credential", data)

    def delegations(self) -> tuple[bytes, ...]:
        """The delegations as last saved, each as the owner signed it."""
        return self._read_list("delegations", self._check_delegation)

    def save_delegations(self, documents: tuple[bytes, ...]) -> None:
        """Keep all of `documents`, instead of those before."""
        write_file(self.path / "delegations", msgspec.msgpack.encode(documents))

    def revocations(self) -> bytes:
        """The revocation list as last saved, as the owner signed it; empty if there is none."""
        return self._read("revocations", lambda data: open_revocations(data, self.charter))

    def save_revocations(self, data: bytes) -> None:
        """Keep a signed revocation list."""
        write_file(self.path / "revocations", data)

    def ledger(self) -> bytes:
        """The ledger of invites as `Ledger.dump` made it; empty if there is none."""
        return self._read("ledger", load_ledger)

    def save_ledger(self, data: bytes) -> None:
        """Keep the ledger; call it before an invite's holder is answered."""
        write_file(self.path / "ledger", data)

    def remembered(self) -> tuple[str, ...]:
        """Addresses of peers that answered us, newest first, each ending in `/p2p/<peer>`."""
        return self._read_texts("remembered.json")[:REMEMBERED_MAX]

    def save_remembered(self, addresses: tuple[str, ...]) -> None:
        """Keep the first 64 of `addresses`."""
        write_file(self.path / "remembered.json", msgspec.json.encode(addresses[:REMEMBERED_MAX]))

    def listen_addresses(self) -> tuple[str, ...]:
        """Where this node listens for the swarm; empty until it did."""
        return self._read_texts("listen.json")

    def save_listen_addresses(self, addresses: tuple[str, ...]) -> None:
        """Keep them, so that a restarted node is found where it was."""
        write_file(self.path / "listen.json", msgspec.json.encode(addresses))

    def standing(self) -> bytes:
        """What strangers have earned, as `Standing.dump` made it; empty if there is nothing."""
        return self._read("standing", Standing.load)

    def save_standing(self, data: bytes) -> None:
        """Keep it over a restart."""
        write_file(self.path / "standing", data)

    def outcomes(self) -> bytes:
        """What came of asking specialists, as `Outcomes.dump` made it; empty if there is nothing.

        Unlike the other files it is nothing that a node needs, so its content is the reader's
        business.
        """
        return read_file(self.path / "outcomes", OUTCOMES_BYTES_MAX)

    def save_outcomes(self, data: bytes) -> None:
        """Keep it over a restart."""
        write_file(self.path / "outcomes", data)

    # ----------------------------------------------------------------------------------------

    def _read(self, name: str, check: Callable[[bytes], object]) -> bytes:
        path = self.path / name
        data = read_file(path, _FILE_BYTES_MAX)
        if data or path.exists():
            self._require(path, lambda: check(data))
        return data

    def _read_list(self, name: str, check: Callable[[bytes], object]) -> tuple[bytes, ...]:
        path = self.path / name
        data = read_file(path, _FILE_BYTES_MAX)
        if not data and not path.exists():
            return ()
        documents = self._require(path, lambda: _list_decoder.decode(data))
        for document in documents:
            self._require(path, lambda document=document: check(document))  # type: ignore[misc]
        return documents

    def _read_texts(self, name: str) -> tuple[str, ...]:
        path = self.path / name
        data = read_file(path, _FILE_BYTES_MAX)
        if not data and not path.exists():
            return ()
        return self._require(path, lambda: _texts_decoder.decode(data))

    def _require(self, path: Path, look: Callable[[], T]) -> T:
        try:
            return look()
        except (ProtocolError, msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise ConfigError(f"{path} is damaged ({error}). {_cure(path, self.name)}") from error

    def _check_credential(self, data: bytes) -> None:
        credential = unpack_credential(data)
        open_certificate(credential.certificate, self.charter)
        open_delegation(credential.delegation, self.charter)

    def _check_delegation(self, data: bytes) -> None:
        open_delegation(data, self.charter)


class CurrentSwarm:
    """Which swarm requests go to that name none: a word in a file beside the folders."""

    def __init__(self, parent: Path) -> None:
        self._parent = parent

    def name(self) -> str:
        """The chosen swarm, else the first by name; empty if this node is in none."""
        chosen = read_file(self._parent / _CURRENT, limits.TEXT_BYTES_MAX)
        names = swarm_names(self._parent)
        wanted = chosen.decode(errors="replace").strip()
        return wanted if wanted in names else next(iter(names), "")

    def choose(self, name: str) -> None:
        """Make `name` the current swarm; `UserError` if this node is not in it."""
        names = swarm_names(self._parent)
        if name not in names:
            there = f"it is in: {', '.join(names)}" if names else "it is in none"
            raise UserError(f"this node is in no swarm {name!r}; {there}")
        write_file(self._parent / _CURRENT, name.encode())


class FirstSwarm:
    """Which swarm listens where the settings say: a word in a file beside the folders. The others
    listen at ports of their own."""

    def __init__(self, parent: Path) -> None:
        self._parent = parent

    def name(self) -> str:
        """Empty if that was never settled, or if this node has left it."""
        chosen = read_file(self._parent / _FIRST, limits.TEXT_BYTES_MAX)
        wanted = chosen.decode(errors="replace").strip()
        return wanted if wanted in swarm_names(self._parent) else ""

    def choose(self, name: str) -> None:
        """Let it be `name`, after a restart as well."""
        write_file(self._parent / _FIRST, name.encode())


def swarm_names(parent: Path) -> tuple[str, ...]:
    """The swarms that have a folder below `parent`, sorted; their files are not read."""
    if not parent.is_dir():
        return ()
    folders = (path for path in parent.iterdir() if not path.name.startswith("."))
    return tuple(sorted(path.name for path in folders if path.is_dir()))


_charter_decoder = msgspec.json.Decoder(_CharterFile)
_list_decoder = msgspec.msgpack.Decoder(tuple[bytes, ...])
_texts_decoder = msgspec.json.Decoder(tuple[str, ...])


def _load_charter(path: Path, name: str) -> Charter:
    data = read_file(path, limits.RECORD_BYTES_MAX)
    if not data:
        raise ConfigError(f"{path} is missing or empty. {_anew(name)}")
    try:
        described = _charter_decoder.decode(data)
        charter = described.charter.check()
    except (ProtocolError, msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged ({error}). {_anew(name)}") from error
    if charter.swarm != described.swarm or charter.name != name:
        raise ConfigError(f"{path} is damaged: it describes another swarm. {_anew(name)}")
    return charter


def _anew(name: str) -> str:
    return f"Restore it from a copy, or run `dslm swarm leave {name}` and join again"


def _cure(path: Path, name: str) -> str:
    if path.name in ("remembered.json", "listen.json", "standing"):
        return "Delete it: the node makes it anew"
    if path.name == "ledger":
        return "Restore it from a copy, or delete it: then the invites made here are void"
    if path.name in ("delegations", "revocations"):
        return "Restore it from a copy, or delete it: then the other members tell it anew"
    return _anew(name)
