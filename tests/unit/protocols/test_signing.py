"""Identities: the libp2p key format, signatures with a domain, keys that stay secret."""

import pytest

from protocols.errors import ConfigError, ProtocolError, RecordError
from protocols.ids import PeerId
from protocols.signing import Identity, verify

IDENTITY = Identity(bytes(range(32)))


def test_the_key_format_round_trips() -> None:
    data = IDENTITY.to_libp2p()
    assert data[:4] == bytes.fromhex("08011240")
    assert len(data) == 68
    assert Identity.from_libp2p(data).peer_id == IDENTITY.peer_id


def test_damaged_key_files_are_refused() -> None:
    data = IDENTITY.to_libp2p()
    damaged = [b"", data[:-1], data + b"\0", b"\0" + data[1:], data[:-1] + b"\0"]
    for bad in damaged:
        with pytest.raises(ConfigError):
            Identity.from_libp2p(bad)


def test_a_signature_holds_for_its_kind_bytes_and_peer_only() -> None:
    signature = IDENTITY.sign("node", b"data")
    verify(IDENTITY.peer_id, "node", b"data", signature)
    other = Identity(bytes(32))
    for peer, kind, data in (
        (other.peer_id, "node", b"data"),
        (IDENTITY.peer_id, "card", b"data"),
        (IDENTITY.peer_id, "node", b"date"),
    ):
        with pytest.raises(RecordError):
            verify(peer, kind, data, signature)
    with pytest.raises(ProtocolError):
        verify(PeerId("nobody"), "node", b"data", signature)
    with pytest.raises(RecordError):
        verify(IDENTITY.peer_id, "node", b"data", b"short")


def test_repr_shows_no_secret() -> None:
    assert repr(IDENTITY) == f"<Identity {IDENTITY.peer_id}>"


def test_generated_identities_differ() -> None:
    assert Identity.generate().peer_id != Identity.generate().peer_id
