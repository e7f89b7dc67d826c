"""The book of members: what it believes, of whom, and for how long."""

import msgspec
import pytest

from protocols import limits
from protocols.errors import NotAdmitted, ProtocolError, RecordError
from protocols.ids import PeerId
from protocols.membership import book as book_module
from protocols.membership.book import (
    FLOOR_GRACE_SECONDS,
    MEMBERS_MAX,
    MemberBook,
    NotProven,
    credential_of,
)
from protocols.membership.charter import open_charter
from protocols.membership.documents import (
    Certificate,
    Delegation,
    Revocations,
    Role,
    open_certificate,
    open_revocations,
    peek_certificate,
    seal_document,
)
from protocols.signing import Identity
from tests.effort import THOROUGH
from tests.simulation.members import DAY, Owner, certify, credential, identity_of

NOW = 1_800_000_000.0
ISSUER, OTHER, ALICE, BOB = (identity_of(name) for name in ("issuer", "other", "alice", "bob"))


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture
def book(owner: Owner) -> MemberBook:
    return MemberBook(owner.charter)


def _paper(owner: Owner, peer: PeerId = ALICE.peer_id, now: float = NOW) -> bytes:
    return credential(owner, ISSUER, peer, now)


def test_a_member_is_admitted_until_its_certificate_ends(owner: Owner, book: MemberBook) -> None:
    membership = book.admit(ALICE.peer_id, _paper(owner), NOW)
    assert membership.roles == {Role.NODE, Role.USER}
    assert membership.issuer == ISSUER.peer_id
    assert book.member(ALICE.peer_id, NOW + DAY - 1) == membership
    assert book.member(ALICE.peer_id, NOW + DAY) is None
    assert book.members(NOW) == (membership,)
    assert book.members(NOW + DAY) == ()
    assert book.expel(NOW + DAY) == (ALICE.peer_id,)
    assert book.expel(NOW + DAY) == ()


def _wrong(owner: Owner) -> dict[str, tuple[bytes, type[NotAdmitted]]]:
    """What must not let ALICE in, by its fault, and whether it proves anything."""
    alice, charter = ALICE.peer_id, owner.charter
    good = owner.delegate(ISSUER.peer_id, NOW)
    elsewhere = Owner("elsewhere")
    alike = Owner("home")
    alike.identity = identity_of("impostor")
    owned = certify(ISSUER, charter, alice, NOW)
    long = Certificate(charter.swarm, alice, (Role.USER,), 1, NOW, NOW + DAY + 1)
    long_delegation = Delegation(charter.swarm, ISSUER.peer_id, NOW, NOW + 91 * DAY)
    mixed = msgspec.msgpack.decode(certify(ISSUER, charter, BOB.peer_id, NOW))
    mixed["body"] = msgspec.msgpack.decode(owned)["body"]
    return {
        "nothing": (b"", NotProven),
        "noise": (b"\x93\x01\x02\x03", NotProven),
        "large": (bytes(3 * limits.CREDENTIAL_BYTES_MAX), NotProven),
        "someone else's": (_paper(owner, BOB.peer_id), NotProven),
        "other swarm": (credential(elsewhere, ISSUER, alice, NOW), NotProven),
        "by a non-issuer": (credential_of(certify(OTHER, charter, alice, NOW), good), NotProven),
        "by itself": (credential_of(certify(ALICE, charter, alice, NOW), good), NotProven),
        "delegated by a stranger": (
            credential_of(owned, alike.delegate(ISSUER.peer_id, NOW)),
            NotProven,
        ),
        "delegated by an issuer": (
            credential_of(
                certify(OTHER, charter, alice, NOW),
                seal_document(Delegation(charter.swarm, OTHER.peer_id, NOW, NOW + DAY), ISSUER),
            ),
            NotProven,
        ),
        "forged": (credential_of(msgspec.msgpack.encode(mixed), good), NotProven),
        "swapped": (credential_of(good, owned), NotProven),
        "too long": (credential_of(seal_document(long, ISSUER), good), NotProven),
        "delegated too long": (
            credential_of(owned, seal_document(long_delegation, owner.identity)),
            NotProven,
        ),
        "expired": (_paper(owner, now=NOW - DAY), NotAdmitted),
        "not yet": (_paper(owner, now=NOW + 61), NotAdmitted),
        "delegation ended": (
            credential_of(owned, owner.delegate(ISSUER.peer_id, NOW - DAY, DAY)),
            NotAdmitted,
        ),
    }


@pytest.mark.parametrize("fault", _wrong(Owner()))
def test_what_proves_nothing_lets_nobody_in(fault: str, owner: Owner, book: MemberBook) -> None:
    data, error = _wrong(owner)[fault]
    for attempt in (book.check, book.admit, book.believe):
        with pytest.raises(NotAdmitted) as raised:
            attempt(ALICE.peer_id, data, NOW)
        assert type(raised.value) is error
    assert book.member(ALICE.peer_id, NOW) is None
    assert book.delegations() == ()


def test_checking_remembers_nothing(owner: Owner, book: MemberBook) -> None:
    book.check(ALICE.peer_id, _paper(owner), NOW)
    assert book.members(NOW) == ()
    assert book.delegations() == ()


def test_believing_keeps_the_delegation_but_no_member(owner: Owner, book: MemberBook) -> None:
    book.believe(ALICE.peer_id, _paper(owner), NOW)
    assert book.members(NOW) == ()
    assert book.issuers(NOW) == (ISSUER.peer_id,)


def test_a_clock_may_be_a_minute_off(owner: Owner, book: MemberBook) -> None:
    book.admit(ALICE.peer_id, _paper(owner, now=NOW + 60), NOW)
    with pytest.raises(NotAdmitted, match="clocks"):
        book.admit(BOB.peer_id, _paper(owner, BOB.peer_id, NOW + 60.5), NOW)


def test_revoked_peers_and_what_revoked_issuers_made_are_out_at_once(
    owner: Owner, book: MemberBook
) -> None:
    book.admit(ALICE.peer_id, _paper(owner), NOW)
    book.admit(BOB.peer_id, credential(owner, OTHER, BOB.peer_id, NOW), NOW)
    assert book.offer_revocations(owner.revoke(ALICE.peer_id, now=NOW))
    assert book.member(ALICE.peer_id, NOW) is None
    assert book.member(BOB.peer_id, NOW) is not None
    assert book.expel(NOW) == (ALICE.peer_id,)
    assert book.offer_revocations(owner.revoke(OTHER.peer_id, now=NOW))
    assert book.expel(NOW) == (BOB.peer_id,)
    assert book.issuers(NOW) == (ISSUER.peer_id,)
    for peer, issuer in ((ALICE, ISSUER), (BOB, OTHER), (OTHER, ISSUER), (OTHER, OTHER)):
        paper = credential(owner, issuer, peer.peer_id, NOW + 1)
        for attempt in (book.admit, book.may_renew):
            with pytest.raises(NotAdmitted, match="revoked"):
                attempt(peer.peer_id, paper, NOW + 1)


def test_the_epoch_never_falls_and_other_lists_are_refused(owner: Owner, book: MemberBook) -> None:
    first, second = owner.revoke(ALICE.peer_id, now=NOW), owner.revoke(BOB.peer_id, now=NOW)
    assert book.offer_revocations(second)
    assert not book.offer_revocations(first)
    assert not book.offer_revocations(second)
    assert book.epoch == 2
    assert book.revocations_bytes == second
    for stranger in (Owner("elsewhere"), Owner("elsewhere", is_private=False)):
        with pytest.raises(RecordError):
            book.offer_revocations(stranger.revoke(BOB.peer_id, now=NOW))
    by_issuer = seal_document(Revocations(owner.charter.swarm, 9, NOW), ISSUER)
    with pytest.raises(RecordError, match="owner"):
        book.offer_revocations(by_issuer)
    without_number = seal_document(Revocations(owner.charter.swarm, 0, NOW), owner.identity)
    assert not book.offer_revocations(without_number)
    assert book.epoch == 2


def test_of_two_lists_of_one_epoch_everybody_keeps_the_same(owner: Owner) -> None:
    one, other = Owner(), Owner()
    lists = one.revoke(ALICE.peer_id, now=NOW), other.revoke(BOB.peer_id, now=NOW)
    books = MemberBook(owner.charter), MemberBook(owner.charter)
    for data in lists:
        books[0].offer_revocations(data)
    for data in reversed(lists):
        books[1].offer_revocations(data)
    assert books[0].revocations_bytes == books[1].revocations_bytes != b""


def test_after_a_rotation_only_new_papers_hold(owner: Owner, book: MemberBook) -> None:
    book.admit(ALICE.peer_id, _paper(owner), NOW)
    later = NOW + 1_000
    book.offer_revocations(owner.rotate(later))
    end = later + FLOOR_GRACE_SECONDS
    assert book.member(ALICE.peer_id, end) is not None
    assert book.member(ALICE.peer_id, end + 1) is None
    assert book.issuers(end + 1) == ()
    with pytest.raises(NotAdmitted, match="not confirmed"):
        book.may_renew(ALICE.peer_id, _paper(owner), later)
    # Made in the same second as the list, and for a shorter time than the old one: it counts.
    assert book.offer_delegation(owner.delegate(ISSUER.peer_id, later, 10 * DAY), later)
    assert not book.offer_delegation(owner.delegate(ISSUER.peer_id, NOW), later)
    assert book.issuers(end + 1) == (ISSUER.peer_id,)
    assert book.may_renew(ALICE.peer_id, _paper(owner), end + 1).roles == {Role.NODE, Role.USER}
    with pytest.raises(NotAdmitted, match="rotation"):
        book.admit(ALICE.peer_id, _paper(owner), end + 1)
    book.admit(ALICE.peer_id, _paper(owner, now=later), end + 1)


def test_a_later_delegation_may_be_a_shorter_one(owner: Owner, book: MemberBook) -> None:
    long = owner.delegate(ISSUER.peer_id, NOW, 90 * DAY)
    short = owner.delegate(ISSUER.peer_id, NOW + 1, 100)
    assert book.offer_delegation(long, NOW)
    assert book.offer_delegation(short, NOW)
    assert not book.offer_delegation(long, NOW)
    book.admit(ALICE.peer_id, _paper(owner), NOW)  # brings the long one along, in vain
    assert book.member(ALICE.peer_id, NOW + 100) is not None
    assert book.member(ALICE.peer_id, NOW + 101) is None
    with pytest.raises(NotAdmitted, match="delegation"):
        book.check(ALICE.peer_id, _paper(owner), NOW + 101)


def test_a_renewed_delegation_keeps_the_members_in(owner: Owner, book: MemberBook) -> None:
    paper = credential_of(
        certify(ISSUER, owner.charter, ALICE.peer_id, NOW),
        owner.delegate(ISSUER.peer_id, NOW - DAY, DAY + 3_600),
    )
    book.admit(ALICE.peer_id, paper, NOW)
    assert book.member(ALICE.peer_id, NOW + 3_601) is None
    book.offer_delegation(owner.delegate(ISSUER.peer_id, NOW + 10), NOW + 10)
    assert book.member(ALICE.peer_id, NOW + 3_601) is not None


def test_delegations_are_bounded_and_every_order_keeps_the_same(owner: Owner) -> None:
    issuers = [identity_of(f"issuer {n}").peer_id for n in range(limits.DELEGATIONS_MAX + 8)]
    papers = [owner.delegate(issuer, NOW + n) for n, issuer in enumerate(issuers)]
    kept = set()
    for order in (papers, papers[::-1], papers[20:] + papers[:25] + papers[10:]):
        book = MemberBook(owner.charter)
        for data in order:
            book.offer_delegation(data, NOW + 50)
        assert len(book.delegations()) == limits.DELEGATIONS_MAX
        kept.add(frozenset(book.delegations()))
    assert kept == {frozenset(papers[8:])}


def test_credentials_cannot_overfill_the_delegations(owner: Owner, book: MemberBook) -> None:
    for n in range(limits.DELEGATIONS_MAX):
        book.offer_delegation(owner.delegate(identity_of(f"i{n}").peer_id, NOW), NOW)
    paper = credential_of(
        certify(ISSUER, owner.charter, ALICE.peer_id, NOW - 9),
        owner.delegate(ISSUER.peer_id, NOW - 9),
    )
    with pytest.raises(NotAdmitted, match="too many issuers"):
        book.admit(ALICE.peer_id, paper, NOW)
    assert len(book.delegations()) == limits.DELEGATIONS_MAX
    ended = NOW + 91 * DAY  # then there is room
    book.admit(ALICE.peer_id, _paper(owner, now=ended), ended)


def test_ended_and_future_delegations_are_not_taken(owner: Owner, book: MemberBook) -> None:
    assert not book.offer_delegation(owner.delegate(ISSUER.peer_id, NOW, DAY), NOW + DAY)
    assert not book.offer_delegation(owner.delegate(ISSUER.peer_id, NOW + 61), NOW)
    assert book.offer_delegation(owner.delegate(ISSUER.peer_id, NOW + 60), NOW)


def test_a_lapsed_certificate_is_good_for_thirty_days_of_renewal(
    owner: Owner, book: MemberBook
) -> None:
    paper, end = _paper(owner), NOW + DAY
    book.may_renew(ALICE.peer_id, paper, end + limits.LAPSE_SECONDS_MAX)
    with pytest.raises(NotAdmitted, match="invite"):
        book.may_renew(ALICE.peer_id, paper, end + limits.LAPSE_SECONDS_MAX + 1)
    with pytest.raises(NotProven):
        book.may_renew(BOB.peer_id, paper, NOW)
    assert book.members(NOW) == ()


def test_a_member_of_an_issuer_whose_time_ended_can_renew_elsewhere(
    owner: Owner, book: MemberBook
) -> None:
    ends = NOW + 3_600
    delegation = owner.delegate(ISSUER.peer_id, NOW - DAY, DAY + 3_600)
    honest = credential_of(certify(ISSUER, owner.charter, ALICE.peer_id, NOW), delegation)
    book.may_renew(ALICE.peer_id, honest, ends + 29 * DAY)
    late = credential_of(certify(ISSUER, owner.charter, BOB.peer_id, ends + 61), delegation)
    with pytest.raises(NotAdmitted, match="may not do so"):
        book.may_renew(BOB.peer_id, late, ends + 100)
    with pytest.raises(NotAdmitted, match="invite"):
        book.may_renew(ALICE.peer_id, honest, ends + limits.LAPSE_SECONDS_MAX + 1)


def test_a_certificate_from_the_future_is_not_renewed(owner: Owner, book: MemberBook) -> None:
    with pytest.raises(NotAdmitted):
        book.may_renew(ALICE.peer_id, _paper(owner, now=NOW + DAY), NOW)


def test_the_role_of_issuer_stands_and_falls_with_the_delegation(
    owner: Owner, book: MemberBook
) -> None:
    def paper(peer: Identity) -> bytes:
        roles = (Role.ISSUER, Role.USER)
        certificate = certify(ISSUER, owner.charter, peer.peer_id, NOW, DAY, roles)
        return credential_of(certificate, owner.delegate(ISSUER.peer_id, NOW, 10 * DAY))

    assert book.admit(ALICE.peer_id, paper(ALICE), NOW).roles == {Role.USER}
    assert book.check(ALICE.peer_id, paper(ALICE), NOW).roles == {Role.USER}
    assert book.may_renew(ALICE.peer_id, paper(ALICE), NOW).roles == {Role.USER}
    book.offer_delegation(owner.delegate(ALICE.peer_id, NOW, 100), NOW)
    member = book.member(ALICE.peer_id, NOW + 99)
    assert member is not None
    assert Role.ISSUER in member.roles
    member = book.member(ALICE.peer_id, NOW + 100)
    assert member is not None
    assert Role.ISSUER not in member.roles


def test_members_are_bounded_and_whoever_was_displaced_is_still_named(
    owner: Owner, book: MemberBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    members_max = MEMBERS_MAX if THOROUGH else 64  # each has a certificate to be signed
    monkeypatch.setattr(book_module, "MEMBERS_MAX", members_max)
    delegation = owner.delegate(ISSUER.peer_id, NOW)
    book.admit(ALICE.peer_id, credential(owner, ISSUER, ALICE.peer_id, NOW, 10.0), NOW)

    def admit(n: int, now: float) -> None:
        peer = identity_of(f"m{n}").peer_id
        book.admit(peer, credential_of(certify(ISSUER, owner.charter, peer, NOW), delegation), now)

    for n in range(members_max - 1):
        admit(n, NOW)
    with pytest.raises(NotAdmitted, match="too many members"):
        admit(members_max, NOW)
    admit(members_max, NOW + 11)
    assert book.expel(NOW + 11) == (ALICE.peer_id,)


def test_a_credential_shown_again_is_not_verified_again(
    owner: Owner, book: MemberBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    paper = _paper(owner)
    book.admit(ALICE.peer_id, paper, NOW)
    monkeypatch.setattr("protocols.membership.documents.open_envelope", None)
    book.admit(ALICE.peer_id, paper, NOW)
    with pytest.raises(TypeError):
        book.admit(BOB.peer_id, _paper(owner, BOB.peer_id), NOW)


def test_forgotten_members_show_their_credential_again(owner: Owner, book: MemberBook) -> None:
    book.admit(ALICE.peer_id, _paper(owner), NOW)
    book.forget(ALICE.peer_id)
    assert book.member(ALICE.peer_id, NOW) is None
    assert book.expel(NOW) == ()


def test_peeking_tells_the_same_without_the_signature(owner: Owner) -> None:
    data = certify(ISSUER, owner.charter, ALICE.peer_id, NOW)
    assert peek_certificate(data, owner.charter) == open_certificate(data, owner.charter)
    broken = msgspec.msgpack.decode(data)
    broken["signature"] = bytes(64)
    assert peek_certificate(msgspec.msgpack.encode(broken), owner.charter)[0] == ISSUER.peer_id
    with pytest.raises(RecordError):
        open_certificate(msgspec.msgpack.encode(broken), owner.charter)
    for wrong in (b"", owner.delegate(ISSUER.peer_id, NOW), bytes(limits.CREDENTIAL_BYTES_MAX + 1)):
        with pytest.raises(ProtocolError):
            peek_certificate(wrong, owner.charter)


def test_a_swarm_of_nobody_has_no_lists() -> None:
    book = MemberBook(open_charter("open"))
    with pytest.raises(ProtocolError, match="nobody"):
        book.offer_revocations(Owner().revoke(now=NOW))
    with pytest.raises(ProtocolError, match="nobody"):
        open_revocations(b"", book.charter)
    assert book.epoch == 0


def test_documents_are_taken_for_what_they_are(owner: Owner, book: MemberBook) -> None:
    assert book.offer(owner.delegate(ISSUER.peer_id, NOW), NOW)
    assert book.offer(owner.revoke(ALICE.peer_id, now=NOW), NOW)
    assert book.issuers(NOW) == (ISSUER.peer_id,)
    assert book.is_revoked(ALICE.peer_id)
    for wrong in (b"", certify(ISSUER, owner.charter, ALICE.peer_id, NOW)):
        with pytest.raises(ProtocolError):
            book.offer(wrong, NOW)
