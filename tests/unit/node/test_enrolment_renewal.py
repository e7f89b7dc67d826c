"""A member's certificate is renewed in time, by whoever can, through all that comes between."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from node.swarms.renewal import HINT_SECONDS_MIN, Renewer
from protocols import limits, versions
from protocols.adapters.memory import MemoryNetwork
from protocols.adapters.virtual import LoopClock, run_virtual
from protocols.errors import NotAdmitted, PeerUnreachable
from protocols.membership.documents import open_certificate, unpack_credential
from tests.simulation.members import DAY, Member, Owner, credential, identity_of

HOUR = 3_600.0


class Swarm:
    """Two issuers, `first` and `second`, and a member whom `first` has certified."""

    def __init__(self, network: MemoryNetwork, clock: LoopClock) -> None:
        self.network = network
        self.clock = clock
        self.owner = Owner()
        self.first, self.second, self.member = (
            Member(self.owner, identity_of(name), clock, 1) for name in ("1", "2", "member")
        )

    async def begin(self) -> None:
        now = self.clock.now()
        for one in (self.first, self.second, self.member):
            one.kept.credential = credential(self.owner, self.first.identity, one.peer, now)
            for issuer in (self.first, self.second):
                one.book.offer_delegation(self.owner.delegate(issuer.peer, now), now)
            await one.join(self.network)

    def issuer_of(self, member: Member) -> str:
        data = unpack_credential(member.kept.credential).certificate
        return open_certificate(data, self.owner.charter)[0]

    def is_member(self) -> bool:
        member, now = self.member, self.clock.now()
        try:
            self.second.book.check(member.peer, member.kept.credential, now)
        except NotAdmitted:
            return False
        return True


def run(
    story: Callable[[Swarm, asyncio.TaskGroup], Awaitable[None]], is_renewing: bool = True
) -> None:
    """`story`, with renewers that run until it ends, or without."""

    async def main() -> None:
        clock = LoopClock()
        async with MemoryNetwork(1, clock) as network:
            swarm = Swarm(network, clock)
            await swarm.begin()
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(one.renewer.run())
                    for one in (swarm.first, swarm.second, swarm.member)
                    if is_renewing
                ]
                await story(swarm, tasks)
                for task in running:
                    task.cancel()
            assert network.defects == []

    run_virtual(main(), 100 * DAY)


def test_a_certificate_is_renewed_at_half_its_life_for_ever() -> None:
    async def story(swarm: Swarm, _: asyncio.TaskGroup) -> None:
        seen, issuers = [], set()
        for _hour in range(24 * 4):
            await asyncio.sleep(HOUR)
            assert swarm.is_member()
            if swarm.member.kept.credential not in seen:
                seen.append(swarm.member.kept.credential)
                issuers.add(swarm.issuer_of(swarm.member))
        assert len(seen) == 8
        assert issuers == {swarm.first.peer, swarm.second.peer}
        assert swarm.issuer_of(swarm.first) == swarm.first.peer, "issuers renew themselves"

    run(story)


def test_one_issuer_that_is_left_is_enough() -> None:
    async def story(swarm: Swarm, _: asyncio.TaskGroup) -> None:
        swarm.network.kill(swarm.first.peer)
        await asyncio.sleep(3 * DAY)
        assert swarm.is_member()
        assert swarm.issuer_of(swarm.member) == swarm.second.peer
        assert swarm.member.renewer.last_error == ""

    run(story)


def test_without_an_issuer_it_is_tried_until_one_comes_back() -> None:
    async def story(swarm: Swarm, _: asyncio.TaskGroup) -> None:
        for issuer in (swarm.first, swarm.second):
            swarm.network.freeze(issuer.peer)
        await asyncio.sleep(5 * DAY)
        assert not swarm.is_member()
        assert swarm.member.renewer.last_error
        swarm.network.thaw(swarm.second.peer)
        await asyncio.sleep(HOUR)
        assert swarm.is_member()

    run(story)


def test_a_lapse_of_over_thirty_days_is_for_ever() -> None:
    async def story(swarm: Swarm, _: asyncio.TaskGroup) -> None:
        member = swarm.member
        await asyncio.sleep(DAY + limits.LAPSE_SECONDS_MAX - HOUR)
        assert not swarm.is_member()
        late = member.kept.credential
        await member.renewer.renew()
        assert swarm.is_member()
        member.kept.credential = late
        await asyncio.sleep(2 * HOUR)
        with pytest.raises(NotAdmitted, match="30 days"):
            await member.renewer.renew()

    run(story, is_renewing=False)


def test_the_revoked_are_not_renewed_and_an_issuer_not_even_by_itself() -> None:
    async def story(swarm: Swarm, _: asyncio.TaskGroup) -> None:
        revoked = swarm.owner.revoke(swarm.member.peer, swarm.first.peer, now=swarm.clock.now())
        for one in (swarm.first, swarm.second):
            one.book.offer_revocations(revoked)
        for one in (swarm.first, swarm.member):
            before = one.kept.credential
            with pytest.raises(NotAdmitted):
                await one.renewer.renew()
            assert one.kept.credential == before
        await asyncio.sleep(2 * DAY)
        assert not swarm.is_member()

    run(story)


def test_an_issuer_whose_time_ended_is_renewed_by_another() -> None:
    async def story(swarm: Swarm, _: asyncio.TaskGroup) -> None:
        now = swarm.clock.now()
        short = swarm.owner.delegate(swarm.first.peer, now + 1, HOUR)
        for one in (swarm.first, swarm.second, swarm.member):
            one.book.offer_delegation(short, now + 1)
        await asyncio.sleep(2 * HOUR)
        for one in (swarm.first, swarm.member):
            assert swarm.issuer_of(one) == swarm.second.peer
        assert swarm.is_member()

    run(story)


def test_nobody_drops_out_when_an_issuers_time_comes_to_its_end() -> None:
    async def story(swarm: Swarm, _: asyncio.TaskGroup) -> None:
        swarm.network.kill(swarm.second.peer)
        now = swarm.clock.now()
        short = swarm.owner.delegate(swarm.first.peer, now + 1, 2 * HOUR)
        for one in (swarm.first, swarm.second, swarm.member):
            one.book.offer_delegation(short, now + 1)
        await asyncio.sleep(2 * HOUR - 60)
        longer = swarm.owner.delegate(swarm.first.peer, swarm.clock.now())
        swarm.first.book.offer_delegation(longer, swarm.clock.now())
        swarm.second.book.offer_delegation(longer, swarm.clock.now())
        for _step in range(60):
            await asyncio.sleep(60)
            assert swarm.is_member()

    run(story)


def test_after_a_rotation_all_come_within_the_minute_of_grace() -> None:
    async def story(swarm: Swarm, _: asyncio.TaskGroup) -> None:
        await asyncio.sleep(HOUR)
        now = swarm.clock.now()
        documents = [
            swarm.owner.rotate(now),
            swarm.owner.delegate(swarm.first.peer, now),
            swarm.owner.delegate(swarm.second.peer, now),
        ]
        for one in (swarm.first, swarm.second, swarm.member):
            for document in documents:
                one.book.offer(document, now)
        for _step in range(30):
            await asyncio.sleep(10)
            assert swarm.is_member()

    run(story)


def test_a_rotation_that_was_slept_through_is_made_up_for() -> None:
    async def story(swarm: Swarm, _: asyncio.TaskGroup) -> None:
        await asyncio.sleep(HOUR)
        now = swarm.clock.now()
        issuers = (swarm.first, swarm.second)
        documents = [
            swarm.owner.rotate(now),
            *(swarm.owner.delegate(one.peer, now) for one in issuers),
        ]
        for one in issuers:
            for document in documents:
                one.book.offer(document, now)
        await asyncio.sleep(200)
        assert not swarm.is_member()
        assert swarm.member.book.epoch == 0
        await swarm.member.transport.connect(swarm.second.address())
        with pytest.raises(NotAdmitted, match="rotation"):  # the others say so, which helps
            await swarm.member.gate.greet(swarm.second.peer, versions.SWARM)
        await asyncio.sleep(60)
        assert swarm.is_member()
        assert swarm.member.book.epoch == 1
        await swarm.member.gate.greet(swarm.second.peer, versions.SWARM)

    run(story)


def test_hints_are_heeded_now_and_then_only(monkeypatch: pytest.MonkeyPatch) -> None:
    renewals = 0
    renew = Renewer.renew

    async def counted(renewer: Renewer) -> None:
        nonlocal renewals
        renewals += 1
        await renew(renewer)

    async def story(swarm: Swarm, _: asyncio.TaskGroup) -> None:
        nonlocal renewals
        monkeypatch.setattr(Renewer, "renew", counted)
        for _second in range(int(2 * HINT_SECONDS_MIN)):
            swarm.member.renewer.renew_soon()
            await asyncio.sleep(1.0)
        assert 1 <= renewals <= 2

    run(story)


def test_without_a_certificate_the_renewer_waits() -> None:
    async def story(swarm: Swarm, _: asyncio.TaskGroup) -> None:
        held, swarm.member.kept.credential = swarm.member.kept.credential, b""
        await asyncio.sleep(HOUR)
        swarm.member.kept.credential = held
        await asyncio.sleep(DAY)
        assert swarm.is_member()

    run(story)


def test_the_last_failure_is_told() -> None:
    async def story(swarm: Swarm, _: asyncio.TaskGroup) -> None:
        for issuer in (swarm.first, swarm.second):
            swarm.network.kill(issuer.peer)
        with pytest.raises(PeerUnreachable):
            await swarm.member.renewer.renew()

    run(story)
