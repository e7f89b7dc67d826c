"""The answering half of libp2p's Noise handshake, for tests of the asking half."""

import hashlib
import hmac

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

SEED = slice(4, 36)
KEY_PREFIX = bytes.fromhex("08011220")


def field(number: int, value: bytes) -> bytes:
    return bytes([number << 3 | 2, len(value)]) + value


def payload(
    key: Ed25519PrivateKey, static: bytes, prefix: bytes = b"noise-libp2p-static-key:"
) -> bytes:
    public = KEY_PREFIX + key.public_key().public_bytes_raw()
    return field(1, public) + field(2, key.sign(prefix + static))


def respond(first: bytes, static: X25519PrivateKey, content: bytes) -> bytes:
    """The second message of the handshake, by the book: e, ee, s, es, payload."""
    ephemeral = X25519PrivateKey.generate()
    remote = X25519PublicKey.from_public_bytes(first)
    chaining = b"Noise_XX_25519_ChaChaPoly_SHA256"
    digest = hashlib.sha256(chaining).digest()
    message = ephemeral.public_key().public_bytes_raw()
    for public in (first, b"", message):
        digest = hashlib.sha256(digest + public).digest()
    static_public = static.public_key().public_bytes_raw()
    for private, plain in ((ephemeral, static_public), (static, content)):
        temporary = hmac.digest(chaining, private.exchange(remote), "sha256")
        chaining = hmac.digest(temporary, b"\x01", "sha256")
        key = hmac.digest(temporary, chaining + b"\x02", "sha256")
        sealed = ChaCha20Poly1305(key).encrypt(bytes(12), plain, digest)
        digest = hashlib.sha256(digest + sealed).digest()
        message += sealed
    return message
