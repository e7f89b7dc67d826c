"""How far an address reaches: this machine, one link, a local network, the world, or a relay.

Knows the text form of addresses and the ranges of IP; must not know who listens there.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_PORT_MAX = 65_535
_SHARED = ipaddress.ip_network("100.64.0.0/10")
"""Carrier-grade NAT (RFC 6598): neither private nor global to Python, a local network to us."""
_IP_KINDS = ("ip4", "ip6")
_NAME_KINDS = ("dns", "dns4", "dns6")


class Scope(IntEnum):
    """Ordered from the narrowest to the widest."""

    NONE = 0
    """Leads nowhere: unspecified, multicast, reserved, or no address that we understand."""
    LOOPBACK = 1
    LINK = 2
    LAN = 3
    """Private and shared ranges."""
    RELAY = 4
    """Through a peer that passes bytes on."""
    PUBLIC = 5
    """Global addresses, and names: whoever published a name wants it to be found."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A TCP port that can be dialled without asking anybody."""

    ip: IpAddress
    port: int


def endpoint_of(address: str) -> Endpoint | None:
    """The IP and port of a plain address (`/ip4|ip6/IP/tcp/PORT`, perhaps `/p2p/PEER` after it).

    None for names, relays and everything else.
    """
    parts = address.split("/")
    if len(parts) not in (5, 7) or parts[0] or parts[1] not in _IP_KINDS or parts[3] != "tcp":
        return None
    if len(parts) == 7 and (parts[5] != "p2p" or not parts[6]):
        return None
    ip, port = _ip(parts[1], parts[2]), _port(parts[4])
    return Endpoint(ip, port) if ip is not None and port else None


def is_relayed(address: str) -> bool:
    """Whether an address goes through another peer."""
    return "p2p-circuit" in address.split("/")


def is_name(address: str) -> bool:
    """Whether an address is a name of the domain name system, with a TCP port."""
    parts = address.split("/")
    named = len(parts) >= 5 and not parts[0] and parts[1] in _NAME_KINDS and bool(parts[2])
    return named and parts[3] == "tcp" and bool(_port(parts[4]))


def scope_of(address: str) -> Scope:
    """How far an address reaches."""
    if is_relayed(address):
        return Scope.RELAY
    if is_name(address):
        return Scope.PUBLIC
    endpoint = endpoint_of(address)
    return scope_of_ip(endpoint.ip) if endpoint is not None else Scope.NONE


def scope_of_ip(ip: IpAddress) -> Scope:
    """How far an IP address reaches."""
    if ip.is_loopback:
        return Scope.LOOPBACK
    if ip.is_link_local:
        return Scope.LINK
    if ip.is_unspecified or ip.is_multicast or ip.is_reserved:
        return Scope.NONE
    if ip.is_global:
        return Scope.PUBLIC
    return Scope.LAN if ip.is_private or ip in _SHARED else Scope.NONE


def reason_not_to_dial(address: str, observed: Iterable[str]) -> str:
    """Why a peer that is seen to come from `observed` may not have `address` dialled; else "".

    It may where its connection comes from, so that nobody can be made to dial somebody else. All
    loopback addresses are one machine; a connection through a relay does not show where a peer is.
    """
    endpoint = endpoint_of(address)
    if endpoint is None:
        return "only a plain IP address with a TCP port is dialled back"
    scope = scope_of_ip(endpoint.ip)
    if scope is Scope.NONE:
        return "nobody can be there"
    seen = {one.ip for one in map(endpoint_of, observed) if one is not None}
    if endpoint.ip in seen:
        return ""
    if scope is Scope.LOOPBACK and any(ip.is_loopback for ip in seen):
        return ""
    return "your connection does not come from there"


def without_peer(address: str) -> str:
    """`address` without the peer id at its end."""
    where, separator, peer = address.rpartition("/p2p/")
    return where if separator and "/" not in peer else address


def ip_text(ip: IpAddress) -> tuple[Literal["ip4", "ip6"], str]:
    """The two parts of an address that name an IP."""
    return ("ip4" if ip.version == 4 else "ip6"), str(ip)


def _ip(kind: str, text: str) -> IpAddress | None:
    try:
        if kind == "ip4":
            return ipaddress.IPv4Address(text)
        if "%" in text:  # A zone means something on its own machine only.
            return None
        six = ipaddress.IPv6Address(text)
    except ValueError:
        return None
    return six.ipv4_mapped or six


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 5):
        return 0
    return port if (port := int(text)) <= _PORT_MAX else 0
