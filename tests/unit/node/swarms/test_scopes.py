"""How far addresses reach, and who may have which dialled."""

import pytest

from node.swarms.scopes import Scope, endpoint_of, reason_not_to_dial, scope_of, without_peer

PEER = "12D3KooWA"


@pytest.mark.parametrize(
    ("address", "scope"),
    [
        ("/ip4/127.0.0.1/tcp/1", Scope.LOOPBACK),
        ("/ip4/127.8.8.8/tcp/1/p2p/" + PEER, Scope.LOOPBACK),
        ("/ip6/::1/tcp/1", Scope.LOOPBACK),
        ("/ip6/::ffff:127.0.0.1/tcp/1", Scope.LOOPBACK),
        ("/ip4/169.254.1.1/tcp/1", Scope.LINK),
        ("/ip6/fe80::1/tcp/1", Scope.LINK),
        ("/ip4/10.1.2.3/tcp/1", Scope.LAN),
        ("/ip4/192.168.0.7/tcp/65535", Scope.LAN),
        ("/ip4/172.31.0.1/tcp/1", Scope.LAN),
        ("/ip4/100.64.0.1/tcp/1", Scope.LAN),
        ("/ip4/100.127.255.254/tcp/1", Scope.LAN),
        ("/ip4/100.128.0.1/tcp/1", Scope.PUBLIC),
        ("/ip6/fd00::7/tcp/1", Scope.LAN),
        ("/ip4/45.90.7.1/tcp/1", Scope.PUBLIC),
        ("/ip6/2a00:1450::1/tcp/1", Scope.PUBLIC),
        ("/dns/node.example.org/tcp/443", Scope.PUBLIC),
        ("/dns4/node.example.org/tcp/443/p2p/" + PEER, Scope.PUBLIC),
        ("/ip4/45.90.7.1/tcp/1/p2p/R/p2p-circuit/p2p/" + PEER, Scope.RELAY),
        ("/ip4/0.0.0.0/tcp/1", Scope.NONE),
        ("/ip6/::/tcp/1", Scope.NONE),
        ("/ip4/224.0.0.1/tcp/1", Scope.NONE),
        ("/ip4/255.255.255.255/tcp/1", Scope.NONE),
        ("/ip4/240.0.0.1/tcp/1", Scope.NONE),
        ("/ip4/45.90.7.1/udp/1/quic-v1", Scope.NONE),
        ("/ip4/45.90.7.1/tcp/0", Scope.NONE),
        ("/ip4/45.90.7.1/tcp/65536", Scope.NONE),
        ("/ip4/45.90.7.1/tcp/²", Scope.NONE),
        ("/ip4/45.90.7.1/tcp/-1", Scope.NONE),
        ("/ip4/045.90.7.1/tcp/1", Scope.NONE),
        ("/ip4/45.90.7/tcp/1", Scope.NONE),
        ("/ip6/fe80::1%eth0/tcp/1", Scope.NONE),
        ("/memory/x/p2p/" + PEER, Scope.NONE),
        ("45.90.7.1:1", Scope.NONE),
        ("", Scope.NONE),
        ("/dns//tcp/1", Scope.NONE),
    ],
)
def test_scope(address: str, scope: Scope) -> None:
    assert scope_of(address) is scope


@pytest.mark.parametrize(
    ("address", "observed"),
    [
        ("/ip4/45.90.7.1/tcp/7779", "/ip4/45.90.7.1/tcp/50123"),
        ("/ip4/45.90.7.1/tcp/7779/p2p/" + PEER, "/ip4/45.90.7.1/tcp/50123/p2p/" + PEER),
        ("/ip4/10.0.0.2/tcp/7779", "/ip4/10.0.0.2/tcp/1"),
        ("/ip4/10.0.0.2/tcp/7779", "/ip6/::ffff:10.0.0.2/tcp/1"),
        ("/ip4/127.0.0.2/tcp/7779", "/ip4/127.0.0.1/tcp/1"),
        ("/ip6/::1/tcp/7779", "/ip4/127.0.0.1/tcp/1"),
        ("/ip6/2a00:1450::1/tcp/1", "/ip6/2a00:1450:0::1/tcp/9"),
    ],
)
def test_a_peer_may_have_its_own_ip_dialled(address: str, observed: str) -> None:
    assert reason_not_to_dial(address, [observed]) == ""


@pytest.mark.parametrize(
    ("address", "observed"),
    [
        ("/ip4/45.90.7.2/tcp/7779", "/ip4/45.90.7.1/tcp/50123"),
        ("/ip4/127.0.0.1/tcp/22", "/ip4/45.90.7.1/tcp/50123"),
        ("/ip6/::1/tcp/22", "/ip4/10.0.0.9/tcp/50123"),
        ("/ip4/10.0.0.1/tcp/80", "/ip4/10.0.0.2/tcp/50123"),
        ("/ip4/10.0.0.1/tcp/80", "/ip4/127.0.0.1/tcp/50123"),
        ("/ip4/45.90.7.1/tcp/80", "/ip4/127.0.0.1/tcp/50123"),
        ("/ip4/0.0.0.0/tcp/80", "/ip4/0.0.0.0/tcp/1"),
        ("/ip4/224.0.0.1/tcp/80", "/ip4/224.0.0.1/tcp/1"),
        ("/dns4/victim.example/tcp/80", "/ip4/45.90.7.1/tcp/50123"),
        ("/ip4/45.90.7.1/tcp/80/p2p/R/p2p-circuit", "/ip4/45.90.7.1/tcp/50123"),
        # Seen through a relay at that IP: the relay is not the asking peer.
        ("/ip4/45.90.7.1/tcp/80", "/ip4/45.90.7.1/tcp/7779/p2p/R/p2p-circuit"),
        ("/ip4/45.90.7.1/udp/80", "/ip4/45.90.7.1/tcp/50123"),
        ("nonsense", "/ip4/45.90.7.1/tcp/50123"),
    ],
)
def test_nobody_else_is_dialled(address: str, observed: str) -> None:
    assert reason_not_to_dial(address, [observed])
    assert reason_not_to_dial(address, [])


def test_the_peer_id_is_taken_off() -> None:
    assert without_peer("/ip4/1.2.3.4/tcp/1/p2p/" + PEER) == "/ip4/1.2.3.4/tcp/1"
    assert without_peer("/ip4/1.2.3.4/tcp/1") == "/ip4/1.2.3.4/tcp/1"
    relayed = "/ip4/1.2.3.4/tcp/1/p2p/R/p2p-circuit"
    assert without_peer(relayed) == relayed
    assert without_peer(relayed + "/p2p/" + PEER) == relayed


def test_an_endpoint_is_plain() -> None:
    assert endpoint_of("/ip4/1.2.3.4/tcp/80/p2p/") is None
    found = endpoint_of("/ip4/1.2.3.4/tcp/80")
    assert found is not None
    assert (str(found.ip), found.port) == ("1.2.3.4", 80)
