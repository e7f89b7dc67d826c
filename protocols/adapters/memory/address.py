"""Addresses in the memory network: `/memory/<peer>/p2p/<peer>`.

Knows the text form only; must not know which peers exist.
"""

from protocols.errors import ProtocolError
from protocols.ids import PeerId, parse_peer_id
from protocols.limits import ADDRESS_BYTES_MAX


def address_of(peer: PeerId) -> str:
    """The one address of `peer`."""
    return f"/memory/{peer}/p2p/{peer}"


def parse_address(text: str) -> PeerId:
    """The peer that `text` leads to; `ProtocolError` for anything but a memory address."""
    parts = text.split("/") if len(text) <= ADDRESS_BYTES_MAX else []
    if len(parts) != 5 or parts[:2] != ["", "memory"] or parts[3] != "p2p":
        raise ProtocolError("not an address of the memory network")
    if parts[2] != parts[4]:
        raise ProtocolError("the address names two different peers")
    return parse_peer_id(parts[4])
