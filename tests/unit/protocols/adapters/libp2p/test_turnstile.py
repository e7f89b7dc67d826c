"""Who gets in: seats, rates, and what happens to those who go on and on."""

from dataclasses import replace

import pytest

from protocols import access, allowances, limits, versions
from protocols.adapters.clock import ManualClock
from protocols.adapters.libp2p.turnstile import (
    SHUT_OUT_SECONDS_FIRST,
    SHUT_OUT_SECONDS_MAX,
    Turnstile,
)
from protocols.errors import Busy, NotAdmitted
from protocols.ids import PeerId
from protocols.ports import Allowance, Transport
from protocols.signing import Identity

FIND = access.DHT_FIND
PLENTY = replace(allowances.MEMBER, requests_per_second=1e6, burst=10**6)


def peer(number: int) -> PeerId:
    return Identity(number.to_bytes(32, "big")).peer_id


class ListGate:
    """Admits those on its list, with one allowance for all."""

    def __init__(self, allowance: Allowance = PLENTY) -> None:
        self.inside: set[PeerId] = set()
        self.everybody = False
        self._allowance = allowance

    async def attach(self, transport: Transport) -> None:
        raise NotImplementedError

    def admits(self, peer: PeerId, _protocol: str) -> bool:
        return self.everybody or peer in self.inside

    def allowance(self, peer: PeerId) -> Allowance:
        return self._allowance if self.admits(peer, "") else allowances.NOBODY

    async def greet(self, _peer: PeerId, _protocol: str) -> None:
        return

    def forget(self, _peer: PeerId) -> None:
        return


def opened(turnstile: Turnstile, who: PeerId, tries: int, protocol: str = versions.ASK) -> int:
    return sum(turnstile.enter_stream(who, protocol) for _ in range(tries))


def gated(allowance: Allowance = PLENTY) -> tuple[Turnstile, ListGate, ManualClock]:
    clock, gate = ManualClock(), ListGate(allowance)
    return Turnstile(clock, gate), gate, clock


def test_a_stranger_may_only_say_hello() -> None:
    turnstile, _, _ = gated()
    assert opened(turnstile, peer(1), 10) == 0
    assert opened(turnstile, peer(1), 10, versions.HELLO) == allowances.NOBODY.streams
    with pytest.raises(NotAdmitted):
        turnstile.enter_request(peer(1), FIND)


def test_seats_per_peer() -> None:
    turnstile, gate, _ = gated()
    gate.everybody = True
    assert opened(turnstile, peer(1), 100) == limits.STREAMS_IN_PER_PEER_MAX
    turnstile.leave_stream(peer(1))
    assert opened(turnstile, peer(1), 100) == 1


def test_ten_peers_or_twenty_do_not_take_all_seats() -> None:
    turnstile, gate, clock = gated()
    gate.everybody = True
    greedy = 0
    for number in range(20):
        clock.advance(1)  # the total of openings in a second is another limit
        greedy += opened(turnstile, peer(number), 100)
    kept = limits.STREAMS_IN_MAX - limits.STREAMS_IN_RESERVED
    assert kept <= greedy <= kept + 20
    clock.advance(10)
    honest = sum(opened(turnstile, peer(1_000 + number), 1) for number in range(50))
    assert honest == 50


def test_all_seats_together() -> None:
    turnstile, gate, clock = gated()
    gate.everybody = True
    total = 0
    for number in range(2 * limits.STREAMS_IN_MAX):
        clock.advance(0.1)
        total += opened(turnstile, peer(number), 1)
    assert total == limits.STREAMS_IN_MAX


def test_requests_have_a_rate() -> None:
    turnstile, gate, clock = gated(allowances.NEWCOMER)
    gate.inside.add(peer(1))

    def answered(tries: int) -> int:
        count = 0
        for _ in range(tries):
            try:
                turnstile.enter_request(peer(1), FIND)
            except Busy:
                continue
            turnstile.leave_request()
            count += 1
        return count

    assert answered(100) == allowances.NEWCOMER.burst
    clock.advance(2)
    assert answered(100) == 2 * allowances.NEWCOMER.requests_per_second


def test_requests_at_once_are_bounded() -> None:
    turnstile, gate, _ = gated()
    gate.everybody = True
    for _ in range(limits.DHT_REQUESTS_MAX):
        turnstile.enter_request(peer(1), FIND)
    with pytest.raises(Busy):
        turnstile.enter_request(peer(2), FIND)
    turnstile.leave_request()
    turnstile.enter_request(peer(2), FIND)


def test_a_stranger_that_is_admitted_is_not_held_to_what_it_tried_before() -> None:
    """Busy would hide from it that it should say hello."""
    turnstile, gate, _ = gated(allowances.MEMBER)
    for _ in range(20):
        with pytest.raises(NotAdmitted):
            turnstile.enter_request(peer(1), FIND)
    gate.inside.add(peer(1))
    turnstile.enter_request(peer(1), FIND)


def test_who_goes_on_is_thrown_out() -> None:
    turnstile, _, clock = gated()
    thrown: list[PeerId] = []
    turnstile.on_flood = thrown.append
    opened(turnstile, peer(1), int(limits.REFUSALS_BURST))
    assert thrown == []
    opened(turnstile, peer(1), 1)
    assert thrown == [peer(1)]
    clock.advance(60)
    opened(turnstile, peer(1), int(limits.REFUSALS_BURST))
    assert thrown == [peer(1)]


def flood(turnstile: Turnstile, who: PeerId) -> None:
    opened(turnstile, who, int(limits.REFUSALS_BURST) + 60)


def test_who_flooded_gets_nothing_for_a_while_and_the_next_time_for_longer() -> None:
    turnstile, gate, clock = gated(allowances.MEMBER)
    told: list[PeerId] = []
    turnstile.on_shut_out = told.append
    flood(turnstile, peer(1))
    gate.inside.update({peer(1), peer(2)})
    assert told == [peer(1)]
    assert not turnstile.enter_stream(peer(1), versions.ASK)
    assert not turnstile.enter_routing(peer(1))
    with pytest.raises(Busy):
        turnstile.enter_request(peer(1), FIND)
    assert turnstile.enter_stream(peer(2), versions.ASK)
    clock.advance(SHUT_OUT_SECONDS_FIRST)
    assert turnstile.enter_stream(peer(1), versions.ASK)
    turnstile.leave_stream(peer(1))
    turnstile.enter_request(peer(1), FIND)
    flood(turnstile, peer(1))
    assert told == [peer(1)] * 2
    clock.advance(SHUT_OUT_SECONDS_FIRST)
    assert turnstile.is_shut_out(peer(1))
    clock.advance(SHUT_OUT_SECONDS_FIRST)
    assert not turnstile.is_shut_out(peer(1))


def test_one_that_floods_on_while_it_is_shut_out_is_dropped_but_not_punished_again() -> None:
    turnstile, _, _ = gated()
    told: list[PeerId] = []
    dropped: list[PeerId] = []
    turnstile.on_shut_out, turnstile.on_flood = told.append, dropped.append
    flood(turnstile, peer(1))
    flood(turnstile, peer(1))
    assert told == [peer(1)]
    assert len(dropped) > 60


def test_shutting_out_has_an_end_and_takes_bounded_memory() -> None:
    turnstile, _, clock = gated()
    for _ in range(12):
        flood(turnstile, peer(1))
        clock.advance(SHUT_OUT_SECONDS_MAX)
        assert not turnstile.is_shut_out(peer(1))
    flood(turnstile, peer(1))
    clock.advance(SHUT_OUT_SECONDS_MAX - 1)
    assert turnstile.is_shut_out(peer(1))
    clock.advance(2 * SHUT_OUT_SECONDS_MAX)
    flood(turnstile, peer(1))
    clock.advance(SHUT_OUT_SECONDS_FIRST)
    assert not turnstile.is_shut_out(peer(1))


def test_bytes_have_a_rate() -> None:
    turnstile = Turnstile(ManualClock())
    assert turnstile.count_bytes(peer(1), int(limits.STREAM_BYTES_BURST))
    assert not turnstile.count_bytes(peer(1), 1)
    assert turnstile.count_bytes(peer(2), 1)


def test_without_a_gate_everybody_is_known() -> None:
    turnstile = Turnstile(ManualClock())
    assert opened(turnstile, peer(1), 100) == allowances.KNOWN.streams
