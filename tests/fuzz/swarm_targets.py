"""Readers of a swarm's files on this machine: damage is told as such, whatever it is.

Knows `node.swarms`. Files in which something signed lies are also read with signatures believed.
"""

import base64
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from node.swarms.folder import SwarmFolder
from node.swarms.owner_key import OwnerKeyFile, seal_owner_key
from protocols.errors import ConfigError
from protocols.membership.documents import seal_document
from tests.fuzz.membership_targets import (
    CHARTER,
    CREDENTIAL,
    DELEGATION,
    ISSUED,
    REVOCATIONS,
)
from tests.fuzz.target import ALICE, BOB, Maker, Target, signatures_believed

_BEGIN, _END = b"-----BEGIN DSLM OWNER KEY-----\n", b"\n-----END DSLM OWNER KEY-----\n"


def _file(
    name: str, read: Callable[[SwarmFolder], object], seeds: tuple[bytes, ...], style: str
) -> Maker:
    """One file of a swarm's folder."""

    def make(folder: Path) -> Target:
        folder.chmod(0o700)
        swarm = SwarmFolder.create(folder / "swarms", CHARTER, BOB)
        file = swarm.path / name

        def run(data: bytes) -> None:
            file.write_bytes(data)
            file.chmod(0o600)
            with signatures_believed():
                read(swarm)

        return Target(run, (ConfigError,), seeds, style)

    return make


def charter_files(folder: Path) -> Target:
    """`charter.json`."""
    folder.chmod(0o700)
    swarm = SwarmFolder.create(folder / "swarms", CHARTER, BOB)
    file = swarm.path / "charter.json"
    seed = file.read_bytes()

    def run(data: bytes) -> None:
        file.write_bytes(data)
        assert SwarmFolder.load(swarm.path).charter == CHARTER

    return Target(run, (ConfigError,), (seed,), "json")


def _owner_key(folder: Path) -> bytes:  # noqa: ARG001
    text = seal_owner_key(CHARTER, ALICE, "five words of no saying", lambda count: b"\1" * count)
    return text.encode()


def owner_key_files(folder: Path) -> Target:
    """The owner's key, as it lies on its medium."""
    seed = _owner_key(folder)
    file = folder / "owner.key"

    def run(data: bytes) -> None:
        file.write_bytes(data)
        file.chmod(0o600)
        folder.chmod(0o700)
        assert OwnerKeyFile(file).charter() == CHARTER

    return Target(run, (ConfigError,), (seed,), "text", (_BEGIN, _END, b"Swarm-Id:", b"\n\n"))


def owner_key_bodies(folder: Path) -> Target:
    """What is inside, its checksum put right."""
    text = _owner_key(folder)
    sealed = base64.b64decode(text.partition(b"\n\n")[2].removesuffix(_END))[:-4]
    file = folder / "owner.key"

    def run(data: bytes) -> None:
        body = base64.b64encode(data + zlib.crc32(data).to_bytes(4, "big"))
        file.write_bytes(_BEGIN + b"Swarm: home\n\n" + body + _END)
        file.chmod(0o600)
        OwnerKeyFile(file).charter().check()

    return Target(run, (ConfigError,), (sealed,), "msgpack")


_ADDRESSES = msgspec.json.encode((f"/ip4/192.0.2.7/tcp/7779/p2p/{ALICE.peer_id}",) * 2)

MAKERS: Mapping[str, Maker] = {
    "charter_files": charter_files,
    "credential_files": _file("credential", SwarmFolder.credential, (CREDENTIAL,), "msgpack"),
    "delegation_files": _file(
        "delegations",
        SwarmFolder.delegations,
        (msgspec.msgpack.encode((seal_document(DELEGATION, ALICE),)),),
        "msgpack",
    ),
    "revocation_files": _file(
        "revocations", SwarmFolder.revocations, (seal_document(REVOCATIONS, ALICE),), "msgpack"
    ),
    "ledger_files": _file(
        "ledger", SwarmFolder.ledger, (msgspec.msgpack.encode(ISSUED),), "msgpack"
    ),
    "remembered_files": _file("remembered.json", SwarmFolder.remembered, (_ADDRESSES,), "json"),
    "owner_key_files": owner_key_files,
    "owner_key_bodies": owner_key_bodies,
}
