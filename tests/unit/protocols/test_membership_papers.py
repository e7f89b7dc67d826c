"""Charters, invites, ledgers, proofs of work: what they say, and what they do not let pass."""

import msgspec
import pytest

from protocols import limits
from protocols.errors import NotAdmitted, ProtocolError, RecordError, UserError
from protocols.ids import PeerId
from protocols.membership.charter import Charter, open_charter, owner_of
from protocols.membership.documents import Role
from protocols.membership.invite import (
    Invite,
    check_proof,
    format_invite,
    parse_invite,
    prove_invite,
)
from protocols.membership.ledger import INVITES_MAX, Issued, Ledger, load_ledger
from protocols.membership.proof import is_proof, make_proof
from protocols.signing import Identity
from tests.simulation.members import identity_of

NOW = 1_800_000_000.0
OWNER, ISSUER, ALICE, BOB = (identity_of(name) for name in ("owner", "issuer", "alice", "bob"))
CHARTER = Charter("home", OWNER.peer_id, is_private=True)
KEY = identity_of("invite")
ADDRESS = f"/ip4/192.0.2.1/tcp/7/p2p/{ISSUER.peer_id}"


def _invite(**changes: object) -> Invite:
    invite = Invite(CHARTER, (ADDRESS, f"/ip4/192.0.2.2/tcp/7/p2p/{BOB.peer_id}"), NOW, bytes(32))
    return msgspec.structs.replace(invite, **changes)


def test_every_word_of_a_charter_makes_another_swarm() -> None:
    charters = (
        CHARTER,
        Charter("home", OWNER.peer_id),
        Charter("home", ALICE.peer_id, is_private=True),
        Charter("hom", OWNER.peer_id, is_private=True),
        open_charter("home"),
    )
    assert len({charter.swarm for charter in charters}) == len(charters)
    assert CHARTER.swarm == Charter("home", OWNER.peer_id, is_private=True).swarm


@pytest.mark.parametrize(
    "charter",
    [
        Charter("home", is_private=True),
        Charter("home/garden", OWNER.peer_id),
        Charter("Home", OWNER.peer_id),
        Charter("home", "somebody"),
    ],
)
def test_charters_that_cannot_be(charter: Charter) -> None:
    with pytest.raises(ProtocolError):
        charter.check()


def test_an_open_swarm_has_no_owner() -> None:
    with pytest.raises(ProtocolError, match="nobody"):
        owner_of(open_charter("home"))


def test_an_invite_is_one_string() -> None:
    invite = _invite()
    text = format_invite(invite)
    assert parse_invite(f"  {text[:20]}\n{text[20:]} ") == invite
    assert invite.issuer == ISSUER.peer_id
    assert invite.addresses_of(ISSUER.peer_id) == (ADDRESS,)
    public = _invite(charter=open_charter("open"), seed=b"", addresses=())
    assert parse_invite(format_invite(public)) == public


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": b""},
        {"seed": bytes(31)},
        {"addresses": ()},
        {"addresses": ("/ip4/192.0.2.1/tcp/7",)},
        {"addresses": ("/ip4/192.0.2.1/tcp/7/p2p/somebody",)},
        {"charter": Charter("home", is_private=True)},
    ],
)
def test_invites_that_cannot_be_used_are_not_read(changes: dict[str, object]) -> None:
    with pytest.raises(UserError, match="cannot be used"):
        parse_invite(format_invite(_invite(**changes)))


def test_a_damaged_invite_is_noticed() -> None:
    text = format_invite(_invite())
    flipped = text[:30] + ("A" if text[30] != "A" else "B") + text[31:]
    for wrong in (text[:-3], flipped, text[5:], text + "!", "dslm:", "dslm:" + "A" * 9_000):
        with pytest.raises(UserError):
            parse_invite(wrong)


def test_the_proof_of_an_invite_is_for_one_joiner_at_one_issuer() -> None:
    swarm = CHARTER.swarm
    proof = prove_invite(KEY, swarm, ALICE.peer_id, ISSUER.peer_id)
    check_proof(KEY.peer_id, swarm, ALICE.peer_id, ISSUER.peer_id, proof)
    other_swarm = Charter("away", OWNER.peer_id, is_private=True).swarm
    for invite, place, joiner, issuer in (
        (KEY, swarm, BOB, ISSUER),
        (KEY, swarm, ALICE, BOB),
        (KEY, other_swarm, ALICE, ISSUER),
        (BOB, swarm, ALICE, ISSUER),
    ):
        with pytest.raises(RecordError):
            check_proof(invite.peer_id, place, joiner.peer_id, issuer.peer_id, proof)


def _issued(uses: int = 1, key: Identity = KEY, expires_at: float = NOW + 60) -> Issued:
    return Issued(key.peer_id, (Role.USER,), uses, NOW, expires_at)


def test_an_invite_is_used_as_often_as_it_says_by_as_many_peers() -> None:
    ledger = Ledger()
    ledger.add(_issued(uses=2), NOW)
    for joiner in (ALICE, ALICE, BOB, ALICE):
        ledger.redeem(KEY.peer_id, joiner.peer_id, NOW, 0.0)
    with pytest.raises(NotAdmitted, match="used up"):
        ledger.redeem(KEY.peer_id, ISSUER.peer_id, NOW, 0.0)
    again = load_ledger(ledger.dump())
    assert again.issued == ledger.issued
    with pytest.raises(NotAdmitted, match="used up"):
        again.redeem(KEY.peer_id, ISSUER.peer_id, NOW, 0.0)
    assert again.redeem(KEY.peer_id, BOB.peer_id, NOW, 0.0).left == 0


def test_an_invite_cannot_be_entered_twice() -> None:
    ledger = Ledger()
    ledger.add(_issued(), NOW)
    ledger.redeem(KEY.peer_id, ALICE.peer_id, NOW, 0.0)
    with pytest.raises(NotAdmitted, match="before"):
        ledger.add(_issued(), NOW)
    with pytest.raises(NotAdmitted, match="used up"):
        ledger.redeem(KEY.peer_id, BOB.peer_id, NOW, 0.0)


def test_invites_end_by_time_by_rotation_and_by_withdrawal() -> None:
    ledger = Ledger()
    ledger.add(_issued(uses=9), NOW)
    with pytest.raises(NotAdmitted, match="expired"):
        ledger.redeem(KEY.peer_id, ALICE.peer_id, NOW + 60, 0.0)
    with pytest.raises(NotAdmitted, match="expired"):
        ledger.redeem(KEY.peer_id, ALICE.peer_id, NOW, NOW + 1)
    assert ledger.withdraw(KEY.peer_id)
    assert not ledger.withdraw(KEY.peer_id)
    with pytest.raises(NotAdmitted, match="withdrawn"):
        ledger.redeem(KEY.peer_id, ALICE.peer_id, NOW, 0.0)


def test_open_invites_are_bounded_and_old_ones_make_room() -> None:
    ledger = Ledger()
    for n in range(INVITES_MAX):
        ledger.issued[PeerId(str(n))] = _issued(expires_at=NOW + (60 if n else -86_401))
    ledger.add(_issued(), NOW)
    assert len(ledger.issued) == INVITES_MAX
    with pytest.raises(NotAdmitted, match="too many"):
        ledger.add(_issued(key=BOB), NOW)


def test_a_damaged_ledger_is_no_empty_one() -> None:
    for data in (b"", b"\x91", b"\x80", b"\xc0"):
        with pytest.raises(ProtocolError):
            load_ledger(data)


def test_a_proof_of_work_is_for_one_peer_in_one_swarm() -> None:
    nonce = make_proof(CHARTER.swarm, ALICE.peer_id, bits=10)
    assert is_proof(CHARTER.swarm, ALICE.peer_id, nonce, bits=10)
    others = [identity_of(str(n)).peer_id for n in range(64)]
    assert sum(is_proof(CHARTER.swarm, peer, nonce, bits=10) for peer in others) <= 2
    assert not is_proof(open_charter("x").swarm, ALICE.peer_id, nonce, bits=16)
    for wrong in (-1, 2**64):
        assert not is_proof(CHARTER.swarm, ALICE.peer_id, wrong, bits=0)


def test_what_strangers_may_send_is_small() -> None:
    from protocols.messages.enrol import ENROL_REQUEST_BYTES_MAX
    from protocols.messages.hello import HELLO_BYTES_MAX

    assert max(HELLO_BYTES_MAX, ENROL_REQUEST_BYTES_MAX) <= 3 * limits.CREDENTIAL_BYTES_MAX
