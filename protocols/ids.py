"""The names of things on the network, as distinct types, and how a peer id carries its own key.

Knows the libp2p peer-id format for Ed25519; must not know how ids are stored or routed.
"""

import re
from typing import NewType

import base58

from protocols.errors import ProtocolError

PeerId = NewType("PeerId", str)
"""Base58 of the libp2p identity multihash of an Ed25519 public key, e.g. `12D3KooW...`."""

SwarmId = NewType("SwarmId", str)
SpecialistId = NewType("SpecialistId", str)
RequestId = NewType("RequestId", str)
Digest = NewType("Digest", str)
"""Lower-case hex of a SHA-256."""

_PEER_PREFIX = bytes.fromhex("002408011220")
_PEER_BYTES = len(_PEER_PREFIX) + 32
_PEER_TEXT_MAX = 64
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)?")
_NAME_MAX = 96


def peer_id_from_public_key(public_key: bytes) -> PeerId:
    """The peer id that contains `public_key` (32 raw Ed25519 bytes)."""
    if len(public_key) != 32:
        raise ProtocolError("an Ed25519 public key has 32 bytes")
    return PeerId(base58.b58encode(_PEER_PREFIX + public_key).decode("ascii"))


def public_key_of(peer: str) -> bytes:
    """The 32 raw public-key bytes inside a peer id; `ProtocolError` for any other kind of id."""
    if len(peer) > _PEER_TEXT_MAX:
        raise ProtocolError("peer id too long")
    try:
        raw = base58.b58decode(peer)
    except ValueError as error:
        raise ProtocolError("peer id is not base58") from error
    if len(raw) != _PEER_BYTES or not raw.startswith(_PEER_PREFIX):
        raise ProtocolError("peer id is not an Ed25519 identity")
    if base58.b58encode(raw) != peer.encode():  # base58 ignores blanks at the end
        raise ProtocolError("peer id is not spelled as peer ids are")
    return raw[len(_PEER_PREFIX) :]


def parse_peer_id(text: str) -> PeerId:
    """`text` as a peer id, checked."""
    public_key_of(text)
    return PeerId(text)


def parse_specialist_id(text: str) -> SpecialistId:
    """A specialist id: lower-case letters, digits, `.`, `_`, `-`, at most one `/`, at most 96."""
    if len(text) > _NAME_MAX or not _NAME.fullmatch(text):
        raise ProtocolError(
            f"{text[:_NAME_MAX]!r} is no specialist id: use lower-case letters, digits and . _ -, "
            "with at most one /"
        )
    return SpecialistId(text)


def parse_swarm_id(text: str) -> SwarmId:
    """A swarm id follows the rule of a specialist id."""
    return SwarmId(parse_specialist_id(text))
