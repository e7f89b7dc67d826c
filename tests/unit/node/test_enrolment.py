"""The desk and the joiner: who gets a certificate, for what, and what strangers cost the desk."""

import random
from collections.abc import Awaitable, Callable

import pytest

from node.swarms import enrolment
from node.swarms.enrolment import Desk, DeskParts, EnrolStream, ask_issuer, check_enrolled, enrol
from protocols import limits, versions
from protocols.adapters.clock import ManualClock
from protocols.adapters.memory import MemoryNetwork
from protocols.adapters.virtual import LoopClock, run_virtual
from protocols.codec import encode
from protocols.errors import (
    DeadlineExceeded,
    DslmError,
    NotAdmitted,
    PeerLost,
    PeerUnreachable,
    ProtocolError,
)
from protocols.ids import PeerId
from protocols.membership.book import MemberBook, NotProven, credential_of
from protocols.membership.charter import Charter
from protocols.membership.documents import Role, open_certificate, unpack_credential
from protocols.membership.invite import Invite, check_proof, prove_invite
from protocols.membership.ledger import Issued, Ledger, load_ledger
from protocols.messages.enrol import (
    EnrolAnswer,
    Enrolled,
    EnrolRefused,
    EnrolRequest,
    RenewRequest,
)
from protocols.ports import Stream
from protocols.signing import Identity
from tests.simulation.members import DAY, Owner, certify, credential, identity_of

ISSUER, ALICE, BOB, KEY = (identity_of(name) for name in ("issuer", "alice", "bob", "invite"))


class Office:
    """A desk with what it stands on; `saved` holds what reached the disk."""

    def __init__(self, owner: Owner | None = None) -> None:
        self.owner = owner or Owner()
        self.clock = ManualClock()
        self.book = MemberBook(self.owner.charter)
        self.book.offer_delegation(self.owner.delegate(ISSUER.peer_id, self.now), self.now)
        self.saved: list[bytes] = []
        self.save_error: OSError | None = None
        self.ledger = Ledger()
        self.desk = self.open(self.ledger)

    @property
    def now(self) -> float:
        return self.clock.now()

    def open(self, ledger: Ledger) -> Desk:
        rng = random.Random(1)
        return Desk(DeskParts(ISSUER, self.book, ledger, self._save, self.clock, rng))

    def invite(self, uses: int = 1, roles: tuple[Role, ...] = (Role.USER, Role.NODE)) -> None:
        self.desk.enter(Issued(KEY.peer_id, roles, uses, self.now, self.now + 3_600))

    def request(self, joiner: Identity = ALICE, key: Identity = KEY) -> EnrolRequest:
        swarm = self.owner.charter.swarm
        proof = prove_invite(key, swarm, joiner.peer_id, ISSUER.peer_id)
        return EnrolRequest(swarm, key.peer_id, proof)

    def _save(self, data: bytes) -> None:
        if self.save_error is not None:
            raise self.save_error
        self.saved.append(data)


@pytest.fixture
def office() -> Office:
    return Office()


def test_an_invited_peer_becomes_a_member(office: Office) -> None:
    office.invite()
    answer = office.desk.enrol(ALICE.peer_id, office.request())
    elsewhere = MemberBook(office.owner.charter)
    membership = elsewhere.admit(ALICE.peer_id, answer.credential, office.now)
    assert membership.roles == {Role.USER, Role.NODE}
    assert membership.expires_at == office.now + limits.CERTIFICATE_SECONDS_MAX
    assert answer.revocations == b""


def test_an_invite_is_saved_before_it_is_shown(office: Office) -> None:
    office.save_error = OSError("disk full")
    with pytest.raises(OSError, match="disk full"):
        office.invite()
    office.save_error = None
    with pytest.raises(NotAdmitted):
        office.desk.enrol(ALICE.peer_id, office.request())
    office.invite()
    assert list(load_ledger(office.saved[-1]).issued) == [KEY.peer_id]


def test_a_use_is_saved_before_the_answer_and_survives_a_crash_between(office: Office) -> None:
    office.invite()
    office.desk.enrol(ALICE.peer_id, office.request())  # the answer is lost, the process dies
    desk = office.open(load_ledger(office.saved[-1]))
    with pytest.raises(NotAdmitted, match="used up"):
        desk.enrol(BOB.peer_id, office.request(BOB))
    again = desk.enrol(ALICE.peer_id, office.request())
    assert office.book.check(ALICE.peer_id, again.credential, office.now).peer == ALICE.peer_id


def test_nobody_gets_a_certificate_that_could_not_be_saved(office: Office) -> None:
    office.invite()
    office.save_error = OSError("disk full")
    with pytest.raises(OSError, match="disk full"):
        office.desk.enrol(ALICE.peer_id, office.request())
    office.save_error = None
    with pytest.raises(NotAdmitted, match="used up"):  # counted, to be on the safe side
        office.desk.enrol(BOB.peer_id, office.request(BOB))
    assert office.desk.enrol(ALICE.peer_id, office.request()).credential


def test_withdrawn_invites_are_void(office: Office) -> None:
    office.invite(uses=5)
    assert office.desk.withdraw(KEY.peer_id)
    assert not office.desk.withdraw(KEY.peer_id)
    assert load_ledger(office.saved[-1]).issued == {}
    with pytest.raises(NotAdmitted):
        office.desk.enrol(ALICE.peer_id, office.request())


def test_strangers_learn_nothing_and_use_nothing_up(office: Office) -> None:
    office.invite()
    swarm = office.owner.charter.swarm
    good = office.request()
    for peer, request in (
        (BOB.peer_id, good),  # copied from the wire
        (ALICE.peer_id, office.request(key=BOB)),
        (ALICE.peer_id, EnrolRequest(swarm, KEY.peer_id, bytes(64))),
        (ALICE.peer_id, EnrolRequest(swarm, "\0", bytes(64))),
        (ALICE.peer_id, EnrolRequest("other", KEY.peer_id, good.signature)),
    ):
        with pytest.raises(NotAdmitted) as raised:
            office.desk.enrol(peer, request)
        assert str(raised.value) == "no place in this swarm"
    assert len(office.saved) == 1
    assert office.desk.enrol(ALICE.peer_id, good).credential


def test_the_revoked_get_nothing_with_whatever_they_hold(office: Office) -> None:
    office.invite(uses=3)
    old = office.desk.enrol(ALICE.peer_id, office.request())
    office.book.offer_revocations(office.owner.revoke(ALICE.peer_id, now=office.now))
    swarm = office.owner.charter.swarm
    with pytest.raises(NotAdmitted, match="revoked"):
        office.desk.enrol(ALICE.peer_id, office.request())
    with pytest.raises(NotAdmitted, match="revoked"):
        office.desk.renew(ALICE.peer_id, RenewRequest(swarm, old.credential))
    with pytest.raises(NotAdmitted, match="revoked"):
        office.desk.issue(ALICE.peer_id, frozenset({Role.USER}))
    told = office.desk.enrol(BOB.peer_id, office.request(BOB))
    assert told.revocations == office.book.revocations_bytes


def test_only_issuers_issue(office: Office) -> None:
    office.invite(uses=2)
    office.clock.advance(91 * DAY)
    assert not office.desk.is_open()
    invite = Issued(BOB.peer_id, (Role.USER,), 1, office.now, office.now + 60)
    for attempt in (
        lambda: office.desk.issue(ALICE.peer_id, frozenset({Role.USER})),
        lambda: office.desk.issue(ISSUER.peer_id, frozenset({Role.ISSUER})),
        lambda: office.desk.enter(invite),
        lambda: office.desk.enrol(ALICE.peer_id, office.request()),
    ):
        with pytest.raises(NotAdmitted):
            attempt()
    fresh = Office()
    fresh.book.offer_revocations(fresh.owner.revoke(ISSUER.peer_id, now=fresh.now))
    assert not fresh.desk.is_open()
    with pytest.raises(NotAdmitted, match="revoked"):
        fresh.desk.issue(ISSUER.peer_id, frozenset({Role.ISSUER, Role.NODE}))


def test_the_role_of_issuer_is_the_owners_to_give(office: Office) -> None:
    with pytest.raises(NotAdmitted, match="owner"):
        office.invite(roles=(Role.ISSUER,))
    office.invite(roles=(Role.ISSUER, Role.USER))
    answer = office.desk.enrol(ALICE.peer_id, office.request())
    assert _roles(office, answer) == {Role.USER}
    with pytest.raises(NotAdmitted, match="no role"):
        office.desk.issue(ALICE.peer_id, frozenset({Role.ISSUER}))
    office.book.offer_delegation(office.owner.delegate(ALICE.peer_id, office.now), office.now)
    answer = office.desk.enrol(ALICE.peer_id, office.request())
    assert _roles(office, answer) == {Role.USER, Role.ISSUER}


def _roles(office: Office, answer: Enrolled) -> set[Role]:
    data = unpack_credential(answer.credential).certificate
    return set(open_certificate(data, office.owner.charter)[1].roles)


def test_renewal_gives_the_same_roles_for_another_day(office: Office) -> None:
    owner, now = office.owner, office.now
    old = credential_of(
        certify(ISSUER, owner.charter, ALICE.peer_id, now, DAY, (Role.TRAINER,)),
        owner.delegate(ISSUER.peer_id, now),
    )
    office.clock.advance(20 * DAY)
    answer = office.desk.renew(ALICE.peer_id, RenewRequest(owner.charter.swarm, old))
    assert _roles(office, answer) == {Role.TRAINER}
    membership = office.book.check(ALICE.peer_id, answer.credential, office.now)
    assert membership.expires_at == office.now + DAY
    for peer, request in (
        (BOB, RenewRequest(owner.charter.swarm, old)),
        (ALICE, RenewRequest("other", old)),
        (ALICE, RenewRequest(owner.charter.swarm, b"")),
    ):
        with pytest.raises(NotAdmitted):
            office.desk.renew(peer.peer_id, request)
    office.clock.advance(12 * DAY)
    with pytest.raises(NotAdmitted, match="invite"):
        office.desk.renew(ALICE.peer_id, RenewRequest(owner.charter.swarm, old))


def test_after_a_rotation_what_is_made_counts_as_made_after_it(office: Office) -> None:
    owner = office.owner
    office.invite(uses=3)
    old = office.desk.enrol(ALICE.peer_id, office.request()).credential
    ahead = office.now + 30  # the owner's clock
    office.book.offer_revocations(owner.rotate(ahead))
    office.book.offer_delegation(owner.delegate(ISSUER.peer_id, ahead), office.now)
    new = office.desk.renew(ALICE.peer_id, RenewRequest(owner.charter.swarm, old)).credential
    office.clock.advance(300)
    assert office.book.check(ALICE.peer_id, new, office.now).issued_at == ahead
    with pytest.raises(NotAdmitted, match="rotation"):
        office.book.check(ALICE.peer_id, old, office.now)
    with pytest.raises(NotAdmitted, match="expired"):  # invites from before are void as well
        office.desk.enrol(BOB.peer_id, office.request(BOB))


def test_signatures_of_strangers_are_looked_at_so_many_times_a_second(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.invite()
    looked = 0
    check = check_proof

    def counted(*args: object) -> None:
        nonlocal looked
        looked += 1
        check(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(enrolment, "check_proof", counted)
    forged = EnrolRequest(office.owner.charter.swarm, KEY.peer_id, bytes(64))
    for _ in range(1_000):
        with pytest.raises(NotAdmitted):
            office.desk.enrol(BOB.peer_id, forged)
    assert looked == 60
    with pytest.raises(NotAdmitted, match="too many"):
        office.desk.enrol(ALICE.peer_id, office.request())
    office.clock.advance(1.0)
    assert office.desk.enrol(ALICE.peer_id, office.request()).credential
    for _ in range(1_000):  # invites that are not there cost no signature
        with pytest.raises(NotAdmitted):
            office.desk.enrol(BOB.peer_id, office.request(key=BOB))
    assert looked == 61


# Over a network ------------------------------------------------------------------------------


def run(story: Callable[[MemoryNetwork, Office], Awaitable[None]]) -> None:
    async def main() -> None:
        async with MemoryNetwork(1, LoopClock(ManualClock().now())) as network:
            await story(network, Office())
            assert network.defects == []

    run_virtual(main())


def _address(peer: PeerId) -> str:
    return f"/memory/{peer}/p2p/{peer}"


def _string(office: Office, **changes: object) -> Invite:
    fields = {
        "charter": office.owner.charter,
        "addresses": (_address(ISSUER.peer_id), _address(BOB.peer_id)),
        "expires_at": office.now + 3_600,
        "seed": KEY.to_libp2p()[4:36],
        **changes,
    }
    return Invite(**fields)  # type: ignore[arg-type]


def test_joining_takes_one_string() -> None:
    async def story(network: MemoryNetwork, office: Office) -> None:
        office.invite()
        office.book.offer_revocations(office.owner.revoke(BOB.peer_id, now=office.now))
        issuer = network.join(ISSUER).transport
        await issuer.serve(versions.ENROL, EnrolStream(office.desk))
        alice, bob = network.join(ALICE).transport, network.join(BOB).transport
        for _ in range(2):  # the same invite, the same identity: nothing more is used up
            enrolled = await enrol(alice, _string(office), ALICE, office.clock)
            assert enrolled.membership.roles == {Role.USER, Role.NODE}
            assert enrolled.revocations == office.book.revocations_bytes
        with pytest.raises(NotAdmitted, match="the peer was revoked"):
            await enrol(bob, _string(office), BOB, office.clock)
        other = _string(office, charter=Charter("away", office.owner.charter.owner, True))
        with pytest.raises(NotAdmitted, match="no place"):
            await enrol(alice, other, ALICE, office.clock)
        with pytest.raises(NotAdmitted, match="expired"):
            await enrol(alice, _string(office, expires_at=office.now), ALICE, office.clock)
        with pytest.raises(ProtocolError):
            await enrol(alice, _string(office, seed=b""), ALICE, office.clock)

    run(story)


def test_an_issuer_that_is_not_there_or_says_nothing() -> None:
    async def story(network: MemoryNetwork, office: Office) -> None:
        alice = network.join(ALICE).transport
        with pytest.raises(PeerUnreachable):
            await enrol(alice, _string(office), ALICE, office.clock)
        issuer = network.join(ISSUER).transport

        async def silent(stream: Stream) -> None:
            await stream.receive()
            await stream.receive()

        await issuer.serve(versions.ENROL, silent)
        with pytest.raises((DeadlineExceeded, PeerLost)):
            await enrol(alice, _string(office), ALICE, office.clock)

    run(story)


def test_what_a_false_issuer_gives_is_not_taken() -> None:
    async def story(network: MemoryNetwork, office: Office) -> None:
        alice = network.join(ALICE).transport
        issuer = network.join(ISSUER).transport
        owner, now = office.owner, office.now
        impostor = Owner("elsewhere")
        answers: dict[bytes, tuple[Enrolled | EnrolRefused, type[DslmError]]] = {
            b"1": (Enrolled(b"noise"), NotAdmitted),
            b"2": (Enrolled(credential(impostor, ISSUER, ALICE.peer_id, now)), NotAdmitted),
            b"3": (Enrolled(credential(owner, ISSUER, BOB.peer_id, now)), NotAdmitted),
            b"4": (Enrolled(credential(owner, ISSUER, ALICE.peer_id, now - DAY)), NotAdmitted),
            b"5": (
                Enrolled(
                    credential(owner, ISSUER, ALICE.peer_id, now),
                    impostor.revoke(BOB.peer_id, now=now),
                ),
                ProtocolError,
            ),
            b"6": (
                Enrolled(
                    credential(owner, ISSUER, ALICE.peer_id, now),
                    Owner().revoke(ALICE.peer_id, now=now),
                ),
                NotAdmitted,
            ),
            b"7": (EnrolRefused("no"), NotAdmitted),
        }
        for answer, error in answers.values():

            async def lie(stream: Stream, answer: EnrolAnswer = answer) -> None:
                await stream.receive()
                await stream.send(encode(answer))

            await issuer.serve(versions.ENROL, lie)
            with pytest.raises(error):
                await enrol(alice, _string(office), ALICE, office.clock)

    run(story)


def test_noise_at_the_desk_is_cut_off_without_an_answer() -> None:
    async def story(network: MemoryNetwork, office: Office) -> None:
        issuer, alice = network.join(ISSUER).transport, network.join(ALICE).transport
        await issuer.serve(versions.ENROL, EnrolStream(office.desk))
        await alice.connect(_address(ISSUER.peer_id))
        large = (limits.HEADER_BYTES_MAX).to_bytes(4, "big") + bytes(4)
        wrong = encode(Enrolled(b"x"))
        for data in (large, b"\0\0\0\1\0\0\0\0\xc1", wrong, b"\0\0"):
            stream = await alice.open_stream(ISSUER.peer_id, versions.ENROL)
            await stream.send(data)
            with pytest.raises(PeerLost):
                assert await stream.receive() == b""
                raise PeerLost("an end is as good as a break")
        stream = await alice.open_stream(ISSUER.peer_id, versions.ENROL)
        await stream.close()

    run(story)


def test_a_disk_that_is_full_is_the_issuers_fault() -> None:
    async def story(network: MemoryNetwork, office: Office) -> None:
        issuer, alice = network.join(ISSUER).transport, network.join(ALICE).transport
        await issuer.serve(versions.ENROL, EnrolStream(office.desk))
        office.invite()
        office.save_error = OSError("no space left")
        request = office.request()
        with pytest.raises(NotAdmitted, match="cannot write") as raised:
            await ask_issuer(alice, ISSUER.peer_id, (_address(ISSUER.peer_id),), request)
        assert "space" not in str(raised.value)

    run(story)


def test_an_answer_without_a_proof_is_not_believed(office: Office) -> None:
    with pytest.raises(NotAdmitted) as raised:
        check_enrolled(Enrolled(b""), office.book, ALICE.peer_id, office.now)
    assert isinstance(raised.value.__cause__, NotProven)
