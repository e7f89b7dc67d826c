"""The handshake's first half believes nobody but the holder of the right key."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.adapters.libp2p.noise import Initiator, check_payload
from protocols.adapters.libp2p.probe import parse_target
from protocols.errors import PeerUnreachable, ProtocolError
from protocols.signing import Identity
from tests.effort import examples
from tests.unit.protocols.adapters.libp2p.responder import SEED, field, payload, respond

ALICE, BOB = Identity(b"a" * 32), Identity(b"b" * 32)
STATIC = X25519PrivateKey.from_private_bytes(b"s" * 32)
STATIC_PUBLIC = STATIC.public_key().public_bytes_raw()
LOW_ORDER = bytes(32)


def key_of(identity: Identity) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(identity.to_libp2p()[SEED])


def initiator() -> tuple[Initiator, bytes]:
    made = Initiator(X25519PrivateKey.generate())
    return made, made.first()


def read(content: bytes) -> None:
    """Have Alice be asked for, and answered with `content`."""
    asking, first = initiator()
    asking.read_second(respond(first, STATIC, content), ALICE.peer_id)


def test_the_holder_of_the_key_is_believed() -> None:
    read(payload(key_of(ALICE), STATIC_PUBLIC))


def test_fields_that_we_do_not_know_are_skipped() -> None:
    extra = field(4, b"extensions") + bytes([5 << 3, 7])
    read(extra + payload(key_of(ALICE), STATIC_PUBLIC) + extra)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(payload(key_of(BOB), STATIC_PUBLIC), id="another peer"),
        pytest.param(payload(key_of(ALICE), LOW_ORDER), id="signed another static key"),
        pytest.param(payload(key_of(ALICE), STATIC_PUBLIC, b"other-purpose:"), id="other purpose"),
        pytest.param(
            payload(key_of(ALICE), STATIC_PUBLIC)[:38] + payload(key_of(BOB), STATIC_PUBLIC)[38:],
            id="the key of one, the signature of another",
        ),
        pytest.param(payload(key_of(ALICE), STATIC_PUBLIC)[:38], id="no signature"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff" * 40, id="an endless number"),
        pytest.param(b"\x0a\x7f\x00", id="a field longer than the message"),
        pytest.param(b"\x09" + bytes(8), id="a kind of field that is not used"),
    ],
)
def test_nobody_else_is(content: bytes) -> None:
    with pytest.raises(ProtocolError):
        read(content)


def test_an_answer_to_somebody_else_is_worth_nothing() -> None:
    """As when the answer of an earlier handshake is played again."""
    _, first = initiator()
    answer = respond(first, STATIC, payload(key_of(ALICE), STATIC_PUBLIC))
    other, _ = initiator()
    with pytest.raises(ProtocolError):
        other.read_second(answer, ALICE.peer_id)


def test_a_point_that_makes_the_secret_known_is_refused() -> None:
    asking, first = initiator()
    answer = respond(first, STATIC, payload(key_of(ALICE), STATIC_PUBLIC))
    with pytest.raises(ProtocolError):
        asking.read_second(LOW_ORDER + answer[32:], ALICE.peer_id)


@settings(max_examples=examples(300), deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_every_byte_of_the_answer_counts(place: int, change: int) -> None:
    asking, first = initiator()
    answer = bytearray(respond(first, STATIC, payload(key_of(ALICE), STATIC_PUBLIC)))
    place %= len(answer)
    answer[place] ^= change
    with pytest.raises(ProtocolError):
        asking.read_second(bytes(answer), ALICE.peer_id)


@settings(max_examples=examples(300), deadline=None)
@given(st.binary(max_size=400))
def test_noise_of_the_other_kind(data: bytes) -> None:
    asking, _ = initiator()
    with pytest.raises(ProtocolError):
        asking.read_second(data, ALICE.peer_id)


@settings(max_examples=examples(300))
@given(st.binary(max_size=200))
def test_any_payload_is_taken_apart_or_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        check_payload(data, STATIC_PUBLIC, ALICE.peer_id)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("/ip4/1.2.3.4/tcp/4001", ("1.2.3.4", 4001)),
        (f"/ip4/1.2.3.4/tcp/4001/p2p/{ALICE.peer_id}", ("1.2.3.4", 4001)),
        ("/ip6/::1/tcp/1", ("::1", 1)),
    ],
)
def test_targets(text: str, target: tuple[str, int]) -> None:
    assert parse_target(text, ALICE.peer_id) == target


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "/ip4/1.2.3.4",
        "ip4/1.2.3.4/tcp/1/",
        "/ip4/1.2.3.4/tcp/0",
        "/ip4/1.2.3.4/tcp/65536",
        "/ip4/1.2.3.4/tcp/-1",
        "/ip4/1.2.3.4/tcp/²",
        "/ip4/1.2.3.4/tcp/" + "9" * 200,
        "/ip4/::1/tcp/1",
        "/ip6/1.2.3.4/tcp/1",
        "/ip6/fe80::1%eth0/tcp/1",
        "/dns4/localhost/tcp/1",
        "/ip4/1.2.3.4/udp/1",
        "/unix/run/x/tcp",
        f"/ip4/1.2.3.4/tcp/1/p2p/{BOB.peer_id}",
        f"/ip4/1.2.3.4/tcp/1/p2p/{BOB.peer_id}/p2p-circuit/p2p/{ALICE.peer_id}",
        "/ip4/1.2.3.4/tcp/1" + "/x" * 500,
    ],
)
def test_what_is_no_target(text: str) -> None:
    with pytest.raises(PeerUnreachable):
        parse_target(text, ALICE.peer_id)


@given(st.text(max_size=80))
def test_any_text_is_a_target_or_refused(text: str) -> None:
    try:
        parse_target(f"/ip4/{text}", ALICE.peer_id)
    except PeerUnreachable:
        return
