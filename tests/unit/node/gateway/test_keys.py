"""API keys: shown once, stored as hashes, and nobody's when the file is not to be believed."""

import json
import os
import re
import stat
import tempfile
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.gateway.admin_token import AdminToken, read_token
from node.gateway.config import GatewayConfig
from node.gateway.keys import KeyFile, NoKeys, require_keys
from protocols.errors import ConfigError, UserError
from tests.effort import examples

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "api.keys"


@pytest.fixture
def keys(path: Path) -> KeyFile:
    return KeyFile(path, lambda: WHEN)


def test_a_key_is_known_by_its_secret_alone(keys: KeyFile, path: Path) -> None:
    phone, laptop = keys.create("phone"), keys.create("laptop")
    assert re.fullmatch(r"dslm-[1-9A-HJ-NP-Za-km-z]{40,44}", phone)
    assert (keys.check(phone), keys.check(laptop)) == ("phone", "laptop")
    assert keys.names() == ("phone", "laptop")
    assert keys.records()[0].created == WHEN
    wrong = ("", "dslm-", phone[:-1], phone + "x", phone.upper(), "phone", "\x00", "\udcff", "é")
    assert [keys.check(text) for text in wrong] == [None] * len(wrong)
    stored = path.read_text()
    for secret in (phone, laptop):
        assert secret.removeprefix("dslm-") not in stored
    assert keys.check(json.loads(stored)["keys"][0]["sha256"]) is None


def test_no_other_user_can_read_it(keys: KeyFile, path: Path) -> None:
    keys.create("phone")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [one.name for one in path.parent.iterdir()] == ["api.keys"]


def test_what_another_process_changes_counts_at_once(keys: KeyFile, path: Path) -> None:
    running = KeyFile(path)
    assert running.check("dslm-early") is None
    phone = keys.create("phone")
    assert running.check(phone) == "phone"
    keys.remove("phone")
    assert running.check(phone) is None
    again = keys.create("phone")
    assert (running.check(phone), running.check(again)) == (None, "phone")
    path.unlink()
    assert running.check(again) is None


@pytest.mark.parametrize("name", ["", "a b", "a\n", "-a", "ä", "a" * 65, "../x"])
def test_names_are_plain(keys: KeyFile, name: str) -> None:
    with pytest.raises(UserError, match="cannot name a key"):
        keys.create(name)


def test_a_name_is_used_once_and_removed_once(keys: KeyFile) -> None:
    keys.create("phone")
    with pytest.raises(UserError, match="'phone' already"):
        keys.create("phone")
    keys.remove("phone")
    with pytest.raises(UserError, match="no key called 'phone'"):
        keys.remove("phone")
    keys.create("phone")


GOOD = {"name": "x", "sha256": "0" * 64, "created": "2026-01-02T03:04:05Z"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff\xfe",
        b'{"version": 1, "keys": [',
        json.dumps({"version": 2, "keys": []}).encode(),
        json.dumps({"version": 1, "keys": [{}]}).encode(),
        json.dumps({"version": 1, "keys": [GOOD | {"sha256": ""}]}).encode(),
        json.dumps({"version": 1, "keys": [GOOD | {"admin": True}]}).encode(),
        b" " * (2 << 20),
    ],
    ids=lambda content: repr(content[:24]),
)
def test_a_damaged_file_lets_nobody_in_and_is_not_overwritten(
    keys: KeyFile, path: Path, content: bytes
) -> None:
    phone = keys.create("phone")
    assert keys.check(phone) == "phone"
    path.write_bytes(content)
    assert keys.check(phone) is None
    for attempt in (keys.names, lambda: keys.create("more"), lambda: keys.remove("phone")):
        with pytest.raises(ConfigError, match="damaged"):
            attempt()
    assert path.read_bytes() == content


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=70) | st.just("0" * 64),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["version", "keys", *GOOD, "x"]), inner, max_size=4)
    ),
    max_leaves=10,
)


@settings(max_examples=examples(300), deadline=None)
@given(st.binary(max_size=100) | JUNK.map(lambda value: json.dumps(value).encode()))
def test_whatever_the_file_holds_nobody_gets_in_who_has_no_key(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "api.keys"
        path.touch(mode=0o600)
        path.write_bytes(content)
        keys = KeyFile(path)
        assert [keys.check(text) for text in ("", "x", "0" * 64)] == [None] * 3
        with suppress(ConfigError):
            keys.names()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_file_that_is_open_to_others_lets_nobody_in(keys: KeyFile, path: Path, mode: int) -> None:
    phone = keys.create("phone")
    path.chmod(mode)
    assert keys.check(phone) is None
    with pytest.raises(ConfigError, match="chmod 600"):
        keys.names()
    path.chmod(0o600)
    assert keys.check(phone) == "phone"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_and_we_ourselves_may_own_the_file_and_nobody_else(keys: KeyFile, path: Path) -> None:
    phone = keys.create("phone")
    os.chown(path, 65534, 65534)
    assert keys.check(phone) is None
    with pytest.raises(ConfigError, match="belongs to another user"):
        keys.names()


def test_a_folder_in_its_place_lets_nobody_in(keys: KeyFile, path: Path) -> None:
    path.mkdir(parents=True, mode=0o700)
    assert keys.check("dslm-x") is None
    with pytest.raises(ConfigError, match="cannot read"):
        keys.names()


def test_keys_made_at_the_same_time_are_all_kept(path: Path) -> None:
    def make(number: int) -> None:
        KeyFile(path).create(f"k{number}")

    threads = [threading.Thread(target=make, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(KeyFile(path).names()) == {f"k{number}" for number in range(12)}


def test_nobody_with_a_key_is_an_error_that_says_what_to_do(keys: KeyFile) -> None:
    for none in (NoKeys(), keys):
        assert none.check("dslm-x") is None
        require_keys(GatewayConfig(), none)
        with pytest.raises(ConfigError, match=r"require_key is set, so .*dslm key create NAME"):
            require_keys(GatewayConfig(require_key=True), none)
    keys.create("phone")
    require_keys(GatewayConfig(require_key=True), keys)


def test_each_start_has_its_own_token(tmp_path: Path) -> None:
    path = tmp_path / "state" / "admin.token"
    first = AdminToken.create(path)
    secret = read_token(path)
    assert len(secret) >= 43
    assert first.matches(secret)
    assert not first.matches("")
    assert not first.matches(secret[:-1])
    assert not first.matches(secret + "\udcff")
    second = AdminToken.create(path)
    assert not second.matches(secret)
    assert second.matches(read_token(path))
    assert secret not in f"{first!r}{first}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["admin.token"]


def test_a_state_folder_that_was_open_is_closed(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o755)
    AdminToken.create(folder / "admin.token")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_token_that_cannot_be_had_is_nobodys(tmp_path: Path) -> None:
    assert read_token(tmp_path / "none") == ""
    (tmp_path / "binary").write_bytes(b"\xff\xff")
    assert read_token(tmp_path / "binary") == ""
    with pytest.raises(ConfigError):
        AdminToken("")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="cannot write"):
        AdminToken.create(tmp_path / "file" / "admin.token")
