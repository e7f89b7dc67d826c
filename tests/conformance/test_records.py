"""What every `RecordStore` guarantees."""

import asyncio
from typing import TYPE_CHECKING

from protocols.ports import StoredValue
from protocols.signing import Identity

if TYPE_CHECKING:
    from tests.conformance.conftest import Stores

KEY = "dslm/1/conformance/key"


def new_subkey() -> str:
    return Identity.generate().peer_id


async def test_an_unknown_key_is_empty(stores: "Stores") -> None:
    assert dict(await stores.stores[0].get("dslm/1/conformance/nothing")) == {}


async def test_every_peer_finds_what_one_put(stores: "Stores") -> None:
    subkey, end = new_subkey(), stores.clock.now() + 60
    assert await stores.stores[0].put(KEY, subkey, b"value", end)
    for store in stores.stores:
        assert dict(await store.get(KEY)) == {subkey: StoredValue(b"value", end)}


async def test_many_subkeys_from_all_peers_live_side_by_side(stores: "Stores") -> None:
    end = stores.clock.now() + 60
    expected = {new_subkey(): f"value {number}".encode() for number in range(60)}
    for number, (subkey, value) in enumerate(expected.items()):
        assert await stores.stores[number % 3].put(KEY, subkey, value, end)
    for store in stores.stores:
        found = await store.get(KEY)
        assert {subkey: item.value for subkey, item in found.items()} == expected


async def test_the_longer_lived_value_of_a_subkey_stays_in_any_order(stores: "Stores") -> None:
    subkey, now = new_subkey(), stores.clock.now()
    await stores.stores[0].put(KEY, subkey, b"long", now + 60)
    await stores.stores[1].put(KEY, subkey, b"short", now + 30)
    for store in stores.stores:
        assert (await store.get(KEY))[subkey] == StoredValue(b"long", now + 60)
    await stores.stores[2].put(KEY, subkey, b"longer", now + 90)
    for store in stores.stores:
        assert (await store.get(KEY))[subkey] == StoredValue(b"longer", now + 90)


async def test_a_record_ends_at_its_own_time(stores: "Stores") -> None:
    ending, staying = new_subkey(), new_subkey()
    now = stores.clock.now()
    await stores.stores[0].put(KEY, ending, b"short", now + 1.0)
    await stores.stores[0].put(KEY, staying, b"long", now + 60)
    assert set(await stores.stores[1].get(KEY)) == {ending, staying}
    if stores.pass_time is not None:
        stores.pass_time(1.1)
    else:
        await asyncio.sleep(max(0.0, now + 1.1 - stores.clock.now()))
    for store in stores.stores:
        assert set(await store.get(KEY)) == {staying}


async def test_what_has_ended_is_not_taken(stores: "Stores") -> None:
    assert not await stores.stores[0].put(KEY, new_subkey(), b"late", stores.clock.now() - 1)
    assert dict(await stores.stores[0].get(KEY)) == {}


async def test_storing_again_is_harmless(stores: "Stores") -> None:
    subkey, end = new_subkey(), stores.clock.now() + 60
    for store in (stores.stores[0], stores.stores[0], stores.stores[1]):
        assert await store.put(KEY, subkey, b"same", end)
    assert dict(await stores.stores[2].get(KEY)) == {subkey: StoredValue(b"same", end)}


async def test_keys_do_not_mix(stores: "Stores") -> None:
    subkey, end = new_subkey(), stores.clock.now() + 60
    await stores.stores[0].put(f"{KEY}/a", subkey, b"a", end)
    await stores.stores[1].put(f"{KEY}/b", subkey, b"b", end)
    assert (await stores.stores[2].get(f"{KEY}/a"))[subkey].value == b"a"
    assert (await stores.stores[2].get(f"{KEY}/b"))[subkey].value == b"b"


async def test_a_record_of_the_greatest_size_passes(stores: "Stores") -> None:
    subkey, end = new_subkey(), stores.clock.now() + 60
    value = bytes(range(256)) * 32
    assert await stores.stores[0].put(KEY, subkey, value, end)
    assert (await stores.stores[1].get(KEY))[subkey].value == value
