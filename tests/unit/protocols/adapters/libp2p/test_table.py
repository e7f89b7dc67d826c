"""The table of records that we keep for others."""

import itertools

from hivemind.dht.routing import DHTID
from hypothesis import given
from hypothesis import strategies as st

from protocols import limits
from protocols.adapters.clock import ManualClock
from protocols.adapters.libp2p.table import RecordTable

KEY = DHTID.generate("key")
START = 1_000.0


def contents(table: RecordTable, key: DHTID = KEY) -> dict[str, tuple[bytes, float]]:
    found = table.get(key)
    return {} if found is None else {name: tuple(item) for name, item in found.value.items()}


def far(seconds: float) -> float:
    """hivemind's dictionary type drops what its own wall clock calls past."""
    return 4_000_000_000.0 + seconds


def test_a_shorter_life_changes_nothing() -> None:
    table = RecordTable(ManualClock(START))
    assert table.store_subkey(KEY, "a", b"long", far(60))
    assert not table.store_subkey(KEY, "a", b"short", far(30))
    assert contents(table) == {"a": (b"long", far(60))}
    assert table.store_subkey(KEY, "a", b"longer", far(90))
    assert contents(table) == {"a": (b"longer", far(90))}


def test_the_same_again_is_a_success() -> None:
    table = RecordTable(ManualClock(START))
    assert table.store_subkey(KEY, "a", b"v", far(60))
    assert table.store_subkey(KEY, "a", b"v", far(60))
    assert not table.store_subkey(KEY, "a", b"other", far(60))


def test_each_record_ends_at_its_own_time() -> None:
    clock = ManualClock(far(0))
    table = RecordTable(clock)
    table.store_subkey(KEY, "a", b"1", far(10))
    table.store_subkey(KEY, "b", b"2", far(20))
    clock.advance(10)
    assert set(contents(table)) == {"b"}
    clock.advance(10)
    assert contents(table) == {}
    assert KEY not in table
    assert len(table) == 0


def test_what_is_past_or_plain_is_not_taken() -> None:
    table = RecordTable(ManualClock(START))
    assert not table.store_subkey(KEY, "a", b"1", START)
    assert not table.store(KEY, b"plain", far(10))
    assert table.store(KEY, b"1", far(10), subkey="a")


@given(st.permutations([(b"1", 10), (b"2", 20), (b"3", 30), (b"4", 40)]))
def test_the_order_of_stores_does_not_matter(stores: list[tuple[bytes, int]]) -> None:
    table = RecordTable(ManualClock(START))
    for value, seconds in stores:
        table.store_subkey(KEY, "a", value, far(seconds))
    assert contents(table) == {"a": (b"4", far(40))}


def test_a_full_key_refuses_new_subkeys_and_keeps_the_old() -> None:
    table = RecordTable(ManualClock(START))
    taken = sum(
        table.store_subkey(KEY, f"{number}", b"x", far(60))
        for number in range(limits.DHT_SUBKEYS_MAX + 100)
    )
    assert taken <= limits.DHT_SUBKEYS_MAX
    assert set(contents(table)) == {f"{number}" for number in range(taken)}
    assert table.store_subkey(KEY, "0", b"y", far(90)), "who is in may renew"


def test_a_key_holds_so_many_bytes() -> None:
    table = RecordTable(ManualClock(START))
    count = sum(
        table.store_subkey(KEY, f"{number}", b"x" * 8_192, far(60)) for number in range(100)
    )
    assert count * 8_192 <= limits.DHT_KEY_BYTES_MAX
    assert count >= 10


def test_a_full_table_makes_room_when_records_end() -> None:
    clock = ManualClock(far(0))
    table = RecordTable(clock)
    keys = (DHTID.generate(number) for number in itertools.count())
    for _ in range(limits.DHT_RECORDS_MAX):
        assert table.store_subkey(next(keys), "a", b"x", far(10))
    assert not table.store_subkey(next(keys), "a", b"x", far(60))
    clock.advance(11)
    assert table.store_subkey(next(keys), "a", b"x", far(60))
    assert len(table) == 1


def test_items_are_all_that_lives() -> None:
    table = RecordTable(ManualClock(START))
    table.store_subkey(KEY, "a", b"1", far(10))
    table.store_subkey(DHTID.generate("other"), "b", b"2", far(10))
    assert {key for key, _ in table.items()} == {KEY, DHTID.generate("other")}
