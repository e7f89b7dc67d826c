"""The owner's key file: opened by its passphrase alone, bound to its swarm, never overwritten."""

import base64
import os
import stat
from pathlib import Path

import pytest

from node.swarms import owner_key
from node.swarms.owner_key import OwnerKeyFile, check_passphrase
from protocols.errors import ConfigError, UserError
from protocols.membership.charter import Charter
from protocols.signing import Identity

OWNER = Identity(b"o" * 32)
CHARTER = Charter("lab", OWNER.peer_id, is_private=True)
PASSPHRASE = "correct horse battery"  # noqa: S105


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scrypt at a cost that tests can bear."""
    monkeypatch.setattr(owner_key, "_COST", 2**4)


@pytest.fixture
def key(tmp_path: Path, cheap: None) -> OwnerKeyFile:  # noqa: ARG001
    file = OwnerKeyFile(tmp_path / "owners" / "lab.key")
    file.create(CHARTER, OWNER, PASSPHRASE, os.urandom)
    return file


def test_the_real_cost_is_that_of_128_mebibytes(tmp_path: Path) -> None:
    assert (owner_key._COST * owner_key._BLOCK * 128, owner_key._LANES) == (128 * 2**20, 1)
    file = OwnerKeyFile(tmp_path / "owners" / "lab.key")
    file.create(CHARTER, OWNER, PASSPHRASE, os.urandom)
    assert file.unlock(PASSPHRASE).peer_id == OWNER.peer_id


def test_the_file_is_private_and_says_what_it_is(key: OwnerKeyFile) -> None:
    assert stat.S_IMODE(key.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.path.parent.stat().st_mode) == 0o700
    text = key.path.read_text()
    assert "Swarm: lab (private)" in text
    assert CHARTER.swarm in text
    assert key.charter() == CHARTER
    assert key.unlock(PASSPHRASE).sign("x", b"y") == OWNER.sign("x", b"y")


def test_the_key_is_not_in_the_file(key: OwnerKeyFile) -> None:
    body = key.path.read_text().split("\n\n")[1].rsplit("\n", 2)[0]
    assert b"o" * 8 not in base64.b64decode("".join(body.split()))


def test_two_files_of_one_key_differ(key: OwnerKeyFile, tmp_path: Path) -> None:
    other = OwnerKeyFile(tmp_path / "other.key")
    tmp_path.chmod(0o700)
    other.create(CHARTER, OWNER, PASSPHRASE, os.urandom)
    assert other.path.read_text() != key.path.read_text()


@pytest.mark.parametrize("wrong", ["", "correct horse batter", "Correct horse battery", "x" * 9000])
def test_another_passphrase_is_wrong(key: OwnerKeyFile, wrong: str) -> None:
    with pytest.raises(UserError, match="not the passphrase of the owner's key of lab"):
        key.unlock(wrong)


@pytest.mark.usefixtures("cheap")
def test_the_same_passphrase_from_another_keyboard(tmp_path: Path) -> None:
    file = OwnerKeyFile(tmp_path / "owners" / "lab.key")
    file.create(CHARTER, OWNER, "vier Bäume im Wind", os.urandom)
    assert file.unlock("vier Ba\u0308ume im Wind").peer_id == OWNER.peer_id


@pytest.mark.parametrize("weak", ["", "short", "aaaaaaaaaaaaaaaa", "abababababab", "x" * 2_000])
def test_weak_passphrases_are_refused_before_anything_is_written(weak: str, tmp_path: Path) -> None:
    file = OwnerKeyFile(tmp_path / "owners" / "lab.key")
    with pytest.raises(UserError, match="passphrase"):
        file.create(CHARTER, OWNER, weak, os.urandom)
    assert not file.path.exists()


def test_the_name_of_the_swarm_is_no_passphrase() -> None:
    with pytest.raises(UserError, match="the swarm's name"):
        check_passphrase("Kitchen-Table1", "kitchen-table")
    check_passphrase("Kitchen-Table1", "lab")


def test_a_key_is_never_overwritten(key: OwnerKeyFile) -> None:
    before = key.path.read_bytes()
    other = Identity(b"p" * 32)
    with pytest.raises(ConfigError, match="never overwritten"):
        key.create(Charter("lab", other.peer_id, is_private=True), other, PASSPHRASE, os.urandom)
    assert key.path.read_bytes() == before


def test_damage_is_told_from_a_wrong_passphrase(key: OwnerKeyFile) -> None:
    whole = key.path.read_text()
    middle = len(whole) * 2 // 3
    flipped = whole[:middle] + ("A" if whole[middle] != "A" else "B") + whole[middle + 1 :]
    for text in ("", "\n", whole[:-20], whole[40:], flipped, whole.replace("a", "?"), "\xff"):
        key.path.write_text(text)
        with pytest.raises(ConfigError, match="damaged"):
            key.unlock(PASSPHRASE)
    key.path.write_bytes(b"\xff" * 40)
    with pytest.raises(ConfigError, match="damaged"):
        key.charter()


def test_a_key_does_not_open_under_another_charter(key: OwnerKeyFile) -> None:
    """The file says for which swarm the key is; nobody can make it say another."""
    sealed = key._read()
    for charter in (
        Charter("lab", OWNER.peer_id, is_private=False),
        Charter("bank", OWNER.peer_id, is_private=True),
    ):
        forged = owner_key._Sealed(1, charter, sealed.salt, sealed.nonce, sealed.box)
        with pytest.raises(UserError, match="not the passphrase"):
            owner_key.open_owner_key(forged, PASSPHRASE)


def test_a_file_that_others_can_read_is_refused(key: OwnerKeyFile) -> None:
    key.path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        key.unlock(PASSPHRASE)


def test_a_file_that_is_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--owner-key FILE"):
        OwnerKeyFile(tmp_path / "lab.key").charter()


@pytest.mark.usefixtures("cheap")
def test_anothers_key_is_not_sealed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not that of the swarm's owner"):
        OwnerKeyFile(tmp_path / "owners" / "x").create(
            CHARTER, Identity(b"p" * 32), PASSPHRASE, os.urandom
        )
