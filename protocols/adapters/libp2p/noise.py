"""The first half of libp2p's Noise handshake, as far as is needed to learn who answers.

Knows Noise_XX_25519_ChaChaPoly_SHA256 (noiseprotocol.org, revision 34) and libp2p's payload in it
(libp2p specs, noise/README.md); must not know sockets. Two of the three messages are enough: the
second can only be made by the holder of a static key, for which its payload holds a signature.
"""

import hashlib
import hmac

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from protocols.adapters.libp2p.protobuf import fields
from protocols.errors import ProtocolError
from protocols.ids import PeerId, public_key_of

NAME = b"Noise_XX_25519_ChaChaPoly_SHA256"
SIGNED_PREFIX = b"noise-libp2p-static-key:"
_KEY_BYTES = 32
_TAG_BYTES = 16
_ED25519_PREFIX = bytes.fromhex("08011220")
"""A libp2p public key message: type Ed25519, then 32 bytes."""
_IDENTITY_KEY, _IDENTITY_SIGNATURE = 1, 2
"""Field numbers of the payload."""


class Initiator:
    """Asks who is there: `first` goes out, what comes back goes into `read_second`."""

    def __init__(self, ephemeral: X25519PrivateKey) -> None:
        self._ephemeral = ephemeral
        self._chaining_key = NAME
        self._hash = hashlib.sha256(NAME).digest()  # with the empty prologue
        self._key = b""

    def __repr__(self) -> str:
        return "<Initiator>"

    def first(self) -> bytes:
        """-> e. Call it once, before `read_second`."""
        public = self._ephemeral.public_key().public_bytes_raw()
        self._mix_hash(public)
        self._mix_hash(b"")
        return public

    def read_second(self, message: bytes, peer: PeerId) -> None:
        """<- e, ee, s, es: returns if `peer` made this message for us, else `ProtocolError`."""
        if len(message) < 2 * _KEY_BYTES + 2 * _TAG_BYTES:
            raise ProtocolError("a handshake message that is too short")
        remote_ephemeral = message[:_KEY_BYTES]
        end = 2 * _KEY_BYTES + _TAG_BYTES
        try:
            self._mix_hash(remote_ephemeral)
            self._mix_key(remote_ephemeral)
            remote_static = self._decrypt(message[_KEY_BYTES:end])
            self._mix_key(remote_static)
            payload = self._decrypt(message[end:])
        except (InvalidTag, ValueError) as error:
            raise ProtocolError("a handshake message that nobody made for us") from error
        check_payload(payload, remote_static, peer)

    def _mix_hash(self, data: bytes) -> None:
        self._hash = hashlib.sha256(self._hash + data).digest()

    def _mix_key(self, remote: bytes) -> None:
        """Both Diffie-Hellman results so far are with our ephemeral key."""
        shared = self._ephemeral.exchange(X25519PublicKey.from_public_bytes(remote))
        temporary = hmac.digest(self._chaining_key, shared, "sha256")
        self._chaining_key = hmac.digest(temporary, b"\x01", "sha256")
        self._key = hmac.digest(temporary, self._chaining_key + b"\x02", "sha256")

    def _decrypt(self, data: bytes) -> bytes:
        """Each key is used once here, hence the nonce of zero."""
        plain = ChaCha20Poly1305(self._key).decrypt(bytes(12), data, self._hash)
        self._mix_hash(data)
        return plain


def check_payload(payload: bytes, static: bytes, peer: PeerId) -> None:
    """`ProtocolError` unless `payload` says, signed by `peer`, that `static` is its key."""
    found = dict(fields(payload))
    public = public_key_of(peer)
    if found.get(_IDENTITY_KEY) != _ED25519_PREFIX + public:
        raise ProtocolError("another peer answered")
    signature = found.get(_IDENTITY_SIGNATURE)
    if not isinstance(signature, bytes):
        raise ProtocolError("a handshake without a proof of identity")
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, SIGNED_PREFIX + static)
    except (InvalidSignature, ValueError) as error:
        raise ProtocolError("a handshake without a proof of identity") from error
