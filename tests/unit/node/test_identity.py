"""The key file: made once, kept, private, and refused when damaged."""

from pathlib import Path

import pytest

from node.identity import load_or_create
from protocols.errors import ConfigError


def test_made_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "identity.key"
    first = load_or_create(path)
    assert load_or_create(path).peer_id == first.peer_id
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["identity.key"]


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "identity.key"
    load_or_create(path)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_or_create(path)


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_damaged_file_is_refused_and_left_alone(tmp_path: Path, damage: bytes | None) -> None:
    path = tmp_path / "identity.key"
    load_or_create(path)
    good = path.read_bytes()
    bad = good[:-1] + bytes([good[-1] ^ 1]) if damage is None else damage
    path.write_bytes(bad)
    with pytest.raises(ConfigError, match="delete it"):
        load_or_create(path)
    assert path.read_bytes() == bad


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError):
        load_or_create(tmp_path / "file" / "identity.key")
