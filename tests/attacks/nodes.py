"""Our peers as the attack suite starts them: the network, its records, where a key lies.

Knows how a network is put together, so that nothing else here must change when that does.
"""

import time
from pathlib import Path

from hivemind.dht.routing import DHTID

from protocols import limits
from protocols.adapters.clock import SystemClock
from protocols.adapters.libp2p.network import Libp2pConfig, Libp2pNetwork
from protocols.codec import encode
from protocols.gate import SwarmGate
from protocols.gating.policies import PublicPolicy
from protocols.membership.book import MemberBook
from protocols.membership.charter import open_charter
from protocols.membership.proof import make_proof
from protocols.messages.hello import Hello
from protocols.records import IndexRecord, open_sealed, seal
from protocols.signing import Identity

LISTEN = ("/ip4/127.0.0.1/tcp/0",)
SWARM_NAME = "attacked"


def make_gate(identity: Identity) -> SwarmGate:
    """The gate of a public swarm, which asks for a proof of work and knows nobody yet."""
    charter = open_charter(SWARM_NAME)
    proof = make_proof(charter.swarm, identity.peer_id)
    policy = PublicPolicy(identity.peer_id, MemberBook(charter), proof)
    return SwarmGate(policy, SystemClock())


def make_hello(identity: Identity) -> bytes:
    """The frame with which a newcomer is let into the swarm."""
    swarm = open_charter(SWARM_NAME).swarm
    return encode(Hello(swarm, proof=make_proof(swarm, identity.peer_id)))


def make_network(
    identity: Identity,
    folder: Path,
    bootstrap: tuple[str, ...] = (),
    table_bytes: int = limits.DHT_TABLE_BYTES_MAX,
) -> Libp2pNetwork:
    """A peer of the public swarm that keeps `table_bytes` for others; enter it to start it."""
    config = Libp2pConfig(identity, LISTEN, folder, bootstrap, table_bytes_max=table_bytes)
    return Libp2pNetwork(config, SystemClock(), make_gate(identity))


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
