"""Multiaddresses that we dial and listen on."""

import pytest

from protocols.adapters.libp2p.address import parse_address, parse_listen
from protocols.errors import UserError
from protocols.signing import Identity

PEER = Identity(b"p" * 32).peer_id


@pytest.mark.parametrize(
    "where", ["/ip4/1.2.3.4/tcp/4001", "/ip6/::1/tcp/4001", "/dns4/example.org/tcp/4001"]
)
def test_a_tcp_address_is_taken_apart(where: str) -> None:
    address = parse_address(f"{where}/p2p/{PEER}")
    assert (address.peer, str(address.where)) == (PEER, where)


def test_a_relayed_address_names_the_peer_behind_the_relay() -> None:
    relay = Identity(b"r" * 32).peer_id
    text = f"/ip4/1.2.3.4/tcp/1/p2p/{relay}/p2p-circuit/p2p/{PEER}"
    assert parse_address(text).peer == PEER


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        f"/p2p/{PEER}",
        "/ip4/1.2.3.4/tcp/4001",
        "/ip4/1.2.3.4/tcp/4001/p2p/",
        "/ip4/1.2.3.4/tcp/4001/p2p/QmNotAnEd25519Key",
        f"/ip4/1.2.3.4/tcp/70000/p2p/{PEER}",
        f"/ip4/1.2.3/tcp/1/p2p/{PEER}",
        f"/ip4/1.2.3.4/udp/4001/quic-v1/p2p/{PEER}",
        f"/unix/run/socket/p2p/{PEER}",
        f"/ip4/1.2.3.4/tcp/1/{'x' * 300}/p2p/{PEER}",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        parse_address(text)


def test_listening_addresses() -> None:
    assert parse_listen("/ip4/127.0.0.1/tcp/0") == ("127.0.0.1", 0)
    assert parse_listen("/ip6/::/tcp/4001") == ("::", 4001)
    for text in ("", "/ip4/127.0.0.1", "/ip4/x/tcp/1", "/ip4/1.2.3.4/udp/1", "/ip4/1.2.3.4/tcp/x"):
        with pytest.raises(UserError):
            parse_listen(text)
