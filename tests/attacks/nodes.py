"""Our peers as the attack suite starts them: the network, its records, where a key lies.

Knows how a network is put together, so that nothing else here must change when that does.
"""

import time
from dataclasses import fields, replace
from pathlib import Path

from hivemind.dht.routing import DHTID

from protocols import limits
from protocols.adapters.clock import SystemClock
from protocols.adapters.libp2p.network import Libp2pConfig, Libp2pNetwork
from protocols.records import IndexRecord, open_sealed, seal
from protocols.signing import Identity

LISTEN = ("/ip4/127.0.0.1/tcp/0",)


def make_network(
    identity: Identity,
    folder: Path,
    bootstrap: tuple[str, ...] = (),
    table_bytes: int = limits.DHT_TABLE_BYTES_MAX,
) -> Libp2pNetwork:
    """A peer of the public swarm of nobody, that keeps `table_bytes` for others; enter it."""
    config = Libp2pConfig(identity, LISTEN, folder, bootstrap)
    if "table_bytes_max" in {field.name for field in fields(config)}:
        config = replace(config, table_bytes_max=table_bytes)
    return Libp2pNetwork(config, SystemClock())


def make_record(
    identity: Identity, key: str, number: int, life: float, specialists: tuple[str, ...] = ()
) -> tuple[bytes, float]:
    """A genuine record that says `number`, and when it ends (Unix seconds)."""
    expires_at = time.time() + life
    record = IndexRecord(identity.peer_id, key, number, expires_at, specialists)
    return seal(record, identity), expires_at


def read_record(data: bytes) -> str:
    """The number in a genuine record."""
    return str(open_sealed(data).sequence)


def key_id_of(key: str) -> bytes:
    """Under which id the swarm's table holds `key`."""
    return bytes(DHTID.generate(key).to_bytes())
