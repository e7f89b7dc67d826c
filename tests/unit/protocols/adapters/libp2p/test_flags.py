"""The command line of p2pd: all that matters is said, for its defaults are a public node's."""

from dataclasses import replace
from pathlib import Path

from protocols import limits
from protocols.adapters.libp2p.flags import DaemonSettings, command, environment

SETTINGS = DaemonSettings(Path("/run/x"), Path("/run/x/key"), ("/ip4/127.0.0.1/tcp/1",), 60.0)
RELAYS = ("/ip4/45.90.7.1/tcp/1/p2p/one", "/ip4/45.90.7.2/tcp/1/p2p/two")


def flags(settings: DaemonSettings) -> dict[str, str]:
    arguments = command(Path("/bin/p2pd"), Path("/run/x/sock"), settings)
    ours = arguments[arguments.index("/bin/p2pd") + 1 :]
    return dict(argument.removeprefix("-").split("=", 1) for argument in ours)


def test_noise_alone_and_no_help_to_strangers() -> None:
    said = flags(SETTINGS)
    expected = {"noise": "1", "tls": "0", "autonat": "0", "natPortMap": "0", "relayService": "0"}
    assert said | expected == said
    assert said["autoRelay"] == "0"
    assert said["relayDiscovery"] == "0"
    assert said["hostAddrs"] == "/ip4/127.0.0.1/tcp/1"
    assert "noListenAddrs" not in said
    assert "trustedRelays" not in said


def test_everything_is_bounded() -> None:
    said = flags(SETTINGS)
    assert int(said["connLo"]) < int(said["connHi"]) <= 128
    assert limits.DHT_MESSAGE_BYTES_MAX < int(said["persistentConnMaxMsgSize"]) < 1 << 20
    assert environment(Path("/run/x"))["GOMEMLIMIT"] == "400MiB"


def test_one_who_cannot_listen_says_so() -> None:
    said = flags(replace(SETTINGS, listen=()))
    assert said["noListenAddrs"] == "1"
    assert "hostAddrs" not in said


def test_the_relays_are_those_that_were_named() -> None:
    said = flags(replace(SETTINGS, listen=(), relays=RELAYS))
    assert said["autoRelay"] == "1"
    assert said["relayDiscovery"] == "0"
    assert said["forceReachabilityPrivate"] == "1"
    assert said["trustedRelays"] == ",".join(RELAYS)
