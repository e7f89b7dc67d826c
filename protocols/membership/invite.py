"""Invites: one string that says which swarm, where it is, and (private) proves an invitation.

Knows the string and the proof; who counts the uses is the issuer's ledger (`ledger`). A public
swarm's string carries no secret and may be shown to anybody.
"""

import base64
import binascii
import zlib
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from protocols import limits
from protocols.codec import decode_header
from protocols.errors import ProtocolError, UserError
from protocols.ids import PeerId, SwarmId, parse_peer_id
from protocols.membership.charter import Charter
from protocols.signing import Identity, verify

PREFIX = "dslm:"
_KIND = "enrol"
_encoder = msgspec.msgpack.Encoder()


class Invite(Struct, frozen=True):
    """What an invite string holds.

    `seed` (32 bytes) is the secret half of the invite's own key, empty in a public swarm; whoever
    holds it may use the invite. `addresses` end in `/p2p/<peer>`; in a private swarm the first is
    the issuer's, who alone can redeem the invite.
    """

    charter: Charter
    addresses: Annotated[
        tuple[Annotated[str, Meta(max_length=limits.ADDRESS_BYTES_MAX)], ...],
        Meta(max_length=limits.ADDRESSES_MAX),
    ]
    expires_at: Annotated[float, Meta(ge=0, le=1e11)] = 0.0
    seed: Annotated[bytes, Meta(max_length=32)] = b""

    @property
    def invite_id(self) -> PeerId:
        """The invite's public half, in peer id form; `ProtocolError` without a seed."""
        return self.key().peer_id

    @property
    def issuer(self) -> PeerId:
        """Who made it and can redeem it; `ProtocolError` if no address says so."""
        if not self.addresses:
            raise ProtocolError("an invite without an address")
        return parse_peer_id(self.addresses[0].rpartition("/p2p/")[2])

    def addresses_of(self, peer: PeerId) -> tuple[str, ...]:
        """Those of the addresses that lead to `peer`."""
        return tuple(one for one in self.addresses if one.endswith(f"/p2p/{peer}"))

    def key(self) -> Identity:
        """The invite's key."""
        if len(self.seed) != 32:
            raise ProtocolError("an invite without a secret")
        return Identity(self.seed)


_decoder = msgspec.msgpack.Decoder(Invite)


def format_invite(invite: Invite) -> str:
    """The one string; it ends in a checksum, so that a part that is missing is noticed."""
    data = _encoder.encode(invite)
    data += zlib.crc32(data).to_bytes(4, "big")
    return PREFIX + base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def parse_invite(text: str) -> Invite:
    """The invite in `text`; `UserError` says what is wrong with it."""
    text = "".join(text.split())
    if not text.startswith(PREFIX):
        raise UserError(f"an invite begins with {PREFIX!r}; `dslm invite` prints one")
    if len(text) > 2 * limits.INVITE_BYTES_MAX:
        raise UserError("this is too long for an invite")
    body = text[len(PREFIX) :]
    try:
        data = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise UserError("the invite has characters that do not belong there") from None
    if len(data) < 8 or zlib.crc32(data[:-4]).to_bytes(4, "big") != data[-4:]:
        raise UserError("the invite is damaged or incomplete: copy it again, all of it")
    try:
        invite = decode_header(_decoder, data[:-4])
        invite.charter.check()
        if invite.charter.is_private:
            invite.key()
            _ = invite.issuer
    except ProtocolError as error:
        raise UserError(f"the invite cannot be used: {error}") from None
    return invite


def prove_invite(key: Identity, swarm: SwarmId, joiner: PeerId, issuer: PeerId) -> bytes:
    """The signature with which `joiner` shows `issuer` that it holds an invite's secret."""
    return key.sign(_KIND, _statement(swarm, joiner, issuer))


def check_proof(
    invite_id: PeerId, swarm: SwarmId, joiner: PeerId, issuer: PeerId, signature: bytes
) -> None:
    """`RecordError` unless `signature` was made by `prove_invite` for these peers."""
    verify(invite_id, _KIND, _statement(swarm, joiner, issuer), signature)


def _statement(swarm: SwarmId, joiner: PeerId, issuer: PeerId) -> bytes:
    return f"{swarm}\n{joiner}\n{issuer}".encode()
