"""Ids: peer ids carry their key, names follow one rule."""

import pytest

from protocols.errors import ProtocolError
from protocols.ids import (
    parse_peer_id,
    parse_specialist_id,
    parse_swarm_id,
    peer_id_from_public_key,
    public_key_of,
)

KEY = bytes(range(32))


def test_a_peer_id_contains_its_public_key() -> None:
    peer = peer_id_from_public_key(KEY)
    assert peer.startswith("12D3KooW")
    assert public_key_of(peer) == KEY
    assert parse_peer_id(peer) == peer


@pytest.mark.parametrize("text", ["", "12D3KooW", "0OIl", "Q" * 52, "x" * 10_000, "é" * 52])
def test_other_texts_are_no_peer_ids(text: str) -> None:
    with pytest.raises(ProtocolError):
        parse_peer_id(text)


def test_a_public_key_has_32_bytes() -> None:
    with pytest.raises(ProtocolError):
        peer_id_from_public_key(KEY[:31])


@pytest.mark.parametrize("text", ["law", "acme/law-7b.q4", "0", "a" * 96, "a_b-c.d/e"])
def test_specialist_ids(text: str) -> None:
    assert parse_specialist_id(text) == text
    assert parse_swarm_id(text) == text


@pytest.mark.parametrize("text", ["", "/a", "a/", "a/b/c", "A", "a b", "-a", "a" * 97, "a\n"])
def test_other_texts_are_no_specialist_ids(text: str) -> None:
    with pytest.raises(ProtocolError):
        parse_specialist_id(text)
