"""Standing is earned by presence or work, lost by offences, and never by the clock's doing."""

import pytest

from coordinator.standing import (
    KNOWN_AFTER_SECONDS,
    KNOWN_AFTER_TOKENS,
    OFFENCE_FADES_SECONDS,
    OFFENCES_MAX,
    Standing,
)
from protocols import allowances
from protocols.errors import ProtocolError
from protocols.ids import PeerId

NOW = 1_800_000_000.0
DAY = 86_400.0
ALICE = PeerId("alice")


def _stay(standing: Standing, seconds: float, since: float = NOW, peer: PeerId = ALICE) -> float:
    """Meet `peer` every 10 s for `seconds`; when it was met last."""
    for passed in range(0, int(seconds) + 1, 10):
        standing.met(peer, since + passed)
    return since + seconds


def test_presence_makes_a_newcomer_known() -> None:
    standing = Standing()
    assert standing.allowance_of(ALICE) is allowances.NEWCOMER
    now = _stay(standing, KNOWN_AFTER_SECONDS - 10)
    assert standing.allowance_of(ALICE) is allowances.NEWCOMER
    standing.met(ALICE, now + 10)
    assert standing.allowance_of(ALICE) is allowances.KNOWN


def test_time_away_and_clocks_that_jump_earn_nothing() -> None:
    standing = Standing()
    for now in (NOW, NOW + 3_600, NOW + 7_200, NOW - DAY, NOW, NOW, NOW + 1e9):
        standing.met(ALICE, now)
    assert not standing.is_known(ALICE)
    now = _stay(standing, KNOWN_AFTER_SECONDS, since=NOW)
    assert standing.is_known(ALICE)
    standing.met(ALICE, now - DAY)
    assert standing.is_known(ALICE)


def test_work_makes_a_newcomer_known_at_once() -> None:
    standing = Standing()
    standing.served(ALICE, KNOWN_AFTER_TOKENS - 1, NOW)
    standing.served(ALICE, -5, NOW)
    assert not standing.is_known(ALICE)
    standing.served(ALICE, 1, NOW)
    assert standing.is_known(ALICE)


def test_each_offence_begins_anew_and_doubles_the_price() -> None:
    standing = Standing()
    now = _stay(standing, KNOWN_AFTER_SECONDS)
    for offences in range(1, 3):
        standing.offended(ALICE, now)
        assert not standing.is_known(ALICE)
        standing.served(ALICE, KNOWN_AFTER_TOKENS * 2**offences - 1, now)
        assert not standing.is_known(ALICE)
        now = _stay(standing, KNOWN_AFTER_SECONDS * 2**offences - 10, now)
        assert not standing.is_known(ALICE)
        now = _stay(standing, 20, now)
        assert standing.is_known(ALICE)


def test_offences_fade_with_good_conduct() -> None:
    standing = Standing()
    for _ in range(OFFENCES_MAX + 5):
        standing.offended(ALICE, NOW)
    now = _stay(standing, OFFENCE_FADES_SECONDS * (OFFENCES_MAX + 1))
    assert standing.is_known(ALICE)
    standing.offended(ALICE, now)  # the first again
    _stay(standing, 2 * KNOWN_AFTER_SECONDS, now)
    assert standing.is_known(ALICE)


def test_a_flood_of_new_identities_costs_only_newcomers() -> None:
    standing = Standing(peers_max=50)
    _stay(standing, KNOWN_AFTER_SECONDS)
    patient = PeerId("patient")
    for n in range(10_000):
        standing.met(PeerId(f"flood-{n}"), NOW)
        if n % 40 == 0:
            standing.met(patient, NOW + n)
    assert len(standing) == 50
    assert standing.is_known(ALICE)
    assert standing.is_known(patient)


def test_known_peers_are_bounded_too() -> None:
    standing = Standing(peers_max=3)
    for n in range(5):
        standing.served(PeerId(str(n)), KNOWN_AFTER_TOKENS, NOW)
    assert len(standing) == 3
    assert [standing.is_known(PeerId(str(n))) for n in range(5)] == [False, False, True, True, True]


def test_standing_survives_a_restart() -> None:
    standing = Standing()
    _stay(standing, KNOWN_AFTER_SECONDS)
    standing.offended(PeerId("bob"), NOW)
    again = Standing.load(standing.dump())
    assert again.dump() == standing.dump()
    assert again.is_known(ALICE)
    assert len(Standing.load(standing.dump(), peers_max=1)) == 1


@pytest.mark.parametrize(
    "data", [b"", b"\x90", b"\x81\xa1a\xc0", b"\x81\xa1a\x81\xa8last_met\xcb\x7f\xf8" + bytes(6)]
)
def test_damaged_standing_is_noticed(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        Standing.load(data)
