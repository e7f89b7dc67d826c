"""The files of a swarm: what was saved is read, damage is named, a crash leaves old or new."""

import os
import shutil
import stat
from pathlib import Path

import pytest

from node.swarms import durable
from node.swarms.folder import REMEMBERED_MAX, CurrentSwarm, SwarmFolder, swarm_names
from protocols.errors import ConfigError, UserError
from protocols.membership.charter import Charter, open_charter
from protocols.membership.documents import (
    Certificate,
    Credential,
    Delegation,
    Revocations,
    Role,
    pack_credential,
    seal_document,
)
from protocols.membership.ledger import Issued, Ledger, load_ledger
from protocols.signing import Identity

OWNER = Identity(bytes(32))
ME = Identity(b"m" * 32)
CHARTER = Charter("lab", OWNER.peer_id, is_private=True)


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    return tmp_path / "data" / "swarms"


@pytest.fixture
def folder(parent: Path) -> SwarmFolder:
    return SwarmFolder.create(parent, CHARTER, ME)


def delegation(swarm: str = CHARTER.swarm) -> bytes:
    return seal_document(Delegation(swarm, ME.peer_id, 1_000.0, 90_000.0), OWNER)


def credential() -> bytes:
    certificate = Certificate(CHARTER.swarm, ME.peer_id, (Role.NODE,), 1, 1_000.0, 2_000.0)
    return pack_credential(Credential(seal_document(certificate, ME), delegation()))


def revocations() -> bytes:
    return seal_document(Revocations(CHARTER.swarm, 3, 1_000.0, (ME.peer_id,)), OWNER)


def ledger() -> bytes:
    book = Ledger()
    book.add(Issued(ME.peer_id, (Role.USER,), 2, 1_000.0, 2_000.0), 1_000.0)
    return book.dump()


def fill(folder: SwarmFolder) -> None:
    folder.save_credential(credential())
    folder.save_delegations((delegation(),))
    folder.save_revocations(revocations())
    folder.save_ledger(ledger())
    folder.save_remembered(("/ip4/192.0.2.7/tcp/1/p2p/" + OWNER.peer_id,))
    folder.save_listen_addresses(("/ip4/0.0.0.0/tcp/4001",))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_folder_is_empty_and_private(parent: Path, folder: SwarmFolder) -> None:
    assert folder.path == parent / "lab"
    assert (folder.credential(), folder.delegations(), folder.revocations()) == (b"", (), b"")
    assert (folder.ledger(), folder.remembered(), folder.listen_addresses()) == (b"", (), ())
    assert mode(parent) == mode(folder.path) == 0o700
    assert {mode(path) for path in folder.path.iterdir()} == {0o600}


def test_everything_saved_is_read_by_the_next_process(folder: SwarmFolder) -> None:
    fill(folder)
    again = SwarmFolder.load(folder.path)
    assert again.charter == CHARTER
    assert again.identity.peer_id == ME.peer_id
    assert again.credential() == credential()
    assert again.delegations() == (delegation(),)
    assert again.revocations() == revocations()
    assert load_ledger(again.ledger()).issued.keys() == {ME.peer_id}
    assert again.remembered() == ("/ip4/192.0.2.7/tcp/1/p2p/" + OWNER.peer_id,)
    assert again.listen_addresses() == ("/ip4/0.0.0.0/tcp/4001",)
    assert {mode(path) for path in folder.path.iterdir()} == {0o600}
    assert not [path for path in folder.path.iterdir() if path.name.startswith(".")]


def test_no_more_than_64_addresses_are_remembered(folder: SwarmFolder) -> None:
    folder.save_remembered(tuple(map(str, range(100))))
    assert folder.remembered() == tuple(map(str, range(REMEMBERED_MAX)))


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("credential", SwarmFolder.credential),
        ("delegations", SwarmFolder.delegations),
        ("revocations", SwarmFolder.revocations),
        ("ledger", SwarmFolder.ledger),
        ("remembered.json", SwarmFolder.remembered),
        ("listen.json", SwarmFolder.listen_addresses),
        ("charter.json", lambda folder: SwarmFolder.load(folder.path)),
        ("identity.key", lambda folder: SwarmFolder.load(folder.path)),
    ],
)
def test_damage_names_the_file_and_what_to_do(folder: SwarmFolder, name: str, read: object) -> None:
    fill(folder)
    path = folder.path / name
    whole = path.read_bytes()
    damaged = [b"", whole[: len(whole) // 2], b"\xff" * len(whole)]
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(ConfigError, match=str(path)) as caught:
            read(folder)  # type: ignore[operator]
        assert "elete it" in str(caught.value) or "join again" in str(caught.value)
    path.write_bytes(whole)
    read(folder)  # type: ignore[operator]


def test_a_flipped_bit_in_what_is_signed_is_damage(folder: SwarmFolder) -> None:
    fill(folder)
    path = folder.path / "delegations"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ConfigError, match="damaged"):
        folder.delegations()


def test_a_charter_with_another_owner_is_damage(folder: SwarmFolder) -> None:
    path = folder.path / "charter.json"
    path.write_text(path.read_text().replace(OWNER.peer_id, ME.peer_id))
    with pytest.raises(ConfigError, match="another swarm"):
        SwarmFolder.load(folder.path)


def test_papers_of_another_swarm_are_damage(folder: SwarmFolder) -> None:
    folder.save_delegations((delegation("0" * 64),))
    with pytest.raises(ConfigError, match="another swarm"):
        folder.delegations()


@pytest.mark.parametrize(("name", "bits"), [("", 0o750), ("identity.key", 0o640)])
def test_what_others_can_read_is_refused(folder: SwarmFolder, name: str, bits: int) -> None:
    (folder.path / name).chmod(bits)
    with pytest.raises(ConfigError, match="chmod"):
        SwarmFolder.load(folder.path)


def test_a_lost_key_is_not_replaced_silently(folder: SwarmFolder) -> None:
    (folder.path / "identity.key").unlink()
    with pytest.raises(ConfigError, match=r"identity\.key is missing"):
        SwarmFolder.load(folder.path)
    assert not (folder.path / "identity.key").exists()


def test_the_same_name_twice_is_refused_and_changes_nothing(folder: SwarmFolder) -> None:
    with pytest.raises(UserError, match="dslm swarm leave lab"):
        SwarmFolder.create(folder.path.parent, CHARTER, OWNER)
    assert SwarmFolder.load(folder.path).identity.peer_id == ME.peer_id


def test_what_a_crash_left_of_a_creation_is_no_swarm(parent: Path) -> None:
    durable.make_private_folder(parent)
    half = parent / ".new-lab"
    durable.make_private_folder(half)
    (half / "charter.json").write_text("{")
    assert swarm_names(parent) == ()
    assert SwarmFolder.all_in(parent) == ()
    assert SwarmFolder.create(parent, CHARTER, ME).charter == CHARTER
    assert swarm_names(parent) == ("lab",)


def test_a_full_disk_keeps_the_old_content(
    folder: SwarmFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.save_ledger(ledger())

    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(ConfigError, match="No space left"):
        folder.save_ledger(Ledger().dump())
    assert folder.ledger() == ledger()
    assert not [path for path in folder.path.iterdir() if path.name.startswith(".")]


def test_the_folder_is_synced_after_the_rename(
    folder: SwarmFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Order matters: content, then name, then the folder that holds the name."""
    steps: list[str] = []
    fsync, rename = os.fsync, os.rename

    def note_fsync(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        steps.append("folder" if is_folder else "file")
        fsync(descriptor)

    def note_rename(source: str, target: Path) -> None:
        steps.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "rename", note_rename)
    folder.save_ledger(ledger())
    assert steps == ["file", "rename", "folder"]


def test_leaving_deletes_everything(folder: SwarmFolder) -> None:
    fill(folder)
    folder.remove()
    assert list(folder.path.parent.iterdir()) == []
    assert SwarmFolder.all_in(folder.path.parent) == ()


def test_a_leave_that_crashed_is_finished_by_the_next(
    folder: SwarmFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key of a swarm that was left must not stay on the disk for good."""
    parent = folder.path.parent
    SwarmFolder.create(parent, open_charter("kitchen"), ME)

    def crash(_: Path) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(shutil, "rmtree", crash)
        with pytest.raises(ConfigError, match="cannot remove"):
            folder.remove()
    assert swarm_names(parent) == ("kitchen",)
    SwarmFolder.load(parent / "kitchen").remove()
    assert list(parent.iterdir()) == []


def test_all_swarms_are_found_by_name(parent: Path, folder: SwarmFolder) -> None:
    SwarmFolder.create(parent, open_charter("current"), OWNER)
    found = SwarmFolder.all_in(parent)
    assert [one.name for one in found] == ["current", "lab"]
    assert found[1].identity.peer_id == folder.identity.peer_id


def test_the_current_swarm_is_the_chosen_one_as_long_as_there_is_one(parent: Path) -> None:
    current = CurrentSwarm(parent)
    assert current.name() == ""
    with pytest.raises(UserError, match="it is in none"):
        current.choose("lab")
    lab = SwarmFolder.create(parent, CHARTER, ME)
    SwarmFolder.create(parent, open_charter("kitchen"), ME)
    assert current.name() == "kitchen"
    current.choose("lab")
    assert CurrentSwarm(parent).name() == "lab"
    with pytest.raises(UserError, match="kitchen, lab"):
        current.choose("other")
    lab.remove()
    assert current.name() == "kitchen"


def test_a_new_file_never_replaces_another(tmp_path: Path) -> None:
    path = tmp_path / "lab.key"
    durable.write_new_file(path, b"first")
    with pytest.raises(ConfigError, match="never overwritten"):
        durable.write_new_file(path, b"second")
    assert path.read_bytes() == b"first"
    assert mode(path) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["lab.key"]


def test_a_file_that_is_too_large_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "big"
    path.write_bytes(b"x" * 11)
    assert durable.read_file(path, 11) == b"x" * 11
    with pytest.raises(ConfigError, match="larger"):
        durable.read_file(path, 10)
