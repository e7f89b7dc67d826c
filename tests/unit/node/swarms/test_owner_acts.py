"""What an owner signs: growing lists, a floor, delegations; judged by the book of members."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.swarms.owner_acts import InForce, Owner, is_revocations, read_documents
from protocols import limits
from protocols.errors import NotAdmitted, RecordError, UserError
from protocols.ids import PeerId
from protocols.membership.book import FLOOR_GRACE_SECONDS, MemberBook, credential_of
from protocols.membership.charter import Charter
from protocols.membership.documents import (
    Certificate,
    Revocations,
    Role,
    open_delegation,
    open_revocations,
    seal_document,
)
from protocols.signing import Identity
from tests.effort import examples

OWNER, FIRST, SECOND, BOB = (Identity(bytes([n] * 32)) for n in range(1, 5))
LAB = Charter("lab", OWNER.peer_id, is_private=True)
NOW = 1_800_000_000.0
NOTHING = InForce(LAB, Revocations(LAB.swarm, 0, 0.0), ())


def after(*documents: bytes) -> InForce:
    return read_documents(LAB, documents)


def appointed(*issuers: Identity, now: float = NOW) -> tuple[bytes, ...]:
    owner = Owner(OWNER, NOTHING)
    return tuple(owner.appoint(one.peer_id, now)[0] for one in issuers)


def certified(peer: Identity, issuer: Identity, delegation: bytes, now: float = NOW) -> bytes:
    certificate = Certificate(LAB.swarm, peer.peer_id, (Role.NODE,), 1, now, now + 3_600)
    return credential_of(seal_document(certificate, issuer), delegation)


def told(*documents: bytes) -> MemberBook:
    book = MemberBook(LAB)
    for data in documents:
        if is_revocations(data):
            book.offer_revocations(data)
        else:
            book.offer_delegation(data, NOW)
    return book


def test_an_appointed_issuer_may_issue_for_90_days() -> None:
    (document,) = appointed(FIRST)
    delegation = open_delegation(document, LAB)
    assert delegation.expires_at - delegation.issued_at == limits.DELEGATION_SECONDS_MAX
    book = told(document)
    assert book.is_issuer(FIRST.peer_id, NOW)
    book.check(BOB.peer_id, certified(BOB, FIRST, document), NOW)


def test_a_revoked_peer_is_out_and_stays_out() -> None:
    documents = appointed(FIRST)
    (list_1,) = Owner(OWNER, after(*documents)).revoke(BOB.peer_id, NOW)
    (list_2,) = Owner(OWNER, after(*documents, list_1)).revoke(SECOND.peer_id, NOW + 5)
    book = told(*documents, list_2)
    assert book.epoch == 2
    for peer in (BOB, SECOND):
        with pytest.raises(NotAdmitted, match="revoked"):
            book.check(peer.peer_id, certified(peer, FIRST, documents[0]), NOW)
    with pytest.raises(UserError, match="revoked already"):
        Owner(OWNER, after(list_2, list_1)).revoke(BOB.peer_id, NOW)


def test_a_revoked_issuer_is_none_and_cannot_be_appointed_again() -> None:
    documents = appointed(FIRST, SECOND)
    (revoked,) = Owner(OWNER, after(*documents)).revoke(FIRST.peer_id, NOW)
    in_force = after(*documents, revoked)
    assert in_force.issuers(NOW) == (SECOND.peer_id,)
    with pytest.raises(UserError, match="is revoked"):
        Owner(OWNER, in_force).appoint(FIRST.peer_id, NOW)


def test_a_rotation_voids_certificates_and_keeps_the_living_issuers() -> None:
    documents = appointed(FIRST, SECOND)
    (revoked,) = Owner(OWNER, after(*documents)).revoke(FIRST.peer_id, NOW)
    later = NOW + 100
    rotated = Owner(OWNER, after(*documents, revoked)).rotate(later)
    in_force = after(*rotated)
    assert in_force.revocations.floor == later
    assert in_force.revocations.epoch == 2
    assert in_force.revocations.peers == (FIRST.peer_id,)
    assert in_force.issuers(later) == (SECOND.peer_id,)
    book = told(*documents, *rotated)
    old = certified(BOB, SECOND, documents[1])
    after_grace = later + FLOOR_GRACE_SECONDS + 1
    with pytest.raises(NotAdmitted, match="rotation"):
        book.check(BOB.peer_id, old, after_grace)
    book.check(BOB.peer_id, certified(BOB, SECOND, rotated[1], later), after_grace)


def test_issuers_whose_time_is_over_are_not_rotated_on() -> None:
    documents = appointed(FIRST, now=NOW - limits.DELEGATION_SECONDS_MAX - 1)
    assert len(Owner(OWNER, after(*documents)).rotate(NOW)) == 1


def test_an_appointment_after_a_rotation_holds_though_the_clock_went_back() -> None:
    rotated = Owner(OWNER, NOTHING).rotate(NOW)
    (delegation,) = Owner(OWNER, after(*rotated)).appoint(FIRST.peer_id, NOW - 3_600)
    assert after(*rotated, delegation).issuers(NOW) == (FIRST.peer_id,)


def test_what_an_owner_may_not_do() -> None:
    with pytest.raises(UserError, match="not the key"):
        Owner(BOB, NOTHING)
    commons = Charter("commons", OWNER.peer_id)
    public = InForce(commons, Revocations(commons.swarm, 0, 0.0), ())
    with pytest.raises(UserError, match="needs no issuers"):
        Owner(OWNER, public).appoint(BOB.peer_id, NOW)
    assert open_revocations(Owner(OWNER, public).revoke(BOB.peer_id, NOW)[0], commons).epoch == 1
    full = Revocations(LAB.swarm, 1, NOW, tuple(map(str, range(limits.REVOKED_MAX))))
    with pytest.raises(UserError, match="full"):
        Owner(OWNER, InForce(LAB, full, ())).revoke(BOB.peer_id, NOW)


def test_documents_of_others_are_not_read() -> None:
    forged = seal_document(Revocations(LAB.swarm, 9, NOW), BOB)
    with pytest.raises(RecordError, match="owner did not sign"):
        read_documents(LAB, (forged,))


@settings(deadline=None, max_examples=examples(40))
@given(
    st.lists(
        st.tuples(st.sampled_from(["revoke", "rotate", "appoint"]), st.integers(2, 5)), max_size=8
    ),
    st.lists(st.floats(-5_000, 5_000), min_size=1, max_size=4),
)
def test_no_history_lets_a_revoked_peer_back_in(
    acts: list[tuple[str, int]], jumps: list[float]
) -> None:
    """Whatever the owner does, and whatever its clock does meanwhile."""
    documents: list[bytes] = []
    revoked: set[PeerId] = set()
    epoch, now = 0, NOW
    for number, (act, who) in enumerate(acts):
        now += jumps[number % len(jumps)]
        peer = Identity(bytes([who] * 32)).peer_id
        owner = Owner(OWNER, after(*documents))
        try:
            made = owner.rotate(now) if act == "rotate" else getattr(owner, act)(peer, now)
        except UserError:
            assert peer in revoked
            continue
        documents += made
        revoked |= {peer} if act == "revoke" else set()
        in_force = after(*documents)
        assert set(in_force.revocations.peers) == revoked
        assert in_force.revocations.epoch == epoch + (act != "appoint")
        epoch = in_force.revocations.epoch
        assert not revoked & set(in_force.issuers(now))
