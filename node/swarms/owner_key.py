"""The owner's key of a swarm in a file: encrypted with a passphrase and bound to the charter.

Knows the file's format and cipher; must not know what the key signs. Whoever has file and
passphrase owns the swarm, so the file is meant to be kept on another medium.
"""

import base64
import binascii
import textwrap
import unicodedata
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from msgspec import Meta, Struct

from node.swarms.durable import make_private_folder, read_file, require_private, write_new_file
from protocols.errors import ConfigError, ProtocolError, UserError
from protocols.membership.charter import Charter
from protocols.signing import Identity

PASSPHRASE_MIN = 10
DIFFERENT_MIN = 5
_PASSPHRASE_MAX = 1_024
_FILE_BYTES_MAX = 16 * 1024
_COST, _BLOCK, _LANES = 2**17, 8, 1
"""Of scrypt (RFC 7914): 128 MiB of memory and about half a second for each guess. They belong to
version 1 of the format and are not read from the file, which could ask for any amount."""
_BEGIN, _END = "-----BEGIN DSLM OWNER KEY-----", "-----END DSLM OWNER KEY-----"
_DOMAIN = b"dslm/owner/1\0"
_SEED_AT = 4
"""Where the seed begins in libp2p's private-key format."""

Entropy = Callable[[int], bytes]
"""As many random bytes as asked for; fit for keys."""


class _Sealed(Struct, frozen=True):
    """What is in the file. `box` is the seed, encrypted; charter and salt are authenticated."""

    version: Literal[1]
    charter: Charter
    salt: Annotated[bytes, Meta(min_length=16, max_length=16)]
    nonce: Annotated[bytes, Meta(min_length=12, max_length=12)]
    box: Annotated[bytes, Meta(min_length=48, max_length=48)]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Sealed)


@dataclass(frozen=True, slots=True)
class OwnerKeyFile:
    """A key file that may or may not be there yet."""

    path: Path

    def create(self, charter: Charter, owner: Identity, passphrase: str, entropy: Entropy) -> None:
        """Write the key (mode 0600). Takes half a second.

        `UserError` for a weak passphrase, `ConfigError` if there is a file already.
        """
        make_private_folder(self.path.parent)
        text = seal_owner_key(charter, owner, passphrase, entropy)
        write_new_file(self.path, text.encode("ascii"))

    def charter(self) -> Charter:
        """Of the swarm that the key is for, as the file claims; `ConfigError` if it is damaged."""
        return self._read().charter

    def unlock(self, passphrase: str) -> Identity:
        """The key. Takes half a second. `UserError` for a wrong passphrase, `ConfigError` if the
        file is damaged or others can read it."""
        return open_owner_key(self._read(), passphrase)

    def _read(self) -> _Sealed:
        try:
            require_private(self.path)
        except OSError as error:
            raise ConfigError(
                f"there is no owner's key at {self.path}: fetch it from where you keep it, or say "
                "where it is with --owner-key FILE"
            ) from error
        try:
            return _parse(read_file(self.path, _FILE_BYTES_MAX).decode("ascii"))
        except (ProtocolError, ValueError, RecursionError, msgspec.MsgspecError) as error:
            raise ConfigError(
                f"the owner's key {self.path} is damaged ({error}): restore it from a copy"
            ) from error


def check_passphrase(passphrase: str, name: str = "") -> None:
    """`UserError` unless `passphrase` is worth the name; `name` is the swarm's."""
    text = _normal(passphrase)
    if len(text) > _PASSPHRASE_MAX:
        raise UserError(f"a passphrase has at most {_PASSPHRASE_MAX} characters")
    if len(text) < PASSPHRASE_MIN or len(set(text)) < DIFFERENT_MIN:
        raise UserError(
            f"this passphrase is too weak: use at least {PASSPHRASE_MIN} characters, "
            f"{DIFFERENT_MIN} of them different. Five words that belong to no saying are good"
        )
    if name and len(text.casefold().replace(name.casefold(), "")) < PASSPHRASE_MIN // 2:
        raise UserError("this passphrase is too weak: it is the swarm's name and little else")


def seal_owner_key(charter: Charter, owner: Identity, passphrase: str, entropy: Entropy) -> str:
    """The text of a key file; `UserError` for a weak passphrase."""
    check_passphrase(passphrase, charter.name)
    if charter.owner != owner.peer_id:
        raise UserError("the key is not that of the swarm's owner")
    salt, nonce = entropy(16), entropy(12)
    seed = owner.to_libp2p()[_SEED_AT : _SEED_AT + 32]
    cipher = ChaCha20Poly1305(_stretch(passphrase, salt))
    box = cipher.encrypt(nonce, seed, _bound(charter, salt))
    data = _encoder.encode(_Sealed(1, charter, salt, nonce, box))
    data += zlib.crc32(data).to_bytes(4, "big")
    body = "\n".join(textwrap.wrap(base64.b64encode(data).decode("ascii"), 64))
    kind = "private" if charter.is_private else "public"
    about = f"Swarm: {charter.name} ({kind})\nSwarm-Id: {charter.swarm}\nOwner: {charter.owner}"
    return f"{_BEGIN}\n{about}\n\n{body}\n{_END}\n"


def open_owner_key(sealed: _Sealed, passphrase: str) -> Identity:
    """The key in `sealed`; `UserError` for a wrong passphrase."""
    cipher = ChaCha20Poly1305(_stretch(passphrase, sealed.salt))
    try:
        seed = cipher.decrypt(sealed.nonce, sealed.box, _bound(sealed.charter, sealed.salt))
    except InvalidTag:
        raise UserError(
            f"this is not the passphrase of the owner's key of {sealed.charter.name}"
        ) from None
    owner = Identity(seed)
    if owner.peer_id != sealed.charter.owner:
        raise UserError("the key in the file is not that of the swarm's owner")
    return owner


def _parse(text: str) -> _Sealed:
    begin, _, rest = text.strip().partition("\n")
    head, _, rest = rest.partition("\n\n")
    body, _, end = rest.rpartition("\n")
    if begin.strip() != _BEGIN or end.strip() != _END or not head:
        raise ProtocolError("it has no beginning or no end")
    try:
        data = base64.b64decode("".join(body.split()), validate=True)
    except binascii.Error:
        raise ProtocolError("it has characters that do not belong there") from None
    if len(data) < 8 or zlib.crc32(data[:-4]).to_bytes(4, "big") != data[-4:]:
        raise ProtocolError("its checksum is wrong")
    sealed = _decoder.decode(data[:-4])
    sealed.charter.check()
    return sealed


def _stretch(passphrase: str, salt: bytes) -> bytes:
    kdf = Scrypt(salt=salt, length=32, n=_COST, r=_BLOCK, p=_LANES)
    return kdf.derive(_normal(passphrase).encode())


def _normal(passphrase: str) -> str:
    """One spelling for what looks the same, whatever keyboard made it."""
    return unicodedata.normalize("NFKC", passphrase)


def _bound(charter: Charter, salt: bytes) -> bytes:
    return _DOMAIN + _encoder.encode(charter) + salt
