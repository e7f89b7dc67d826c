"""The swarms of this home, through its node while that runs, from their folders while not.

Knows both ways and that they mean the same; must not know how anything is told to people.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from msgspec import Struct

from node.cli.client import Client
from node.cli.exits import UnknownSwarm
from node.cli.verb import Invocation
from node.paths import Paths
from node.process import find
from node.state import (
    SCHEMA_VERSION,
    DocumentsState,
    MembersState,
    MemberState,
    SwarmsState,
    SwarmState,
)
from node.swarms.durable import remove_folder
from node.swarms.folder import CurrentSwarm, SwarmFolder, swarm_names
from protocols.ids import PeerId
from protocols.membership.book import MemberBook
from protocols.membership.documents import open_certificate, open_delegation, unpack_credential

_NOT_RUNNING = "the node is not running"


class Nothing(Struct, frozen=True):
    """The body of a request that says everything in its path."""


class SwarmName(Struct, frozen=True):
    """Names a swarm."""

    name: str


class Documents(Struct, frozen=True):
    """Signed documents; base64 in JSON."""

    documents: tuple[bytes, ...]


class SwarmHome(Protocol):
    """What verbs do with swarms. All raise an `UnknownSwarm` or an `ApiError` for a name that is
    none of this home's."""

    def state(self) -> SwarmsState:
        """All swarms, the current one first."""
        ...

    def members(self, name: str) -> MembersState:
        """Who is known to be in it."""
        ...

    def use(self, name: str) -> None:
        """Make it the current one."""
        ...

    def load(self, name: str) -> None:
        """Have the node take part in a swarm whose folder was just made."""
        ...

    def leave(self, name: str) -> None:
        """Take part no more and delete its papers."""
        ...

    def documents(self, name: str) -> tuple[bytes, ...]:
        """What its owner signed and is in force."""
        ...

    def publish(self, name: str, documents: Sequence[bytes]) -> None:
        """Have others told what its owner signed."""
        ...


class RunningHome:
    """Asks the node."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def state(self) -> SwarmsState:
        """See `SwarmHome`."""
        return self._client.get("/api/v1/swarms", SwarmsState)

    def members(self, name: str) -> MembersState:
        """See `SwarmHome`."""
        return self._client.get(f"{_path(name)}/members", MembersState)

    def use(self, name: str) -> None:
        """See `SwarmHome`."""
        self._client.post(f"{_path(name)}/use", Nothing(), SwarmsState)

    def load(self, name: str) -> None:
        """See `SwarmHome`."""
        self._client.post("/api/v1/swarms/load", SwarmName(name), SwarmsState)

    def leave(self, name: str) -> None:
        """See `SwarmHome`."""
        self._client.post(f"{_path(name)}/leave", Nothing(), SwarmsState)

    def documents(self, name: str) -> tuple[bytes, ...]:
        """See `SwarmHome`."""
        return self._client.get(f"{_path(name)}/documents", DocumentsState).documents

    def publish(self, name: str, documents: Sequence[bytes]) -> None:
        """See `SwarmHome`."""
        self._client.post(f"{_path(name)}/documents", Documents(tuple(documents)), SwarmsState)


class StoppedHome:
    """Reads and writes the folders; the node goes by them when it starts."""

    def __init__(self, paths: Paths, now: float) -> None:
        """`now` in Unix seconds."""
        self._paths = paths
        self._now = now

    def state(self) -> SwarmsState:
        """See `SwarmHome`; what only a running node can know is empty."""
        current = CurrentSwarm(self._paths.swarms).name()
        rows = [
            self._state(folder, is_current=folder.name == current)
            for folder in SwarmFolder.all_in(self._paths.swarms)
        ]
        rows.sort(key=lambda row: not row.is_current)
        return SwarmsState(SCHEMA_VERSION, tuple(rows))

    def members(self, name: str) -> MembersState:
        """See `SwarmHome`: this node, the issuers and the revoked ones; no folder knows more."""
        folder, book = self._book(name)
        me = folder.identity.peer_id
        others = dict.fromkeys((*book.issuers(self._now), *book.revocations.peers))
        rows = [
            MemberState(peer, "", peer == me, self._standing(book, PeerId(peer)), (), "", None)
            for peer in dict.fromkeys((me, *others))
        ]
        return MembersState(SCHEMA_VERSION, name, tuple(rows))

    def use(self, name: str) -> None:
        """See `SwarmHome`."""
        self._require(name)
        CurrentSwarm(self._paths.swarms).choose(name)

    def load(self, name: str) -> None:
        """See `SwarmHome`: there is nothing to do before the next start."""
        self._require(name)

    def leave(self, name: str) -> None:
        """See `SwarmHome`; also for a folder that is damaged."""
        self._require(name)
        remove_folder(self._paths.swarms / name)

    def documents(self, name: str) -> tuple[bytes, ...]:
        """See `SwarmHome`."""
        _, book = self._book(name)
        revocations = book.revocations_bytes
        return (*((revocations,) if revocations else ()), *book.delegations())

    def publish(self, name: str, documents: Sequence[bytes]) -> None:
        """See `SwarmHome`: they are spread at the next start."""
        from node.swarms.owner_acts import is_revocations

        folder, book = self._book(name)
        for data in documents:
            if is_revocations(data):
                book.offer_revocations(data)
            else:
                book.offer_delegation(data, self._now)
        if book.revocations_bytes:
            folder.save_revocations(book.revocations_bytes)
        folder.save_delegations(book.delegations())

    def _require(self, name: str) -> Path:
        names = swarm_names(self._paths.swarms)
        if name not in names:
            there = f"it is in: {', '.join(names)}" if names else "it is in none with papers"
            raise UnknownSwarm(f"this node is in no swarm {name!r}; {there}")
        return self._paths.swarms / name

    def _book(self, name: str) -> tuple[SwarmFolder, MemberBook]:
        folder = SwarmFolder.load(self._require(name))
        book = MemberBook(folder.charter)
        for data in folder.delegations():
            book.offer_delegation(data, self._now)
        if revocations := folder.revocations():
            book.offer_revocations(revocations)
        return folder, book

    def _standing(self, book: MemberBook, peer: PeerId) -> str:
        return "revoked" if book.is_revoked(peer) else "unseen"

    def _state(self, folder: SwarmFolder, *, is_current: bool) -> SwarmState:
        _, book = self._book(folder.name)
        me = folder.identity.peer_id
        roles: tuple[str, ...] = ()
        certificate_left = None
        if shown := folder.credential():
            credential = unpack_credential(shown)
            _, certificate = open_certificate(credential.certificate, folder.charter)
            roles = tuple(certificate.roles)
            certificate_left = certificate.expires_at - self._now
        delegations = [open_delegation(one, folder.charter) for one in book.delegations()]
        mine = [one.expires_at - self._now for one in delegations if one.issuer == me]
        key = self._paths.owners / f"{folder.name}.key"
        return SwarmState(
            name=folder.name,
            swarm=folder.charter.swarm,
            kind=_kind(folder),
            is_current=is_current,
            peer=me,
            roles=roles,
            certificate_expires_in=certificate_left,
            delegation_expires_in=max(mine, default=None),
            epoch=book.epoch,
            issuers=book.issuers(self._now),
            revoked=len(book.revocations.peers),
            members=1,
            addresses=folder.listen_addresses(),
            reachable=(),
            network=_NOT_RUNNING,
            owner_key=str(key) if key.exists() else "",
            readers="",
        )


def home_of(invocation: Invocation) -> SwarmHome:
    """The node's word if it runs or one was named, else the folders'."""
    if invocation.url:
        return RunningHome(invocation.client())
    loaded = invocation.load()
    if loaded.url or find(loaded.config.paths.pid_file) is not None:
        return RunningHome(invocation.client())
    return StoppedHome(loaded.config.paths, unix_now())


def choose(home: SwarmHome, name: str) -> SwarmState:
    """The swarm `name`, or the current one; `UnknownSwarm` if there is none."""
    rows = home.state().swarms
    for row in rows:
        if row.name == name if name else row.is_current:
            return row
    if not rows:
        raise UnknownSwarm(
            "this node is in no swarm of its own: `dslm swarm create NAME --private` makes one, "
            "`dslm join INVITE` enters one"
        )
    names = ", ".join(row.name for row in rows)
    raise UnknownSwarm(f"this node is in no swarm {name!r}; it is in: {names}")


def unix_now() -> float:
    """Wall time in Unix seconds."""
    return datetime.now(UTC).timestamp()


def _kind(folder: SwarmFolder) -> str:
    if folder.charter.is_private:
        return "private"
    return "public" if folder.charter.owner else "open"


def _path(name: str) -> str:
    return f"/api/v1/swarms/{quote(name, safe='')}"
