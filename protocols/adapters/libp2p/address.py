"""Multiaddresses as dslm accepts them: TCP, optionally through a relay, ending in a peer id.

Knows the text form; must not know whether anybody answers there.
"""

from dataclasses import dataclass

import base58
from hivemind.utils.multiaddr import Multiaddr
from hivemind.utils.multiaddr.exceptions import Error as MultiaddrError

from protocols.errors import ProtocolError, UserError
from protocols.ids import PeerId, parse_peer_id
from protocols.limits import ADDRESS_BYTES_MAX

_HOSTS = frozenset({"ip4", "ip6", "dns", "dns4", "dns6"})
_SHAPES = (["tcp"], ["tcp", "p2p", "p2p-circuit"])
"""What may follow the host: a peer itself, or a relay to it.

QUIC is left out on purpose: the daemon's version of it has known holes.
"""

_P2P_CODE, _CIRCUIT_CODE = b"\xa5\x03", b"\xa2\x02"
"""Multicodec varints of `p2p` and `p2p-circuit`."""


@dataclass(frozen=True, slots=True)
class DialAddress:
    """Where a peer can be dialled, and who must answer."""

    peer: PeerId
    where: Multiaddr


def parse_address(text: str) -> DialAddress:
    """`text` taken apart; `UserError` says what is wrong with it."""
    if len(text) > ADDRESS_BYTES_MAX:
        raise UserError(f"the address is longer than {ADDRESS_BYTES_MAX} bytes")
    where, separator, peer_text = text.strip().rpartition("/p2p/")
    if not separator or not where:
        raise UserError(f"{text!r} is no peer address; one looks like /ip4/…/tcp/…/p2p/12D3KooW…")
    try:
        peer = parse_peer_id(peer_text)
        multiaddr = Multiaddr(where)
        if is_relayed(where):
            parse_peer_id(where.partition("/p2p/")[2].partition("/")[0])
    except (ProtocolError, MultiaddrError, ValueError) as error:
        raise UserError(f"{text!r} is no peer address: {error}") from error
    if not _is_spoken(_names(multiaddr)):
        raise UserError(f"{text!r} cannot be dialled: only TCP addresses can")
    return DialAddress(peer, multiaddr)


def is_dialable(multiaddr: Multiaddr) -> bool:
    """Whether an address that ends in its peer uses nothing but what we speak."""
    names = _names(multiaddr)
    return names[-1:] == ["p2p"] and _is_spoken(names[:-1])


def to_wire(where: Multiaddr) -> bytes:
    """What go-libp2p takes for an address (without the peer at its end).

    hivemind's library writes a relay's id as a CID; go-libp2p wants the bare multihash.
    """
    direct, is_through_relay, rest = str(where).partition("/p2p/")
    encoded: bytes = Multiaddr(direct).to_bytes()
    if is_through_relay:
        relay = base58.b58decode(rest.partition("/")[0])
        encoded += _P2P_CODE + bytes([len(relay)]) + relay + _CIRCUIT_CODE
    return encoded


def is_relayed(text: str) -> bool:
    """Whether an address leads through a relay."""
    return "/p2p-circuit" in text


def parse_listen(text: str) -> tuple[str, int]:
    """Host and port of a listening multiaddress such as `/ip4/127.0.0.1/tcp/0`."""
    parts = text.split("/")
    if len(parts) != 5 or parts[1] not in ("ip4", "ip6") or parts[3] != "tcp":
        raise UserError(f"cannot listen on {text!r}; an address looks like /ip4/0.0.0.0/tcp/4001")
    try:
        Multiaddr(text)
    except (MultiaddrError, ValueError) as error:
        raise UserError(f"cannot listen on {text!r}: {error}") from error
    return parts[2], int(parts[4])


def _names(multiaddr: Multiaddr) -> list[str]:
    return [protocol.name for protocol in multiaddr.protocols()]


def _is_spoken(names: list[str]) -> bool:
    return bool(names) and names[0] in _HOSTS and names[1:] in _SHAPES
