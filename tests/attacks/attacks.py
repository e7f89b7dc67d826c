"""The attacks themselves: each is a function of an attacker and of the time until which to go on.

Knows what to send and how often; must not know what it does to whom. Every attack runs at least
once through, then again and again while there is time.
"""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from hivemind.proto import dht_pb2

from protocols import versions
from protocols.signing import Identity
from tests.attacks import wire
from tests.attacks.attackers import Attacker, newcomer
from tests.attacks.nodes import key_id_of, make_record
from tests.attacks.pace import rounds
from tests.attacks.streams import (
    TENSORS,
    endless_message,
    half_questions,
    idle_streams,
    inner_table,
)

Attack = Callable[[Attacker, float], Awaitable[None]]

LIFE = 600.0
GIANT_KEYS = 150_000
RECORDS_AT_ONCE = 4
"""Few enough that a newcomer is not refused for the size of its requests."""
AT_ONCE = 6
"""Giant messages on their way at a time."""
GIANT_SECONDS = 1.0
HASTE_SECONDS = 0.25
"""How long their answers are waited for; our node drops such messages without a word."""
PLAIN_TENSOR = "ConnectionHandler.rpc_forward"


def own_id(attacker: Attacker) -> bytes:
    """The one node id that our guard lets a peer have."""
    return hashlib.sha1(attacker.peer_bytes, usedforsecurity=False).digest()


def subkey(peer: str) -> bytes:
    """A peer id as a record's subkey."""
    return wire.encode(peer)


async def store(attacker: Attacker, sub: bytes, value: bytes, expires_at: float) -> None:
    """One value under the attacked key."""
    data = wire.store([attacker.target.key_id], sub, value, expires_at)
    await attacker.call("DHTProtocol.rpc_store", data)


async def nested_extensions(attacker: Attacker, until: float) -> None:
    """400 tuples in each other, as a value and as a subkey."""
    bomb = wire.nested_extensions(400)
    async for _ in rounds(until):
        await store(attacker, wire.DICTIONARY_TAG, bomb, time.time() + LIFE)
        await store(attacker, bomb, b"\x01", time.time() + LIFE)


async def shorter_expiry(attacker: Attacker, until: float) -> None:
    """Somebody else's record again, but soon to end."""
    async for number in rounds(until):
        value = wire.encode(number)
        await store(attacker, subkey(attacker.target.peer), value, time.time() + 0.5)


async def plain_on_dictionary(attacker: Attacker, until: float) -> None:
    """A plain value in the place of all values under a key."""
    async for _ in rounds(until):
        value = wire.encode(b"mine now")
        await store(attacker, wire.PLAIN_SUBKEY, value, time.time() + 2 * LIFE)


async def invalid_value_byte(attacker: Attacker, until: float) -> None:
    """One value that cannot be decoded, beside the good ones."""
    async for _ in rounds(until):
        await store(attacker, subkey(Identity.generate().peer_id), b"\xc1", time.time() + LIFE)


async def chosen_node_ids(attacker: Attacker, until: float) -> None:
    """40 names of one peer, all close to a key."""
    near = int.from_bytes(attacker.target.key_id, "big")
    await attacker.live(wire.id_bytes(near ^ 1))
    async for _ in rounds(until):
        for offset in range(1, 41):
            await attacker.call("DHTProtocol.rpc_ping", wire.ping(wire.id_bytes(near ^ offset)))


async def giant_find(attacker: Attacker, until: float) -> None:
    """One search for 150,000 keys after the other."""
    request = wire.find(GIANT_KEYS)
    async for _ in rounds(until):
        await attacker.call("DHTProtocol.rpc_find", request, GIANT_SECONDS)


async def rejected_stores(attacker: Attacker, until: float) -> None:
    """90,000 stores in a message, all of which come too late; five such messages and more."""
    await store(attacker, wire.PLAIN_SUBKEY, b"\x01", 1e18)
    key = attacker.target.key_id
    request = wire.store([key] * 90_000, wire.PLAIN_SUBKEY, b"\x02", 1e17)
    async for _ in rounds(until):
        for _ in range(5):
            await attacker.call("DHTProtocol.rpc_store", request, GIANT_SECONDS)


async def endless_values(attacker: Attacker, until: float) -> None:
    """60 times 3.9 MB without an end; and ends that are no numbers, or years away."""
    value = wire.encode(b"x" * 3_900_000)

    async def put(key: bytes) -> None:
        request = wire.store([key], wire.PLAIN_SUBKEY, value, wire.FOREVER)
        await attacker.call("DHTProtocol.rpc_store", request, GIANT_SECONDS)

    async for number in rounds(until):
        for ends in (float("nan"), time.time() + 10 * 86_400):
            await store(attacker, subkey(Identity.generate().peer_id), wire.encode(b"x"), ends)
        for part in range(0, 60 if number == 0 else AT_ONCE, AT_ONCE):
            names = (f"endless/{number}/{part}/{index}" for index in range(AT_ONCE))
            await asyncio.gather(*(put(key_id_of(name)) for name in names))


async def wide_tensor(attacker: Attacker, until: float) -> None:
    """2 KB that claim to be 1,009 strings of 500,000 characters."""
    request = wire.wide_tensor("U500000", 1_009)
    async for _ in rounds(until):
        await attacker.call(PLAIN_TENSOR, request)
        for frame in wire.bad_tensors():
            await attacker.pour(TENSORS, frame)


async def lookups(attacker: Attacker, until: float) -> None:
    """Searches for 150,000 keys, four at a time and without a pause."""
    request = wire.find(GIANT_KEYS)

    async def search() -> None:
        async for _ in rounds(until, pause=0.0):
            await attacker.call("DHTProtocol.rpc_find", request, HASTE_SECONDS)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(search())


async def joins_of_one(attacker: Attacker, until: float) -> None:
    """One peer joins without a pause: by its own name, by invented ones, 16 times at once.

    It says hello as often, for another swarm and without work.
    """
    hello = wire.frame({"type": "hello", "swarm": "another", "proof": 1})

    async def join(number: int) -> None:
        async for turn in rounds(until, pause=0.0):
            other = wire.id_bytes(turn * 0x9E3779B97F4A7C15 + number)
            name = own_id(attacker) if turn % 2 else other
            await attacker.call("DHTProtocol.rpc_ping", wire.ping(name))
            await attacker.call("DHTProtocol.rpc_find", wire.find(1, node_id=name))
            await attacker.pour(versions.HELLO, hello)

    async with asyncio.TaskGroup() as tasks:
        for number in range(16):
            tasks.create_task(join(number))


async def joins_of_many(attacker: Attacker, until: float) -> None:
    """New peers, each with a daemon and an identity of its own, join, say so, and are gone."""
    async for _ in rounds(until, pause=0.0):
        async with newcomer(attacker.target) as other:
            for _ in range(5):
                await other.call("DHTProtocol.rpc_ping", wire.ping(own_id(other)))
                await other.call("DHTProtocol.rpc_find", wire.find(20, node_id=own_id(other)))
            attacker.sent += other.sent


async def mute_neighbours(attacker: Attacker, until: float) -> None:
    """Four peers join as they should, and then leave all questions without an answer."""
    async with AsyncExitStack() as stack:
        others = [await stack.enter_async_context(newcomer(attacker.target)) for _ in range(3)]
        for peer in (attacker, *others):
            await peer.fall_silent()
        async for _ in rounds(until, pause=1.0):
            for peer in (attacker, *others):
                await peer.call("DHTProtocol.rpc_ping", wire.ping(own_id(peer)))


async def full_store(attacker: Attacker, until: float) -> None:
    """Nothing wrong with any of these records, but they are many and large."""
    specialists = tuple(f"{index:02}{'x' * 90}" for index in range(60))
    async for number in rounds(until):
        key = f"full/{attacker.peer}/{number}"
        data, ends = make_record(attacker.identity, key, number, LIFE, specialists)
        request = wire.store([key_id_of(key)], subkey(attacker.peer), wire.encode(data), ends)
        await attacker.call("DHTProtocol.rpc_store", request)


async def forged_records(attacker: Attacker, until: float) -> None:
    """Records, each with a signature that is wrong and has to be looked at."""
    identity, number = attacker.identity, 0
    async for _ in rounds(until):
        request = dht_pb2.StoreRequest()
        for _ in range(RECORDS_AT_ONCE):
            number += 1
            key = f"forged/{number}"
            data, ends = make_record(identity, key, number, LIFE)
            request.keys.append(key_id_of(key))
            request.subkeys.append(subkey(attacker.peer))
            request.values.append(wire.encode(data[:-1] + bytes([data[-1] ^ 1])))
            request.expiration_time.append(ends)
            request.in_cache.append(False)
        await attacker.call("DHTProtocol.rpc_store", request.SerializeToString())


async def nested_arrays(attacker: Attacker, until: float) -> None:
    """50,000 arrays in each other, where a dictionary's entries belong."""
    bomb = wire.nested_arrays(50_000)
    async for _ in rounds(until):
        await store(attacker, wire.DICTIONARY_TAG, bomb, time.time() + LIFE)


async def garbage(attacker: Attacker, until: float) -> None:
    """What is no message at all, to all that listens."""
    async for _ in rounds(until):
        for method, data in wire.garbage():
            await attacker.call(f"DHTProtocol.{method}", data)
        for data in wire.bad_frames():
            for protocol in (versions.ASK, versions.INFO):
                await attacker.pour(protocol, data)


async def probe(attacker: Attacker, _until: float) -> None:
    """No attack: is a newcomer answered?"""
    await attacker.call("DHTProtocol.rpc_ping", wire.ping(own_id(attacker)))


ROWS: tuple[Attack, ...] = (
    nested_extensions,
    shorter_expiry,
    plain_on_dictionary,
    invalid_value_byte,
    chosen_node_ids,
    giant_find,
    rejected_stores,
    endless_values,
    wide_tensor,
    endless_message,
    idle_streams,
)
"""Those that were measured against plain hivemind."""
FLOODS: tuple[Attack, ...] = (
    idle_streams,
    lookups,
    joins_of_one,
    joins_of_many,
    mute_neighbours,
)
OTHERS: tuple[Attack, ...] = (
    nested_arrays,
    garbage,
    full_store,
    forged_records,
    half_questions,
    inner_table,
)
"""What the guard has to stand beside."""
ATTACKS: dict[str, Attack] = {
    attack.__name__: attack for attack in (*ROWS, *FLOODS, *OTHERS, probe)
}
