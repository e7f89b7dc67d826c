"""Multiaddresses as dslm accepts them: TCP, optionally through a relay, ending in a peer id.

Knows the text form; must not know whether anybody answers there.
"""

from dataclasses import dataclass

from hivemind.utils.multiaddr import Multiaddr
from hivemind.utils.multiaddr.exceptions import Error as MultiaddrError

from protocols.errors import ProtocolError, UserError
from protocols.ids import PeerId, parse_peer_id
from protocols.limits import ADDRESS_BYTES_MAX

_ALLOWED = frozenset({"ip4", "ip6", "dns", "dns4", "dns6", "tcp", "p2p", "p2p-circuit"})
"""QUIC is left out on purpose: the daemon's version of it has known holes."""


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
    except (ProtocolError, MultiaddrError, ValueError) as error:
        raise UserError(f"{text!r} is no peer address: {error}") from error
    if not is_dialable(multiaddr):
        raise UserError(f"{text!r} cannot be dialled: only TCP addresses can")
    return DialAddress(peer, multiaddr)


def is_dialable(multiaddr: Multiaddr) -> bool:
    """Whether an address uses nothing but what we speak."""
    names = [protocol.name for protocol in multiaddr.protocols()]
    return "tcp" in names and _ALLOWED.issuperset(names)


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
