"""Who is where: the one question of go-libp2p's own DHT that p2pd asks, answered by us.

Knows the FIND_NODE message of `/ipfs/kad/1.0.0` (libp2p specs, kad-dht/README.md) and which peers
are connected; must not know records. p2pd's own answers know no gate, and it keeps whatever a
stranger stores with it until memory is full, so its protocol is taken over.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from protocols import admission
from protocols.access import DHT_FIND
from protocols.adapters.libp2p.protobuf import encode_field, encode_varint, fields
from protocols.adapters.libp2p.turnstile import Turnstile
from protocols.errors import NetworkError, ProtocolError
from protocols.ids import PeerId, public_key_of
from protocols.limits import ADDRESS_BYTES_MAX
from protocols.ports import Clock, Stream

ROUTING_PROTOCOL = "/ipfs/kad/1.0.0"
REQUEST_BYTES_MAX = 1_024
PEERS_MAX = 20
ADDRESSES_MAX = 8
LIST_SECONDS, ADDRESS_SECONDS = 1.0, 60.0
"""How long we go by p2pd's list of connections, and by what it told us of each."""
_LENGTH_BYTES = 2
_TYPE, _KEY, _LEVEL, _CLOSER = 1, 2, 10, 8
_PEER_ID, _PEER_ADDRESS, _PEER_CONNECTION = 1, 2, 3
_FIND_NODE, _CONNECTED = 4, 1
_HOST_BYTES = {b"\x04": 5, b"\x29": 17}
"""Multicodec of IPv4 and IPv6, each with its length and its address."""
_TCP_CODE = b"\x06"
_ID_PREFIX = bytes.fromhex("002408011220")


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """A peer and its binary multiaddresses."""

    peer: bytes
    addresses: tuple[bytes, ...]


class Connections(Protocol):
    """p2pd's connections, as far as they are asked for here."""

    def own_whereabouts(self) -> Whereabouts:
        """Ourselves."""
        ...

    async def connected(self) -> Sequence[bytes]:
        """Who is connected; `DslmError` if that cannot be found out."""
        ...

    async def find(self, peer: bytes) -> tuple[bytes, ...]:
        """The addresses of a connected peer; `DslmError` as above."""
        ...


class Directory:
    """Who is connected and where each can be dialled, as p2pd told us a moment ago."""

    def __init__(self, clock: Clock, connections: Connections) -> None:
        self._clock = clock
        self._connections = connections
        self._known: dict[bytes, tuple[float, Whereabouts]] = {}
        self._good_until = float("-inf")

    def own(self) -> Whereabouts:
        """Ourselves."""
        return self._connections.own_whereabouts()

    async def connected(self) -> Sequence[Whereabouts]:
        """Everybody who is connected and has an address."""
        now = self._clock.monotonic()
        if now >= self._good_until:
            self._good_until = now + LIST_SECONDS
            present = await self._connections.connected()
            kept = [(peer, self._known[peer]) for peer in present if peer in self._known]
            known = {peer: entry for peer, entry in kept if entry[0] > now}
            for peer in present:
                if peer not in known and (addresses := await self._find(peer)):
                    known[peer] = (now + ADDRESS_SECONDS, Whereabouts(peer, addresses))
            self._known = known
        return [entry for _, entry in self._known.values()]

    async def _find(self, peer: bytes) -> tuple[bytes, ...]:
        try:
            return tuple(filter(is_passed_on, await self._connections.find(peer)))
        except NetworkError:
            return ()


class PeerRouting:
    """Serves `ROUTING_PROTOCOL`."""

    def __init__(self, turnstile: Turnstile, directory: Directory) -> None:
        self._turnstile = turnstile
        self._directory = directory

    async def __call__(self, stream: Stream) -> None:
        """Answer the questions of one stream until it ends.

        One who was not admitted hears only of ourselves: p2pd asks before anybody said hello, and
        would take no answer for a broken peer.
        """
        unread = b""
        while True:
            message, unread = take_message(unread)
            if message is None:
                data = await stream.receive(REQUEST_BYTES_MAX)
                if not data:
                    return
                unread += data
                continue
            target, level = parse_find_node(message)
            self._turnstile.count_routing(stream.peer)
            found: Sequence[Whereabouts] = ()
            if admission.is_admitted(self._turnstile.gate, stream.peer, DHT_FIND):
                found = nearest(target, await self._directory.connected(), stream.peer)
            await stream.send(encode_answer(found or [self._directory.own()], level))


def take_message(data: bytes) -> tuple[bytes | None, bytes]:
    """The first message, if it is there, and the rest; `ProtocolError` if it is too long."""
    length = 0
    for index, byte in enumerate(data[:_LENGTH_BYTES]):
        length |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            break
    else:
        if len(data) >= _LENGTH_BYTES:
            raise ProtocolError("a question that is too long")
        return None, data
    if length > REQUEST_BYTES_MAX:
        raise ProtocolError("a question that is too long")
    end = index + 1 + length
    return (data[index + 1 : end], data[end:]) if len(data) >= end else (None, data)


def parse_find_node(message: bytes) -> tuple[bytes, int]:
    """Key and cluster level of a FIND_NODE; `ProtocolError` for all other messages."""
    kind: int | bytes = 0
    key: int | bytes = b""
    level: int | bytes = 0
    for number, value in fields(message):
        if number == _TYPE:
            kind = value
        elif number == _KEY:
            key = value
        elif number == _LEVEL:
            level = value
    if kind != _FIND_NODE or not isinstance(key, bytes) or not isinstance(level, int):
        raise ProtocolError("a question that is not answered here")
    return key, level & 0x7FFF_FFFF


def nearest(target: bytes, known: Sequence[Whereabouts], asking: PeerId) -> Sequence[Whereabouts]:
    """The peers nearest to `target` (which may be one of them), without the one that asks."""
    place = _place(target)
    me = _ID_PREFIX + public_key_of(asking)
    others = [entry for entry in known if entry.peer != me]
    return sorted(others, key=lambda entry: _place(entry.peer) ^ place)[:PEERS_MAX]


def encode_answer(found: Sequence[Whereabouts], level: int) -> bytes:
    """The answer to a FIND_NODE, with its length."""
    body = encode_field(_TYPE, _FIND_NODE) + encode_field(_LEVEL, level)
    for entry in found:
        peer = encode_field(_PEER_ID, entry.peer)
        for address in entry.addresses[:ADDRESSES_MAX]:
            peer += encode_field(_PEER_ADDRESS, address)
        peer += encode_field(_PEER_CONNECTION, _CONNECTED)
        body += encode_field(_CLOSER, peer)
    return encode_varint(len(body)) + body


def is_passed_on(address: bytes) -> bool:
    """Whether a binary multiaddress is one of TCP, as far as its beginning tells."""
    host = _HOST_BYTES.get(address[:1], 0)
    return host > 0 and address[host : host + 1] == _TCP_CODE and len(address) <= ADDRESS_BYTES_MAX


def _place(key: bytes) -> int:
    """Where a key lies in go-libp2p's space."""
    return int.from_bytes(hashlib.sha256(key).digest(), "big")
