"""No sequence of operations lets an expired or revoked member act, or an invite be used too often.

The machine plays owner, issuers, peers, a network that loses and repeats documents, and clocks that
jump; the truth it compares with is what the owner signed and what the issuers made.
"""

import itertools
import random
from collections.abc import Iterable
from dataclasses import dataclass
from unittest.mock import patch

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
)

from node.swarms.enrolment import Desk, DeskParts
from protocols import access, limits
from protocols.adapters.clock import ManualClock
from protocols.errors import NotAdmitted
from protocols.gate import SwarmGate
from protocols.gating.policies import PrivatePolicy
from protocols.ids import PeerId
from protocols.membership.book import FLOOR_GRACE_SECONDS, MemberBook, credential_of
from protocols.membership.documents import (
    Certificate,
    Delegation,
    Role,
    open_certificate,
    open_delegation,
    open_revocations,
    unpack_credential,
)
from protocols.membership.invite import prove_invite
from protocols.membership.ledger import Issued, Ledger, load_ledger
from protocols.messages.enrol import EnrolRequest, RenewRequest
from protocols.messages.hello import Hello
from tests.effort import examples
from tests.simulation.members import DAY, Owner, certify, identity_of

NAMES = ("i0", "i1", "a", "b")
PEERS = {name: identity_of(name) for name in NAMES}
ISSUERS = NAMES[:2]
INVITES = [identity_of(f"invite {n}") for n in range(2)]
START = 1_800_000_000.0

names = st.sampled_from(NAMES)
issuer_names = st.sampled_from(ISSUERS)


class Crash(BaseException):
    """The process dies between saving and answering."""


@dataclass
class Issuer:
    """An issuer with a disk."""

    name: str
    book: MemberBook
    disk: bytes
    desk: Desk


class _Observer(PrivatePolicy):
    """Its own place is not in question."""

    def hello(self, now: float) -> Hello:  # noqa: ARG002
        return Hello(self.book.charter.swarm)


class Swarm(RuleBasedStateMachine):
    """One observer's gate, two issuers, three others."""

    documents = Bundle("documents")
    papers = Bundle("papers")

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock(START)
        self.owner = Owner()
        self.swarm = self.owner.charter.swarm
        self.book = MemberBook(self.owner.charter)
        self.gate = SwarmGate(_Observer(PeerId("me"), self.book, lambda: b""), self.clock)
        self.issuers = {name: self._issuer(name) for name in ISSUERS}
        self.epoch = 0
        self.list_seen = b""
        self.used: dict[str, set[PeerId]] = {one.peer_id: set() for one in INVITES}
        self.uses: dict[str, int] = {}
        self.shown: dict[PeerId, bytes] = {}
        """What each peer was last let in with."""

    def _issuer(self, name: str) -> Issuer:
        issuer = Issuer(name, MemberBook(self.owner.charter), b"", None)  # type: ignore[arg-type]
        self._open(issuer, Ledger())
        return issuer

    def _open(self, issuer: Issuer, ledger: Ledger) -> None:
        def save(data: bytes) -> None:
            issuer.disk = data

        parts = DeskParts(
            PEERS[issuer.name], issuer.book, ledger, save, self.clock, random.Random(1)
        )
        issuer.desk = Desk(parts)

    @property
    def now(self) -> float:
        return self.clock.now()

    # The owner ------------------------------------------------------------------------------

    @initialize(target=documents)
    def begin(self) -> object:
        """Both issuers may issue, everybody knows it."""
        documents = [self.owner.delegate(PEERS[name].peer_id, self.now) for name in ISSUERS]
        for document in documents:
            for book in self._books():
                book.offer(document, self.now)
        for number, name in enumerate(NAMES):
            self.come_in_by(ISSUERS[number % 2], name, 0.0)
        return multiple(*documents)

    @rule(target=documents, name=names, seconds=st.sampled_from([600.0, 2 * DAY, 90 * DAY]))
    def delegate(self, name: str, seconds: float) -> bytes:
        return self.owner.delegate(PEERS[name].peer_id, self.now, seconds)

    @rule(target=documents, name=names)
    def revoke(self, name: str) -> bytes:
        return self.owner.revoke(PEERS[name].peer_id, now=self.now)

    @rule(target=documents, name=names)
    def revoke_heard(self, name: str) -> bytes:
        """Everybody hears of it at once."""
        list_ = self.owner.revoke(PEERS[name].peer_id, now=self.now)
        for book in self._books():
            book.offer(list_, self.now)
        return list_

    @rule(target=documents)
    def rotate(self) -> object:
        """The list and new delegations, of the same second."""
        list_ = self.owner.rotate(self.now)
        issuers = [PEERS[name].peer_id for name in ISSUERS]
        return multiple(list_, *(self.owner.delegate(one, self.now) for one in issuers))

    @rule(document=documents, whom=st.sampled_from(["observer", *ISSUERS, "all"]))
    def deliver(self, document: bytes, whom: str) -> None:
        """In any order, late, repeated, to some or all."""
        books = {"observer": self.book, **{n: one.book for n, one in self.issuers.items()}}
        for book in books.values() if whom == "all" else [books[whom]]:
            book.offer(document, self.now)

    # Time -----------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1.0, 61.0, 130.0, 3_600.0, DAY / 2, 20 * DAY]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(seconds=st.sampled_from([-3_600.0, -59.0, 59.0, 3_600.0]))
    def jump(self, seconds: float) -> None:
        self.clock.jump(seconds)

    # Invites and certificates ---------------------------------------------------------------

    @rule(issuer=issuer_names, number=st.integers(0, 1), uses=st.integers(1, 2))
    def invite(self, issuer: str, number: int, uses: int) -> None:
        invite = INVITES[number].peer_id
        if invite in self.uses:
            return  # keys of invites are drawn at random: none is used twice
        entry = Issued(invite, (Role.USER, Role.ISSUER), uses, self.now, self.now + DAY)
        try:
            self.issuers[issuer].desk.enter(entry)
        except NotAdmitted:
            return
        self.uses[invite] = uses

    @rule(
        target=papers,
        issuer=issuer_names,
        number=st.integers(0, 1),
        joiner=names,
        fate=st.sampled_from(["answered", "crashed", "lost"]),
    )
    def redeem(self, issuer: str, number: int, joiner: str, fate: str) -> object:
        key, peer, one = INVITES[number], PEERS[joiner].peer_id, self.issuers[issuer]
        me = PEERS[issuer].peer_id
        proof = prove_invite(key, self.swarm, peer, me)
        request = EnrolRequest(self.swarm, key.peer_id, proof)
        self.clock.advance(1.0)
        crash = patch.object(Desk, "_answer", side_effect=Crash) if fate == "crashed" else None
        try:
            if crash is not None:
                with crash:
                    one.desk.enrol(peer, request)
            answer = one.desk.enrol(peer, request)
        except Crash:
            self._open(one, load_ledger(one.disk))
            return multiple()
        except NotAdmitted:
            return multiple()
        assert not one.book.is_revoked(peer)
        self.used[key.peer_id].add(peer)
        if fate == "lost":
            self._open(one, load_ledger(one.disk))
        return peer, answer.credential

    @rule(target=papers, issuer=issuer_names, paper=papers)
    def renew(self, issuer: str, paper: tuple[PeerId, bytes]) -> object:
        peer, credential = paper
        one = self.issuers[issuer]
        self.clock.advance(1.0)
        try:
            answer = one.desk.renew(peer, RenewRequest(self.swarm, credential))
        except NotAdmitted:
            return multiple()
        certificate, delegation = self._parts(credential)
        ended = min(certificate.expires_at, delegation.expires_at)
        newest = one.book.delegation_of(PEERS[issuer].peer_id, self.now)
        assert open_delegation(newest, self.owner.charter).expires_at > self.now
        assert not {peer, PeerId(delegation.issuer)} & set(one.book.revocations.peers)
        renewed = self._parts(answer.credential)[0]
        assert set(renewed.roles) <= set(certificate.roles)
        assert renewed.peer == peer
        assert self.now <= ended + limits.LAPSE_SECONDS_MAX or self._was_prolonged(one, delegation)
        return peer, answer.credential

    def _was_prolonged(self, one: Issuer, shown: Delegation) -> bool:
        """Whether the issuer has a later delegation than the one that was shown."""
        kept = one.book._delegations.of(PeerId(shown.issuer))
        return kept is not None and kept[1] != shown

    @rule(target=papers, issuer=issuer_names)
    def renew_oneself(self, issuer: str) -> object:
        """Lapsed, revoked or not: an issuer with a desk tries."""
        one, me = self.issuers[issuer], PEERS[issuer].peer_id
        try:
            credential = one.desk.issue(me, frozenset({Role.ISSUER, Role.NODE}))
        except NotAdmitted:
            return multiple()
        assert not one.book.is_revoked(me)
        return me, credential

    @rule(
        target=papers,
        maker=names,
        delegate=documents,
        peer=names,
        age=st.sampled_from([0.0, 30.0, DAY - 1, 40 * DAY, -3_600.0]),
    )
    def forge(self, maker: str, delegate: bytes, peer: str, age: float) -> object:
        """Anybody makes a certificate with any document of the owner beside it."""
        charter, owner = self.owner.charter, PEERS[peer].peer_id
        roles = (Role.NODE, Role.ISSUER)
        made = certify(PEERS[maker], charter, owner, self.now - age, DAY, roles)
        return owner, credential_of(made, delegate)

    @rule(target=papers, issuer=issuer_names, peer=names, age=st.sampled_from([0.0, DAY - 90]))
    def come_in(self, issuer: str, peer: str, age: float) -> object:
        """A certificate that holds, if its issuer may make any; and its bearer says hello."""
        return self.come_in_by(issuer, peer, age)

    def come_in_by(self, issuer: str, peer: str, age: float) -> object:
        maker, bearer = PEERS[issuer], PEERS[peer].peer_id
        found = self.book._delegations.of(maker.peer_id)
        if found is None:
            return multiple()
        made = certify(maker, self.owner.charter, bearer, self.now - age, DAY, (Role.NODE,))
        paper = bearer, credential_of(made, found[0])
        self.say_hello(paper, peer, is_bearer=True)
        return paper

    # Acting ---------------------------------------------------------------------------------

    @rule(paper=papers, name=names, is_bearer=st.booleans())
    def show(self, paper: tuple[PeerId, bytes], name: str, is_bearer: bool) -> None:
        self.say_hello(paper, name, is_bearer)

    def say_hello(self, paper: tuple[PeerId, bytes], name: str, is_bearer: bool) -> None:
        """The bearer of a credential, or somebody who copied it."""
        owner, credential = paper
        peer = owner if is_bearer else PEERS[name].peer_id
        self.clock.advance(61.0)  # bans are another matter
        answer = self.gate._judge(peer, Hello(self.swarm, 0, credential))
        if isinstance(answer, Hello):
            assert peer == owner, "a copied credential was believed"
            self.shown[peer] = credential

    @rule()
    def sweep(self) -> None:
        acting = {one.peer for one in self.book.members(self.now)}
        assert not acting & set(self.gate.sweep())
        assert {one.peer for one in self.book.members(self.now)} == acting

    # What must always hold ------------------------------------------------------------------

    @invariant()
    def whoever_acts_is_entitled(self) -> None:
        for name, identity in PEERS.items():
            peer = identity.peer_id
            if not any(self.gate.admits(peer, protocol) for protocol in access.TABLE):
                continue
            assert peer in self.shown, f"{name} acts and has shown nothing"
            certificate, _ = self._parts(self.shown[peer])
            issuer = open_certificate(
                unpack_credential(self.shown[peer]).certificate, self.owner.charter
            )[0]
            assert certificate.peer == peer
            skew = limits.CLOCK_SKEW_SECONDS_MAX
            assert certificate.issued_at - skew <= self.now < certificate.expires_at
            assert not {peer, issuer} & set(self.book.revocations.peers)
            delegation = open_delegation(
                self.book.delegation_of(issuer, self.now), self.owner.charter
            )
            assert delegation.issuer == issuer
            assert self.now < delegation.expires_at
            if self.now > self.book.revocations.issued_at + FLOOR_GRACE_SECONDS:
                assert certificate.issued_at >= self.book.revocations.floor
                assert delegation.issued_at >= self.book.revocations.floor

    @invariant()
    def only_delegates_are_issuers(self) -> None:
        for member in self.book.members(self.now):
            if Role.ISSUER in member.roles:
                self.book.delegation_of(member.peer, self.now)

    @invariant()
    def invites_are_used_as_often_as_allowed(self) -> None:
        for invite, joiners in self.used.items():
            assert len(joiners) <= self.uses.get(invite, 0)

    @invariant()
    def epochs_rise(self) -> None:
        assert self.book.epoch >= self.epoch
        self.epoch = self.book.epoch
        if self.book.revocations_bytes:
            list_ = open_revocations(self.book.revocations_bytes, self.owner.charter)
            assert list_.epoch == self.epoch

    def _books(self) -> list[MemberBook]:
        return [self.book, *(one.book for one in self.issuers.values())]

    def _parts(self, credential: bytes) -> tuple[Certificate, Delegation]:
        found = unpack_credential(credential)
        certificate = open_certificate(found.certificate, self.owner.charter)[1]
        return certificate, open_delegation(found.delegation, self.owner.charter)


TestSwarm = Swarm.TestCase
Swarm.TestCase.settings = settings(
    max_examples=examples(60),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def _documents() -> list[bytes]:
    """Delegations and lists of an owner who changes its mind, and says two things at once."""
    owner, twin = Owner(), Owner()
    found = []
    for step in range(4):
        now = START + 10 * step
        for name in NAMES[:4]:
            found.append(owner.delegate(PEERS[name].peer_id, now, (step + 1) * 3_600.0))
            found.append(owner.delegate(PEERS[name].peer_id, now, (5 - step) * 3_600.0))
        found.append(owner.revoke(PEERS[NAMES[step]].peer_id, now=now))
        found.append(twin.revoke(PEERS[NAMES[3 - step]].peer_id, now=now))
    found.append(owner.rotate(START + 20))
    return found


DOCUMENTS = _documents()
WHEN = START + 60


def _told(documents: Iterable[bytes]) -> MemberBook:
    book, epochs = MemberBook(Owner().charter), [0]
    for document in documents:
        book.offer(document, WHEN)
        epochs.append(book.epoch)
    assert epochs == sorted(epochs)
    return book


@settings(max_examples=examples(60), deadline=None)
@given(
    st.permutations(range(len(DOCUMENTS))),
    st.lists(st.integers(0, len(DOCUMENTS) - 1), max_size=12),
)
def test_documents_in_any_order_repeated_and_late_leave_the_same_state(
    order: list[int], repeated: list[int]
) -> None:
    said = [DOCUMENTS[number] for number in itertools.chain(repeated, order, repeated)]
    book, other = _told(said), _told(DOCUMENTS)
    assert book.revocations_bytes == other.revocations_bytes
    assert set(book.delegations()) == set(other.delegations())
    later = WHEN + FLOOR_GRACE_SECONDS + 1
    assert set(book.issuers(later)) == set(other.issuers(later))


class Invites(RuleBasedStateMachine):
    """One issuer's desk, invites of few uses, joiners who compete, and crashes at every point."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock(START)
        self.owner = Owner()
        self.me = PEERS["i0"].peer_id
        self.book = MemberBook(self.owner.charter)
        self.book.offer(self.owner.delegate(self.me, START), START)
        self.disk = Ledger().dump()
        self.certified: dict[str, set[PeerId]] = {one.peer_id: set() for one in INVITES}
        self.uses: dict[str, int] = {}
        self.ends: dict[str, float] = {}
        self.restart()

    @rule()
    def restart(self) -> None:
        """From what is on disk."""
        parts = DeskParts(
            PEERS["i0"],
            self.book,
            load_ledger(self.disk),
            self._save,
            self.clock,
            random.Random(1),
        )
        self.desk = Desk(parts)

    def _save(self, data: bytes) -> None:
        self.disk = data

    @rule(number=st.integers(0, 1), uses=st.integers(1, 2), seconds=st.sampled_from([100.0, DAY]))
    def invite(self, number: int, uses: int, seconds: float) -> None:
        invite, now = INVITES[number].peer_id, self.clock.now()
        try:
            self.desk.enter(Issued(invite, (Role.USER,), uses, now, now + seconds))
        except NotAdmitted:
            return
        assert invite not in self.uses, "an invite was entered twice"
        self.uses[invite], self.ends[invite] = uses, now + seconds

    @rule(number=st.integers(0, 1), joiner=names, fate=st.sampled_from(["ok", "no disk", "crash"]))
    def redeem(self, number: int, joiner: str, fate: str) -> None:
        key, peer = INVITES[number], PEERS[joiner].peer_id
        self.clock.advance(1.0)
        proof = prove_invite(key, self.owner.charter.swarm, peer, self.me)
        request = EnrolRequest(self.owner.charter.swarm, key.peer_id, proof)
        saving = {"ok": self._save, "no disk": _no_disk, "crash": _crash}[fate]
        self.desk._save = saving
        try:
            answer = self.desk.enrol(peer, request)
        except NotAdmitted:
            return
        except OSError:
            return
        except Crash:
            self.restart()
            return
        finally:
            self.desk._save = self._save
        assert answer.credential
        assert self.clock.now() < self.ends[key.peer_id]
        assert not self.book.is_revoked(peer)
        self.certified[key.peer_id].add(peer)

    @rule(seconds=st.sampled_from([50.0, 200.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(name=st.sampled_from(["a", "b"]))
    def revoke(self, name: str) -> None:
        self.book.offer(self.owner.revoke(PEERS[name].peer_id, now=self.clock.now()), START)

    @invariant()
    def nobody_is_certified_beyond_the_uses(self) -> None:
        for invite, joiners in self.certified.items():
            assert len(joiners) <= self.uses.get(invite, 0)


def _no_disk(_: bytes) -> None:
    raise OSError("disk full")


def _crash(_: bytes) -> None:
    raise Crash


TestInvites = Invites.TestCase
Invites.TestCase.settings = settings(
    max_examples=examples(80), stateful_step_count=25, deadline=None
)


@settings(max_examples=examples(150), deadline=None)
@given(
    revoked=st.sets(names),
    peer=names,
    issuer=issuer_names,
    age=st.sampled_from([0.0, DAY, 15 * DAY, 31 * DAY - 1, 31 * DAY + 1]),
    ended=st.sampled_from([-40 * DAY, -DAY, 0.0, 50 * DAY]),
    is_rotated=st.booleans(),
    is_confirmed=st.booleans(),
)
def test_who_may_renew(  # noqa: PLR0913 - one argument for each thing that varies
    revoked: set[str],
    peer: str,
    issuer: str,
    age: float,
    ended: float,
    *,
    is_rotated: bool,
    is_confirmed: bool,
) -> None:
    """Against the rule in words: `docs/protocols/membership.md`, renewal."""
    owner, maker, bearer, now = Owner(), PEERS[issuer], PEERS[peer].peer_id, START + 100 * DAY
    book = MemberBook(owner.charter)
    made, delegated_until = now - age, now + ended
    shown = owner.delegate(maker.peer_id, delegated_until - 60 * DAY, 60 * DAY)
    if is_rotated:
        book.offer(owner.rotate(now), now)
    if is_confirmed:
        book.offer(owner.delegate(maker.peer_id, now), now)
        delegated_until = now + 90 * DAY
    book.offer(owner.revoke(*(PEERS[name].peer_id for name in sorted(revoked)), now=now), now)
    paper = credential_of(certify(maker, owner.charter, bearer, made), shown)
    allowed = (
        not {peer, issuer} & revoked
        and (is_confirmed or not is_rotated)
        and made <= delegated_until + limits.CLOCK_SKEW_SECONDS_MAX
        and now <= min(made + DAY, delegated_until) + limits.LAPSE_SECONDS_MAX
    )
    try:
        book.may_renew(bearer, paper, now)
    except NotAdmitted:
        assert not allowed
    else:
        assert allowed
