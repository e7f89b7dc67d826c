"""Proof of work on an identity: what makes a thousand identities cost more than one.

Knows the puzzle (hashcash on the peer's public key and the swarm); must not know who asks for it.
"""

import hashlib
import struct

from protocols.ids import PeerId, SwarmId, public_key_of
from protocols.membership.charter import PROOF_BITS

_DOMAIN = b"dslm/proof/1\0"
_NONCE = struct.Struct(">Q")


def make_proof(swarm: SwarmId, peer: PeerId, bits: int = PROOF_BITS) -> int:
    """The smallest nonce whose hash begins with `bits` zero bits; takes 2**bits hashes or so."""
    base = hashlib.sha256(_DOMAIN + swarm.encode() + public_key_of(peer))
    nonce = 0
    while not _is_proof(base, nonce, bits):
        nonce += 1
    return nonce


def is_proof(swarm: SwarmId, peer: PeerId, nonce: int, bits: int = PROOF_BITS) -> bool:
    """Whether `nonce` solves the puzzle of `peer` in `swarm`; one hash."""
    if not 0 <= nonce < 2**64:
        return False
    base = hashlib.sha256(_DOMAIN + swarm.encode() + public_key_of(peer))
    return _is_proof(base, nonce, bits)


def _is_proof(base: "hashlib._Hash", nonce: int, bits: int) -> bool:
    attempt = base.copy()
    attempt.update(_NONCE.pack(nonce))
    return int.from_bytes(attempt.digest()[:8], "big") >> (64 - bits) == 0
