"""`/dslm/reach/1`: can I be reached at these addresses? The other peer dials them to find out.

Knows the messages and their bounds. The dial is a new connection, and goes only to network
addresses from which the asking peer is connected, so that nobody can be made to dial third parties.
"""

from typing import Annotated

from msgspec import Meta, Struct

from protocols import limits

DIALS_MAX = 4
"""Addresses in one request."""
REACH_BYTES_MAX = 16 * 1024
"""One message's header; the bounds below allow less."""

Address = Annotated[str, Meta(max_length=limits.ADDRESS_BYTES_MAX)]
Addresses = Annotated[tuple[Address, ...], Meta(max_length=DIALS_MAX)]


class ReachRequest(Struct, frozen=True, tag="reach?"):
    """Addresses of the asking peer, without `/p2p/`."""

    addresses: Addresses


class ReachReply(Struct, frozen=True, tag="reach"):
    """Those at which the asking peer answered, and from where its connection seems to come."""

    reached: Addresses = ()
    observed: Annotated[tuple[Address, ...], Meta(max_length=limits.ADDRESSES_MAX)] = ()
    failed: Annotated[
        tuple[Annotated[str, Meta(max_length=limits.TEXT_BYTES_MAX)], ...],
        Meta(max_length=DIALS_MAX),
    ] = ()
    """For each address that was not reached, `address: reason`."""
    refused: Annotated[str, Meta(max_length=limits.TEXT_BYTES_MAX)] = ""
    """Why nothing was dialled at all; may be asked again later."""


ReachMessage = ReachRequest | ReachReply
