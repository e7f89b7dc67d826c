"""Sealed statements: bytes that somebody signed, opened without being serialised again.

Knows the envelope `{kind, signer, body, signature}` and its bounds; must not know what the bodies
say. Records of the store and the documents of a swarm's membership share it.
"""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from protocols.codec import decode_header
from protocols.errors import RecordError
from protocols.ids import PeerId, parse_peer_id
from protocols.signing import Identity, verify

PeerText = Annotated[str, Meta(max_length=64)]
BODY_BYTES_MAX = 512 * 1024


class Sealed(Struct, frozen=True):
    """A signed body, kept as the exact bytes that were signed."""

    signer: PeerText
    kind: Annotated[str, Meta(max_length=16)]
    body: Annotated[bytes, Meta(max_length=BODY_BYTES_MAX)]
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Sealed)


def seal_body(kind: str, body: Struct, identity: Identity) -> bytes:
    """`body`, signed by `identity` as a statement of `kind`."""
    data = _encoder.encode(body)
    return _encoder.encode(Sealed(identity.peer_id, kind, data, identity.sign(kind, data)))


def open_envelope(data: bytes, bytes_max: int) -> tuple[PeerId, Sealed]:
    """Who sealed `data`, proven by the signature, and what.

    `RecordError` for what is too large or badly signed, `ProtocolError` for what is no envelope.
    """
    if len(data) > bytes_max:
        raise RecordError(f"{len(data)} bytes in a record, at most {bytes_max}")
    sealed = decode_header(_decoder, data)
    signer = parse_peer_id(sealed.signer)
    verify(signer, sealed.kind, sealed.body, sealed.signature)
    return signer, sealed
