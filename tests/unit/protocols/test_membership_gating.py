"""Bans that grow, a pace that is kept, and the two policies."""

import pytest

from coordinator.standing import Standing
from protocols import allowances
from protocols.errors import NotAdmitted, PeerLost, PeerUnreachable
from protocols.gating import policies
from protocols.gating.policies import PrivatePolicy, PublicPolicy
from protocols.gating.refusals import FORGIVEN_SECONDS, Refusals
from protocols.ids import PeerId
from protocols.membership.book import MemberBook, NotProven
from protocols.membership.charter import open_charter
from protocols.membership.documents import Role
from protocols.membership.proof import make_proof
from protocols.messages.hello import Hello
from tests.simulation.members import DAY, Owner, credential, identity_of

NOW = 1_800_000_000.0
ISSUER, ALICE, BOB = (identity_of(name) for name in ("issuer", "alice", "bob"))
ME = identity_of("me").peer_id


def test_bans_double_up_to_their_limit_and_are_forgiven() -> None:
    refusals, now, lasted = Refusals(), 0.0, []
    for _ in range(9):
        refusals.add(ALICE.peer_id, NotAdmitted("no"), now, 60.0)
        began = now
        while refusals.standing(ALICE.peer_id, now) is not None:
            now += 0.5
        lasted.append(now - began)
    assert lasted == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    now += FORGIVEN_SECONDS + 1
    refusals.add(ALICE.peer_id, NotAdmitted("no"), now, 60.0)
    assert refusals.standing(ALICE.peer_id, now + 1) is None


def test_a_ban_says_what_failed_with_a_new_error_each_time() -> None:
    refusals = Refusals()
    refusals.add(ALICE.peer_id, PeerLost("gone"), 0.0, 1.0)
    refusals.add(BOB.peer_id, NotAdmitted("out"), 0.0, 60.0)
    first, second = (refusals.standing(ALICE.peer_id, 0.5) for _ in range(2))
    assert isinstance(first, PeerUnreachable)
    assert str(first) == "gone"
    assert first is not second
    assert isinstance(refusals.standing(BOB.peer_id, 0.5), NotAdmitted)
    refusals.clear(ALICE.peer_id)
    assert refusals.standing(ALICE.peer_id, 0.5) is None
    refusals.clear_all()
    assert refusals.standing(BOB.peer_id, 0.5) is None


def test_remembered_failures_are_bounded() -> None:
    refusals = Refusals(peers_max=3)
    for n in range(10):
        refusals.add(PeerId(str(n)), NotAdmitted("no"), 0.0, 60.0)
    assert len(refusals) == 3
    assert refusals.standing(PeerId("9"), 0.5) is not None
    assert refusals.standing(PeerId("0"), 0.5) is None


class _World:
    def __init__(self) -> None:
        self.owner = Owner()
        self.book = MemberBook(self.owner.charter)
        self.ours = credential(self.owner, ISSUER, ME, NOW)
        self.policy = PrivatePolicy(ME, self.book, lambda: self.ours)

    def hello(self, peer: PeerId, now: float = NOW) -> Hello:
        paper = credential(self.owner, ISSUER, peer, now)
        return Hello(self.owner.charter.swarm, 0, paper)


def test_private_members_show_and_see_credentials() -> None:
    world = _World()
    policy = world.policy
    assert policy.hello(NOW) == Hello(world.owner.charter.swarm, 0, world.ours)
    assert policy.roles(ALICE.peer_id, NOW) == frozenset()
    assert policy.allowance(ALICE.peer_id, NOW) is allowances.NOBODY
    policy.admit(ALICE.peer_id, world.hello(ALICE.peer_id), NOW)
    assert policy.roles(ALICE.peer_id, NOW) == {Role.NODE, Role.USER}
    assert policy.allowance(ALICE.peer_id, NOW) is allowances.MEMBER
    assert policy.peers(NOW) == (ALICE.peer_id,)
    assert policy.roles(ALICE.peer_id, NOW + DAY) == frozenset()
    assert policy.allowance(ALICE.peer_id, NOW + DAY) is allowances.NOBODY
    assert policy.expel(NOW + DAY) == (ALICE.peer_id,)


def test_a_private_swarm_wants_its_own_name_and_a_credential() -> None:
    world = _World()
    good = world.hello(ALICE.peer_id)
    for hello in (
        Hello("another", 0, good.credential),
        Hello(good.swarm, 0, b"", 2**40),
        Hello(good.swarm, 5, world.hello(BOB.peer_id).credential),
    ):
        with pytest.raises(NotProven):
            world.policy.admit(ALICE.peer_id, hello, NOW)


def test_without_a_place_we_show_nothing() -> None:
    world = _World()
    world.policy.hello(NOW)
    with pytest.raises(NotAdmitted, match="expired"):
        world.policy.hello(NOW + DAY)
    now = NOW + DAY
    world.ours = credential(world.owner, ISSUER, ME, now)
    assert world.policy.hello(now).credential == world.ours
    world.ours = b""
    with pytest.raises(NotAdmitted, match="no certificate"):
        world.policy.hello(now)
    world.ours = credential(world.owner, ISSUER, ALICE.peer_id, now)
    with pytest.raises(NotAdmitted, match="another peer's"):
        world.policy.hello(now)
    world.ours = credential(world.owner, ISSUER, ME, now)
    world.policy.hello(now)
    world.book.offer_revocations(world.owner.revoke(ME, now=now))
    with pytest.raises(NotAdmitted, match="revoked"):
        world.policy.hello(now)


def test_our_own_credential_is_verified_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world = _World()
    world.policy.hello(NOW)
    monkeypatch.setattr("protocols.membership.documents.open_envelope", None)
    assert world.policy.hello(NOW).credential is world.ours


def _public(owner: Owner | None = None, standing: Standing | None = None) -> PublicPolicy:
    charter = owner.charter if owner else open_charter("open")
    if standing is None:
        return PublicPolicy(ME, MemberBook(charter), 7)
    return PublicPolicy(ME, MemberBook(charter), 7, standing.allowance_of)


def _greeting(policy: PublicPolicy, peer: PeerId) -> Hello:
    swarm = policy.book.charter.swarm
    return Hello(swarm, proof=make_proof(swarm, peer))


def test_a_public_swarm_wants_work() -> None:
    policy = _public()
    greeting = _greeting(policy, ALICE.peer_id)
    policy.admit(ALICE.peer_id, greeting, NOW)
    assert policy.roles(ALICE.peer_id, NOW) == {Role.NODE, Role.USER, Role.TRAINER}
    assert policy.allowance(ALICE.peer_id, NOW) is allowances.NEWCOMER
    for peer, hello in (
        (BOB, greeting),
        (BOB, Hello(greeting.swarm)),
        (BOB, Hello("other", proof=greeting.proof)),
    ):
        with pytest.raises(NotProven):
            policy.admit(peer.peer_id, hello, NOW)
    assert policy.roles(BOB.peer_id, NOW) == frozenset()
    assert policy.allowance(BOB.peer_id, NOW) is allowances.NOBODY
    assert policy.peers(NOW) == (ALICE.peer_id,)
    assert policy.expel(NOW) == ()
    assert policy.hello(NOW) == Hello(greeting.swarm, proof=7)


def test_the_owner_of_a_public_swarm_can_ban() -> None:
    owner = Owner(is_private=False)
    policy = _public(owner)
    policy.admit(ALICE.peer_id, _greeting(policy, ALICE.peer_id), NOW)
    policy.book.offer_revocations(owner.revoke(ALICE.peer_id, now=NOW))
    assert policy.roles(ALICE.peer_id, NOW) == frozenset()
    assert policy.allowance(ALICE.peer_id, NOW) is allowances.NOBODY
    assert policy.peers(NOW) == ()
    assert policy.expel(NOW) == (ALICE.peer_id,)
    assert policy.expel(NOW) == ()
    with pytest.raises(NotAdmitted, match="banned"):
        policy.admit(ALICE.peer_id, _greeting(policy, ALICE.peer_id), NOW)
    policy.hello(NOW)
    policy.book.offer_revocations(owner.revoke(ME, now=NOW))
    with pytest.raises(NotAdmitted, match="banned"):
        policy.hello(NOW)


def test_in_public_standing_decides_the_share() -> None:
    standing = Standing()
    policy = _public(standing=standing)
    standing.served(ALICE.peer_id, 10_000, NOW)
    assert policy.allowance(ALICE.peer_id, NOW) is allowances.NOBODY
    policy.admit(ALICE.peer_id, _greeting(policy, ALICE.peer_id), NOW)
    assert policy.allowance(ALICE.peer_id, NOW) is allowances.KNOWN


def test_of_too_many_strangers_the_quietest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "STRANGERS_MAX", 2)
    monkeypatch.setattr(policies, "is_proof", lambda *_: True)
    policy = _public()
    for peer in (ALICE, BOB, ISSUER):
        policy.admit(peer.peer_id, Hello(policy.book.charter.swarm), NOW)
        policy.roles(ALICE.peer_id, NOW)
    assert set(policy.peers(NOW)) == {ALICE.peer_id, ISSUER.peer_id}
