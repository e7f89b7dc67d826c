"""The table of records that we keep for others."""

import itertools

import msgspec
import pytest
from hivemind.dht.routing import DHTID

from protocols import limits
from protocols.adapters.clock import ManualClock
from protocols.adapters.libp2p.places import PLACES, place_of
from protocols.adapters.libp2p.table import RecordTable
from protocols.records import IndexRecord, seal
from protocols.signing import Identity

KEY = DHTID.generate("key")
START = 4_000_000_000.0
"""hivemind's dictionary type drops what its own wall clock calls past."""
INDEX = "dslm/1/public/peers"
LIFE = 60.0
PEERS = [Identity(bytes([number, 1]) * 16) for number in range(40)]


def make(bytes_max: int = limits.DHT_TABLE_BYTES_MAX, own_id: int = 0) -> RecordTable:
    return RecordTable(ManualClock(START), bytes_max, own_id=own_id)


def contents(table: RecordTable, key: DHTID = KEY) -> dict[str, tuple[bytes, float]]:
    found = table.get(key)
    return {} if found is None else {name: tuple(item) for name, item in found.value.items()}


def genuine(
    identity: Identity, key: str = INDEX, life: float = LIFE, sequence: int = 1
) -> tuple[str, bytes, float]:
    """What `store_subkey` wants after the key."""
    record = IndexRecord(identity.peer_id, key, sequence, START + life)
    sealed = msgspec.msgpack.encode(seal(record, identity))
    return identity.peer_id, sealed, START + life


def test_a_shorter_life_changes_nothing() -> None:
    table = make()
    assert table.store_subkey(KEY, "a", b"long", START + 60)
    assert not table.store_subkey(KEY, "a", b"short", START + 30)
    assert contents(table) == {"a": (b"long", START + 60)}
    assert table.store_subkey(KEY, "a", b"longer", START + 90)
    assert contents(table) == {"a": (b"longer", START + 90)}


def test_the_same_again_is_a_success_and_a_tie_is_decided_by_the_bytes() -> None:
    table = make()
    assert table.store_subkey(KEY, "a", b"v", START + 60)
    assert table.store_subkey(KEY, "a", b"v", START + 60)
    assert not table.store_subkey(KEY, "a", b"other", START + 60)
    assert table.store_subkey(KEY, "a", b"w", START + 60)


def test_each_record_ends_at_its_own_time() -> None:
    clock = ManualClock(START)
    table = RecordTable(clock)
    table.store_subkey(KEY, "a", b"1", START + 10)
    table.store_subkey(KEY, "b", b"2", START + 20)
    clock.advance(10)
    assert set(contents(table)) == {"b"}
    clock.advance(10)
    assert contents(table) == {}
    assert KEY not in table
    assert len(table) == 0


def test_what_is_past_or_plain_is_not_taken() -> None:
    table = make()
    assert not table.store_subkey(KEY, "a", b"1", START)
    assert not table.store(KEY, b"plain", START + 10)
    assert table.store(KEY, b"1", START + 10, subkey="a")


def test_a_genuine_record_is_kept_at_all_its_places_and_nowhere_else() -> None:
    record = genuine(PEERS[0])
    for number in range(PLACES):
        assert make().store_subkey(place_of(INDEX, number), *record)
    assert not make().store_subkey(place_of("dslm/1/other/peers", 0), *record)
    assert not make().store_subkey(place_of(INDEX, PLACES), *record)


def test_forgeries_are_refused() -> None:
    place = place_of(INDEX, 0)
    subkey, sealed, end = genuine(PEERS[0])
    altered = bytearray(sealed)
    altered[-1] ^= 1
    for name, value, expires_at in (
        (subkey, bytes(altered), end),
        (PEERS[1].peer_id, sealed, end),
        (subkey, sealed, end + 1),
        (subkey, sealed, end - 1),
    ):
        assert not make().store_subkey(place, name, value, expires_at)


def test_what_nobody_signed_cannot_hide_or_replace_what_somebody_did() -> None:
    table, place, record = make(), place_of(INDEX, 0), genuine(PEERS[0])
    garbage = msgspec.msgpack.encode(b"garbage")
    assert table.store_subkey(place, record[0], garbage, START + 3_000), "nothing better is there"
    assert table.store_subkey(place, *record)
    assert not table.store_subkey(place, record[0], garbage, START + 3_500)
    assert contents(table, place) == {record[0]: record[1:]}


def test_an_older_record_of_a_publisher_changes_nothing() -> None:
    table, place = make(), place_of(INDEX, 0)
    older, newer = genuine(PEERS[0], life=30), genuine(PEERS[0], sequence=2)
    assert table.store_subkey(place, *newer)
    assert not table.store_subkey(place, *older)
    assert contents(table, place) == {newer[0]: newer[1:]}


def test_a_full_key_keeps_another_selection_at_each_peer() -> None:
    names = [f"{number}" for number in range(limits.DHT_SUBKEYS_MAX + 100)]
    kept = []
    for own_id in (1, 2):
        table = make(own_id=own_id)
        for name in names:
            table.store_subkey(KEY, name, b"x", START + LIFE)
        kept.append(set(contents(table)))
        renewed = next(iter(kept[-1]))
        assert table.store_subkey(KEY, renewed, b"y", START + 2 * LIFE), "who is in may renew"
    assert 0 < len(kept[0]) <= limits.DHT_SUBKEYS_MAX
    assert kept[0] != kept[1]


def test_a_full_key_of_great_values_can_be_renewed() -> None:
    table = make()
    for number in range(100):
        table.store_subkey(KEY, f"{number}", b"x" * 8_192, START + LIFE)
    held = contents(table)
    assert 10 <= len(held) <= limits.DHT_KEY_BYTES_MAX // 8_192
    for name in held:
        assert table.store_subkey(KEY, name, b"y" * 8_192, START + 2 * LIFE)
    assert set(contents(table)) == set(held)


def test_a_full_key_gives_up_what_nobody_signed_for_what_somebody_did() -> None:
    table, place = make(), place_of(INDEX, 0)
    for number in range(limits.DHT_SUBKEYS_MAX + 10):
        table.store_subkey(place, f"{number}", b"x", START + LIFE)
    for identity in PEERS:
        assert table.store_subkey(place, *genuine(identity))
    assert set(contents(table, place)) >= {identity.peer_id for identity in PEERS}


def test_values_that_are_no_records_get_a_quarter_of_the_table() -> None:
    clock = ManualClock(START)
    table = RecordTable(clock, 1024 * 1024)
    keys = (DHTID.generate(number) for number in itertools.count())
    taken = sum(
        table.store_subkey(next(keys), f"{number}", b"x" * 1_000, START + 10)
        for number in range(600)
    )
    assert 200 <= taken <= 1024 * 1024 // 4 // 1_000
    assert not table.store_subkey(next(keys), "late", b"x" * 1_000, START + 60)
    clock.advance(11)
    assert table.store_subkey(next(keys), "late", b"x" * 1_000, START + 60), "the others ended"
    assert len(table) == 1


@pytest.mark.parametrize("is_genuine", [True, False])
def test_one_publisher_cannot_fill_the_table(is_genuine: bool) -> None:
    table, name = make(), PEERS[0].peer_id
    taken = 0
    for number in range(limits.DHT_PUBLISHER_RECORDS_MAX + 20):
        key = f"dslm/1/public/domain/{number}"
        if is_genuine:
            taken += table.store_subkey(place_of(key, 0), *genuine(PEERS[0], key))
        else:
            taken += table.store_subkey(place_of(key, 0), name, b"x", START + LIFE)
    assert taken == limits.DHT_PUBLISHER_RECORDS_MAX
    key = "dslm/1/public/domain/other"
    assert table.store_subkey(place_of(key, 0), *genuine(PEERS[1], key)), "another one may"


def test_what_others_store_under_a_publisher_s_name_takes_nothing_from_its_share() -> None:
    table, name = make(), PEERS[0].peer_id
    for number in range(limits.DHT_PUBLISHER_RECORDS_MAX):
        assert table.store_subkey(DHTID.generate(number), name, b"x", START + LIFE)
    assert table.store_subkey(place_of(INDEX, 0), *genuine(PEERS[0]))


def test_a_full_table_keeps_what_is_nearest_to_us() -> None:
    table = make(bytes_max=20_000, own_id=int(DHTID.generate("us")))
    by_place = {}
    for number, identity in enumerate([*PEERS, *PEERS]):
        key = f"dslm/1/public/domain/{number}"
        by_place[place_of(key, 0)] = table.store_subkey(place_of(key, 0), *genuine(identity, key))
    nearest = sorted(by_place, key=DHTID.generate("us").xor_distance)
    held = [place for place in nearest if place in table]
    assert 20 <= len(held) < len(by_place)
    assert held == nearest[: len(held)]


def test_what_nobody_signed_pushes_nothing_out_of_a_full_table() -> None:
    table = make(bytes_max=20_000, own_id=int(KEY))
    for number, identity in enumerate([*PEERS, *PEERS]):
        key = f"dslm/1/public/domain/{number}"
        table.store_subkey(place_of(key, 0), *genuine(identity, key))
    held = len(table)
    assert not table.store_subkey(KEY, "a", b"x" * 4_000, START + LIFE)
    assert len(table) == held


def test_the_amounts_are_right_after_everything_ended() -> None:
    clock = ManualClock(START)
    table = RecordTable(clock, 20_000)
    for number, identity in enumerate([*PEERS, *PEERS]):
        key = f"dslm/1/public/domain/{number}"
        table.store_subkey(place_of(key, 0), *genuine(identity, key))
        table.store_subkey(place_of(key, 0), f"{number}", b"x" * number, START + LIFE)
    clock.advance(LIFE)
    for number in range(80):
        assert place_of(f"dslm/1/public/domain/{number}", 0) not in table
    assert repr(table) == "<RecordTable 0 records, 0 bytes>"
    assert len(table) == 0


def test_strangers_are_sent_nothing_of_the_table() -> None:
    table = make()
    table.store_subkey(KEY, "a", b"1", START + 10)
    assert list(table.items()) == []
