"""Ed25519 identities: the node key, signatures with a domain, checked from a peer id alone.

Knows bytes and keys; files are the caller's business. A signature always covers
`b"dslm/v1/" + kind + b"\\0" + the exact bytes sent`; nothing is re-serialised before verifying.
"""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocols.errors import ConfigError, RecordError
from protocols.ids import PeerId, peer_id_from_public_key, public_key_of
from protocols.versions import SIGNING_DOMAIN

_LIBP2P_PREFIX = bytes.fromhex("08011240")
_SEED_BYTES = 32


class Identity:
    """A peer's private key. `repr` shows the peer id only."""

    def __init__(self, seed: bytes) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self._public_bytes = self._private.public_key().public_bytes_raw()
        self.peer_id: PeerId = peer_id_from_public_key(self._public_bytes)

    def __repr__(self) -> str:
        return f"<Identity {self.peer_id}>"

    @classmethod
    def generate(cls) -> "Identity":
        """A new identity from the system's randomness."""
        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def from_libp2p(cls, data: bytes) -> "Identity":
        """Read the libp2p private-key format (`08 01 12 40`, seed, public key)."""
        if len(data) != len(_LIBP2P_PREFIX) + 64 or not data.startswith(_LIBP2P_PREFIX):
            raise ConfigError("the identity file is not an Ed25519 libp2p private key")
        seed = data[len(_LIBP2P_PREFIX) : len(_LIBP2P_PREFIX) + _SEED_BYTES]
        identity = cls(seed)
        if identity.to_libp2p() != data:
            raise ConfigError("the identity file is damaged: its two keys do not belong together")
        return identity

    def to_libp2p(self) -> bytes:
        """The bytes of the libp2p private-key format; keep them in a file of mode 0600."""
        seed = self._private.private_bytes(
            serialization.Encoding.Raw,
            serialization.PrivateFormat.Raw,
            serialization.NoEncryption(),
        )
        return _LIBP2P_PREFIX + seed + self._public_bytes

    def sign(self, kind: str, data: bytes) -> bytes:
        """The 64-byte signature of `data` as a statement of the given kind."""
        return self._private.sign(_signed_bytes(kind, data))


def verify(peer: PeerId, kind: str, data: bytes, signature: bytes) -> None:
    """Return if `peer` signed `data` as that kind of statement; `RecordError` if not."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key_of(peer)).verify(
            signature, _signed_bytes(kind, data)
        )
    except (InvalidSignature, ValueError) as error:
        raise RecordError(f"bad signature on a {kind} record of {peer[:12]}") from error


def _signed_bytes(kind: str, data: bytes) -> bytes:
    return SIGNING_DOMAIN + kind.encode("ascii") + b"\0" + data
