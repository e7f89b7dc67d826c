"""Multiaddresses that we dial and listen on."""

import pytest
from hivemind.utils.multiaddr import Multiaddr

from protocols.adapters.libp2p.address import is_dialable, parse_address, parse_listen, to_wire
from protocols.errors import UserError
from protocols.ids import public_key_of
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


RELAY = Identity(b"r" * 32).peer_id


@pytest.mark.parametrize(
    "where",
    [
        f"/ip4/1.2.3.4/tcp/1/p2p/{RELAY}/p2p-circuit/p2p/{RELAY}/p2p-circuit",
        f"/ip4/1.2.3.4/tcp/1/p2p/{RELAY}",
        "/ip4/1.2.3.4/tcp/1/p2p-circuit",
        f"/ip4/1.2.3.4/tcp/1/p2p-circuit/p2p/{RELAY}",
        "/ip4/1.2.3.4/tcp/1/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N/p2p-circuit",
        "/tcp/1",
        "/p2p-circuit",
        "/ip4/1.2.3.4/ip4/1.2.3.4/tcp/1",
    ],
)
def test_odd_ways_to_a_relay_are_refused(where: str) -> None:
    with pytest.raises(UserError):
        parse_address(f"{where}/p2p/{PEER}")


def test_a_relay_s_id_is_sent_as_go_libp2p_wants_it() -> None:
    """As a multihash; a CID in its place is refused by go-libp2p."""
    text = f"/ip4/1.2.3.4/tcp/1/p2p/{RELAY}/p2p-circuit"
    wire = to_wire(parse_address(f"{text}/p2p/{PEER}").where)
    relay = bytes.fromhex("002408011220") + public_key_of(RELAY)
    assert wire == bytes.fromhex("0401020304060001a50326") + relay + bytes.fromhex("a202")
    assert str(Multiaddr(wire)) == text
    direct = parse_address(f"/ip4/1.2.3.4/tcp/1/p2p/{PEER}").where
    assert to_wire(direct) == direct.to_bytes()


def test_what_p2pd_says_of_itself_is_dialable_or_left_out() -> None:
    for where in ("/ip4/1.2.3.4/tcp/1", f"/ip4/1.2.3.4/tcp/1/p2p/{RELAY}/p2p-circuit"):
        assert is_dialable(Multiaddr(f"{where}/p2p/{PEER}"))
        assert not is_dialable(Multiaddr(where))
    assert not is_dialable(Multiaddr(f"/ip4/1.2.3.4/udp/1/quic-v1/p2p/{PEER}"))


def test_listening_addresses() -> None:
    assert parse_listen("/ip4/127.0.0.1/tcp/0") == ("127.0.0.1", 0)
    assert parse_listen("/ip6/::/tcp/4001") == ("::", 4001)
    for text in ("", "/ip4/127.0.0.1", "/ip4/x/tcp/1", "/ip4/1.2.3.4/udp/1", "/ip4/1.2.3.4/tcp/x"):
        with pytest.raises(UserError):
            parse_listen(text)
